import json
import math
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from testbed.store import CATALOGUE, Catalogue, RunDirectory
from testbed.verdict_file import SCHEMA_FILE, VerdictFile, number, read_verdict, schema_text
from tests.testbed.sample_run import write


@pytest.fixture
def run(tmp_path):
    return RunDirectory.created(tmp_path / "runs", "r1")


def test_a_run_is_never_made_twice(tmp_path, run):
    with pytest.raises(FileExistsError):
        RunDirectory.created(tmp_path / "runs", "r1")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a\0b", "a b"])
def test_a_run_id_cannot_lead_out_of_the_runs_directory(tmp_path, name):
    with pytest.raises(ValueError, match="found name"):
        RunDirectory.created(tmp_path, name)


def test_a_file_name_cannot_lead_out_of_the_run(run):
    with pytest.raises(ValueError, match="inside the run directory"):
        run.write_text("../escaped.txt", "x")


def test_json_is_replaced_at_once_or_not_at_all(run):
    run.write_json("verdict.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        run.write_json("verdict.json", {"a": math.nan})
    assert run.read_json("verdict.json") == {"a": 1}
    assert [path.name for path in run.path.iterdir()] == ["verdict.json"]


def test_a_reader_sees_whole_documents_while_a_writer_replaces_them(run):
    run.write_json("verdict.json", {"a": "x" * 50_000})
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lambda: [run.write_json("verdict.json", {"a": c * 50_000}) for c in "abcdefgh"])
        while not writing.done():
            assert len(set(run.read_json("verdict.json")["a"])) == 1
        writing.result()


def test_undecodable_names_from_a_file_system_can_be_written_down(run):
    run.write_text("note.txt", "bad \udcff name")
    run.write_json("note.json", {"name": "bad \udcff name"})
    run.append_event("2026-01-01T00:00:00Z", "seen", {"name": "bad \udcff name"})
    assert len(list(run.events())) == 1


def test_events_keep_their_order_and_a_torn_last_line_is_left_out(run):
    for number_ in range(3):
        run.append_event("2026-01-01T00:00:00Z", "window", {"window": number_})
    with (run.path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "win')
    assert [event["window"] for event in run.events()] == [0, 1, 2]


def test_tables_keep_infinite_and_missing_values_and_come_back_in_parts(run):
    table = pd.DataFrame({"flow_id": ["a", "b"], "response_ns": [np.inf, np.nan], "start_ns": [1, 2**62]})
    run.write_table("flows", table)
    pd.testing.assert_frame_equal(run.read_table("flows"), table, check_dtype=False)
    run.write_table("kpis", table.assign(window=10), part=10)
    run.write_table("kpis", table.assign(window=2), part=2)
    assert run.read_table("kpis")["window"].tolist() == [2, 2, 10, 10]
    with pytest.raises(FileNotFoundError):
        run.read_table("counters")


def test_the_catalogue_tells_running_from_concluded_runs_newest_first(tmp_path, run):
    with Catalogue(tmp_path / "runs") as catalogue:
        catalogue.begin(run, "shop", "block-https", "2026-01-01T00:00:00Z")
        later = RunDirectory.created(tmp_path / "runs", "r2")
        catalogue.begin(later, "shop", "none", "2026-01-02T00:00:00Z")
        catalogue.conclude("r1", "FAIL")
        assert [(one.run_id, one.verdict, one.path) for one in catalogue.runs()] == [
            ("r2", None, later.path),
            ("r1", "FAIL", run.path),
        ]
        with pytest.raises(KeyError):
            catalogue.conclude("r9", "PASS")
        with pytest.raises(sqlite3.IntegrityError):
            catalogue.conclude("r2", "MAYBE")
        with pytest.raises(sqlite3.IntegrityError):
            catalogue.begin(run, "shop", "again", "2026-01-03T00:00:00Z")


def test_the_catalogue_is_written_ahead_and_read_while_open(tmp_path, run):
    with Catalogue(tmp_path / "runs") as one, Catalogue(tmp_path / "runs") as other:
        one.begin(run, "shop", "none", "2026-01-01T00:00:00Z")
        assert len(other.runs()) == 1
        plain = sqlite3.connect(tmp_path / "runs" / CATALOGUE)
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        plain.close()


def test_the_published_schema_is_the_one_of_the_code():
    assert SCHEMA_FILE.read_text() == schema_text()


def test_a_verdict_goes_to_disk_and_comes_back_the_same(tmp_path):
    run = write(tmp_path)
    document = json.loads((run.path / "verdict.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == 1
    assert document["findings"][0]["blame"]["line"] == 18
    assert set(document["rollback"]) == {"done", "restored", "detail"}
    verdict = read_verdict(run.path)
    assert VerdictFile.model_validate(document) == verdict
    assert verdict.document() == document
    assert number(verdict.classes[0].kpis["response_ns"].after) == math.inf
