"""Runs judged again from their directories alone; runs in pairs are judged again where they are made (test_pairs)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.cli import main
from testbed.cli.rejudge import rejudge
from testbed.cli.schema import schema
from testbed.devices.registry import known_devices
from testbed.errors import InvalidInput
from testbed.measured_record import NAME as MEASURED
from testbed.prepare import open_lab, prepared
from testbed.rejudge import read_run, rejudged, under
from testbed.rejudged_files import Difference, write_rejudged
from testbed.store import RunDirectory
from testbed.tried_record import NAME as TRIED
from testbed.tried_record import read_tried, write_tried
from testbed.verdict_file import VerdictFile, read_verdict
from tests.testbed.pairs_lab import BLAMED, LETS, pairs_lab
from tests.testbed.quick_lab import RULES

ROOT = Path(__file__).parents[2]
STRICT = """\
classes:
  - {name: datagrams, priority: critical, match: {protocol: udp, port: [5001, 6000-6010]}}
tolerances: {response_ns: {relative: 0.0, absolute_us: 0}}
access: {opened: fail}
"""
OPENED = "-A FORWARD -p tcp -m tcp --dport 8080 -j ACCEPT\n"
IN_A_ROW = ("--baseline", "2", "--treatment", "2", "--window", "0.2", "--mode", "session")
ASKED = {"reject": IN_A_ROW, "open": ("--preflight-only",)}
MORE = {"remark": IN_A_ROW, "syntax": IN_A_ROW, "none": ("--preflight-only",)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rejudge") / "quick"
    folder.mkdir()
    pairs_lab(folder)
    for name, more in {
        "open": LETS + OPENED,
        "syntax": LETS.replace("--dport 80 ", "--dprt 80 "),
        "none": LETS,
    }.items():
        path = folder / "changes" / name / "configs/fw1/iptables.rules"
        path.parent.mkdir(parents=True)
        path.write_text(RULES.format(more=more))
    return folder


def made(lab: Path, asked: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """A run of each change, at the same time: their directories, which were moved since."""

    def ran(change: str) -> Path:
        kept = lab.parent / "made" / change
        argv = [sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / change)]
        done = subprocess.run(
            [*argv, "--runs", str(kept), "--quiet", *asked[change]], capture_output=True, text=True, check=False
        )
        found = [path.parent for path in kept.glob("*/verdict.json")]
        assert len(found) == 1, done.stderr
        moved = lab.parent / "moved" / change
        moved.parent.mkdir(exist_ok=True)
        return found[0].rename(moved)

    with ThreadPoolExecutor(len(asked)) as pool:
        return dict(zip(asked, pool.map(ran, asked), strict=True))


@pytest.fixture(scope="module")
def runs(lab) -> Iterator[dict[str, Path]]:
    """One in a row that fails, and one by the preflight alone that passes; the lab is away while they are judged."""
    found = made(lab, ASKED)
    away = lab.rename(lab.with_name("away"))
    yield found
    away.rename(lab)


def judged_again(run: Path, policy: Path | None = None, expect: Path | None = None) -> VerdictFile:
    return rejudged(under(read_run(run), policy, expect)).verdict


@pytest.fixture
def broken(runs, tmp_path) -> Path:
    """A copy of a run in a row, to be damaged."""
    return Path(shutil.copytree(runs["reject"], tmp_path / "broken"))


def test_the_runs_came_to_what_they_stand_for(runs):
    assert {name: read_verdict(run).verdict for name, run in runs.items()} == {"reject": "FAIL", "open": "PASS"}
    assert read_verdict(runs["reject"]).blamed[0].blame.text == BLAMED


def same_octets(run: Path, into: Path) -> bool:
    again = rejudged(read_run(run))
    assert Difference.of(read_verdict(run), again.verdict).is_none
    written = RunDirectory(into).write_json("again.json", again.verdict.document())
    return written.read_bytes() == (run / "verdict.json").read_bytes()


@pytest.mark.slow
def test_routes_that_turned_are_told_in_one_order_whatever_the_hashes(tmp_path):
    depot = ROOT / "topologies/depot"
    argv = [sys.executable, "-m", "testbed"]
    asked = ["whatif", str(depot), "--change", str(depot / "changes/cost-out-core1"), "--runs", str(tmp_path / "runs")]
    subprocess.run([*argv, *asked, "--baseline", "2", "--treatment", "2"], capture_output=True, check=False)
    (run,) = (path.parent for path in tmp_path.glob("runs/*/verdict.json"))
    for seed in ("1", "2", "3"):
        again = [*argv, "rejudge", str(run), "--json", "-o", str(tmp_path / seed)]
        done = subprocess.run(again, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=False)
        assert done.stdout == (run / "verdict.json").read_bytes(), seed


@pytest.mark.parametrize("change", ASKED)
def test_the_same_data_and_policy_give_the_same_octets(runs, change, tmp_path):
    assert same_octets(runs[change], tmp_path)


@pytest.mark.slow
def test_so_do_runs_that_pass_or_are_refused(lab, tmp_path):
    found = made(lab, MORE)
    assert [read_verdict(run).verdict for run in found.values()] == ["PASS", "FAIL", "PASS"]
    assert all(same_octets(run, tmp_path) for run in found.values())


def test_neither_the_seed_of_hashes_nor_the_number_of_threads_has_a_say(runs, tmp_path):
    odd = {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    argv = [sys.executable, "-m", "testbed", "rejudge", str(runs["reject"]), "--json", "-o", str(tmp_path / "again")]
    done = subprocess.run(argv, env={**os.environ, **odd}, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout == (runs["reject"] / "verdict.json").read_bytes()


def test_a_policy_changes_the_verdict_and_what_it_changes_is_told(runs, tmp_path):
    policy = tmp_path / "strict.yaml"
    policy.write_text(STRICT)
    run, first = runs["reject"], read_verdict(runs["reject"])
    stored = under(read_run(run), policy, None)
    target, told = write_rejudged(stored, rejudged(stored), policy, None, None)
    again = read_verdict(target)
    assert "datagrams" in {one.flow_class for one in again.classes}
    assert {one.subject for one in again.findings if one.verdict == "FAIL"} >= {"datagrams"}
    assert again.blamed[0].blame.text == BLAMED
    assert told.gone, "the class that the flows were in has no finding any more"
    assert told.new
    assert "against the first verdict" in told.lines()[0]
    assert read_verdict(run) == first, "the first verdict stays"
    assert (target / "policy.yaml").read_text() == STRICT
    assert "<html" in (target / "report.html").read_text()


def test_what_the_preflight_saw_opened_weighs_as_the_policy_says(runs, tmp_path):
    (tmp_path / "fail.yaml").write_text("access: {opened: fail}\n")
    expected = "access: {opened: fail, expected: [{protocol: tcp, port: [22, 8000-8100]}]}\n"
    (tmp_path / "wanted.yaml").write_text(expected)
    assert judged_again(runs["open"]).verdict == "PASS"
    strict = judged_again(runs["open"], tmp_path / "fail.yaml")
    assert (strict.verdict, strict.blamed[0].blame.text) == ("FAIL", OPENED.strip())
    assert judged_again(runs["open"], tmp_path / "wanted.yaml").verdict == "PASS"


def test_expectations_are_held_against_a_stored_run(runs, tmp_path):
    expect = tmp_path / "expect.yaml"
    expect.write_text("must:\n  - {match: {service: udp/5001}, becomes: permitted -> denied}\n")
    again = judged_again(runs["reject"], None, expect)
    assert [one.state for one in again.expectations] == ["met"]
    assert again.verdict == "PASS"


def test_each_judging_has_a_folder_of_its_own(runs, tmp_path):
    run = shutil.copytree(runs["reject"], tmp_path / "run", ignore=shutil.ignore_patterns("rejudged"))
    for number in (1, 2):
        done = CliRunner().invoke(rejudge, [str(run)], standalone_mode=False)
        assert (done.return_value, done.exception) == (1, None)
        assert "the same as the first verdict, to the octet" in done.output
        assert (run / "rejudged" / str(number) / "verdict.json").read_bytes() == (run / "verdict.json").read_bytes()
    stored = read_run(run)
    with pytest.raises(InvalidInput, match="a new or empty folder"):
        write_rejudged(stored, rejudged(stored), None, None, run / "rejudged" / "1")


@pytest.mark.parametrize(
    "file",
    [
        "verdict.json",
        MEASURED,
        TRIED,
        "flows.parquet",
        "disposition.parquet",
        "preflight_counters.parquet",
        "kpis/00003.parquet",
        "counters/00003.parquet",
        "inputs/fw1/iptables.rules",
    ],
)
def test_what_is_missing_cut_short_or_something_else_is_named(broken, file):
    path = broken / file
    content = path.read_bytes()
    damages = [None, b"", b"{}", b"[1, 2]", content[: len(content) // 2]]
    for damage in damages if path.suffix != ".rules" else [None]:
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(InvalidInput) as told:
            rejudged(read_run(broken))
        assert Path(file).name.split(".")[0] in str(told.value)
        path.write_bytes(content)
    rejudged(read_run(broken))


def test_tables_of_another_run_are_not_judged(broken, runs):
    shutil.copy(broken / "kpis/00001.parquet", broken / "kpis/00002.parquet")
    with pytest.raises(InvalidInput, match="window 2 alone"):
        read_run(broken)
    shutil.copy(runs["reject"] / "kpis/00002.parquet", broken / "kpis/00002.parquet")
    table = RunDirectory(broken).read_table("flows")
    RunDirectory(broken).write_table("flows", pd.concat([table, table]))
    with pytest.raises(InvalidInput, match="twice"):
        rejudged(read_run(broken))


def test_a_record_cannot_name_a_file_outside_its_run(broken):
    record = RunDirectory(broken).read_json(TRIED)
    node = next(n for n in record["lab"]["topology"]["nodes"] if n["name"] == "fw1")
    node["configs"] = {"../../../../../../etc/passwd": "/etc/passwd"}
    RunDirectory(broken).write_json(TRIED, record)
    with pytest.raises(InvalidInput, match="not in the run directory"):
        read_run(broken)


def test_an_older_or_damaged_run_ends_with_exit_code_2(broken, monkeypatch, capsys):
    RunDirectory(broken).amend_json(MEASURED, {"version": 1})
    monkeypatch.setattr(sys, "argv", ["testbed", "rejudge", str(broken)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "measured.json:1:1: found version" in capsys.readouterr().err


def places(value: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place in a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, one in inside for place in places(one, (*at, key)))]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["A", "B", "A'", "baseline", "treatment", "restored", [], {}, [{}], 0, 1, -1]),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_other_record_is_refused_or_judged(runs, tmp_path, data):
    run = tmp_path / "fuzzed"
    if not run.exists():
        shutil.copytree(runs["reject"], run)
    document = json.loads((runs["reject"] / MEASURED).read_text())
    for place in data.draw(st.lists(st.sampled_from(places(document)[1:]), min_size=1, max_size=3)):
        inner = document
        try:
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = data.draw(VALUES)
        except (KeyError, IndexError, TypeError):
            continue
    (run / MEASURED).write_text(json.dumps(document))
    with suppress(InvalidInput):
        assert rejudged(read_run(run)).verdict.verdict in ("PASS", "FAIL", "INCONCLUSIVE")


@pytest.mark.parametrize(
    ("name", "some"), [("shop", ("mtu-blackhole", "ospf-detour", "add-backend")), ("depot", ("open-www2",))]
)
def test_a_packaged_change_is_kept_as_it_was(name, some, tmp_path):
    devices = known_devices()
    folder = ROOT / "topologies" / name
    lab = open_lab(str(folder), folder, devices).lab
    for change in some:
        case = prepared(lab, lab.changes[change], devices)
        run = RunDirectory.created(tmp_path, change)
        write_tried(run, case)
        kept = read_tried(run, case.flows)
        assert (kept.change, kept.policy, kept.expectations) == (case.change, case.policy, case.expectations)
        assert (kept.change.before, kept.change.after) == (case.change.before, case.change.after)
        assert kept.policy.tolerances == case.policy.tolerances
        bare = [replace(node, configs={}) for node in case.lab.topology.nodes]
        assert [replace(node, configs={}) for node in kept.lab.topology.nodes] == bare
        for node in kept.lab.topology.nodes:
            for file, path in node.configs.items():
                assert path.read_bytes() == case.configs[node.name][file]


@pytest.mark.parametrize("version", [1, 2])
def test_verdicts_of_older_schemas_are_read(version, tmp_path):
    stored = ROOT / "tests/testbed/verdicts" / f"schema-{version}.json"
    shutil.copy(stored, tmp_path / "verdict.json")
    verdict = read_verdict(tmp_path)
    assert verdict.version == version
    again = VerdictFile.model_validate(verdict.document())
    assert again == verdict
    published = json.loads(CliRunner().invoke(schema, ["verdict"]).output)
    assert version in published["properties"]["schema"]["enum"]
    assert set(verdict.document()) == set(published["properties"])
