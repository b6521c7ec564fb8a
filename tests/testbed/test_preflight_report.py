"""The disposition table on the page and on the terminal."""

from __future__ import annotations

import json

import pandas as pd

from analysis.reach import COLUMNS
from testbed.report import write_report
from testbed.report.preflight_rows import preflight_table
from testbed.store import RunDirectory
from testbed.verdict_file import read_verdict
from tests.analysis.test_reach import row
from tests.testbed.sample_run import write

CHANGED = {
    "kind": "rule",
    "change": "opened",
    "subject": "198.51.100.0/24 (internet)",
    "flow_class": "other",
    "source": "198.51.100.7",
    "destination": "203.0.113.10:22",
    "protocol": "tcp",
    "before": "unanswered",
    "after": "accepted",
}


def flown(folder) -> RunDirectory:
    run = write(folder)
    rows = [
        row("a", "accepted", "accepted", subject="10.0.0.0/8 → <script>x</script>"),
        row("bb", "accepted", "unanswered", priority="critical"),
        row("ccc", "unanswered", "unanswered", priority="low"),
        row("rule", "unanswered", "accepted", "rule", subject=CHANGED["subject"], destination_port=22),
        row("same", "accepted", "accepted", "service"),
    ]
    run.write_table("disposition", pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict(COLUMNS)))
    document = json.loads((run.path / "verdict.json").read_text())
    preflight = {"classes": 3, "exposures": 2, "as_production": 2, "seconds": 1.25, "changed": [CHANGED]}
    run.write_json("verdict.json", {**document, "preflight": preflight})
    return run


def test_the_table_has_every_class_and_what_changed_first(tmp_path):
    run = flown(tmp_path)
    table = preflight_table(run, read_verdict(run.path))
    assert table is not None
    assert [(r.flow_class, r.before, r.after, r.mark) for r in table.rows] == [
        ("checkout", "accepted", "unanswered", "bad"),
        ("checkout", "unanswered", "accepted", "bad"),
        ("checkout", "accepted", "accepted", ""),
        ("checkout", "unanswered", "unanswered", ""),
    ]
    assert [r.unlike for r in table.rows] == [False, False, False, True]
    assert table.rows[1].destination == "203.0.113.10 tcp/22"


def test_the_page_shows_it_and_no_text_of_others_is_markup(tmp_path):
    text = write_report(flown(tmp_path).path).read_text()
    assert "Who is let through" in text
    assert "3 observed classes and of 2 further accesses" in text
    assert "<script>x</script>" not in text
    assert "The shadow treats 1 of the classes in another way" in text


def test_a_run_without_a_preflight_has_no_such_table(tmp_path):
    run = write(tmp_path)
    assert preflight_table(run, read_verdict(run.path)) is None
    assert "Who is let through" not in write_report(run.path).read_text()
