"""Cutting a what-if down to what can be replayed, on the shop's own case, and how it is told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from replay.session import Patience, open_files
from testbed.capacity import AWAY, fitted, told, within, within_open_files
from testbed.devices.registry import known_devices
from testbed.errors import Unsupported
from testbed.plan import Plan
from testbed.prepare import open_lab, prepared
from testbed.record_of_run import run_record
from testbed.report import write_report
from testbed.summary import print_summary
from testbed.verdict_file import read_verdict
from tests.testbed.sample_run import write

SHOP = Path(__file__).resolve().parents[2] / "topologies" / "shop"


@pytest.fixture(scope="module")
def case():
    devices = known_devices()
    return prepared(open_lab(str(SHOP), SHOP, devices).lab, SHOP / "changes" / "none", devices)


def test_a_number_of_flows_is_kept_the_critical_ones_first(case):
    critical = set(case.flows.loc[case.flows["priority"] == "critical", "flow_id"])
    less = within(case, 200, seed=4)
    assert len(less.flows) == len(less.schedule.scripts) == 200
    assert critical <= set(less.flows["flow_id"])
    assert {script.flow_id for script in less.schedule.scripts} == set(less.flows["flow_id"])
    assert list(less.placed.left_out.values()).count(AWAY) == len(case.flows) - 200
    assert less.schedule.duration_ns == case.schedule.duration_ns
    assert {one.flow_class: one.replayed for one in less.sampled}["ssh"] == 0
    assert "ssh 0 of" in told(less.sampled)
    record = run_record(less, Plan(2, 2), "now")
    assert record["flows"]["sampled"][0]["priority"] == "critical"


def test_room_for_all_changes_nothing(case):
    assert within(case, 10_000, seed=0) is case
    assert fitted(case, None, -1, seed=0) is case


def test_too_few_open_files_are_met_by_fewer_flows(case):
    def needed(schedule):
        return open_files(schedule, 20, Patience())

    limit = needed(case.schedule) - 100
    less = within_open_files(case, needed, limit, seed=0)
    assert needed(less.schedule) <= limit
    assert len(less.flows) < len(case.flows)
    assert "critical" not in {one.priority for one in less.sampled if one.replayed < one.offered}
    assert fitted(case, None, limit, seed=0).sampled


def test_critical_flows_alone_beyond_the_limit_end_the_run(case):
    with pytest.raises(Unsupported, match="critical flows"):
        within_open_files(case, lambda schedule: open_files(schedule, 20, Patience()), 250, seed=0)


def test_the_summary_and_the_report_tell_by_class(tmp_path):
    run = write(tmp_path)
    document = read_verdict(run.path).document()
    document["sampled"] = [{"class": "web", "priority": "high", "offered": 10, "replayed": 4}]
    run.write_json("verdict.json", document)
    console = Console(file=io.StringIO(), width=120)
    print_summary(read_verdict(run.path), None, console)
    assert "4 of 10 flows replayed: web 4 of 10" in console.file.getvalue()
    write_report(run.path)
    page = (run.path / "report.html").read_text()
    assert "Sampled flows" in page
    assert "4 of 10 were replayed" in page
