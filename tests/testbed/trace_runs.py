"""Run directories as a what-if begins them, without its replay: enough for a flow to be traced again."""

from __future__ import annotations

from pathlib import Path

from testbed.devices.registry import known_devices
from testbed.plan import Plan
from testbed.prepare import open_lab, prepared
from testbed.record_of_run import run_record
from testbed.sandbox import Sandbox
from testbed.store import RunDirectory
from testbed.trace.again import traced_again
from testbed.trace.journey import Trace
from testbed.trace.wanted import wanted


def run_of(folder: Path, lab: Path, change: Path) -> Path:
    """A run of a change on a lab, with the record and the flows that it would have."""
    devices = known_devices()
    case = prepared(open_lab(str(lab), folder, devices).lab, change, devices)
    run = RunDirectory.created(folder / "runs", f"run-{change.name}")
    run.write_json("run.json", run_record(case, Plan(), "now"))
    run.write_table("flows", case.flows)
    return run.path


def traced(run: Path, flow: str) -> Trace:
    """The flow's trace, as the command makes it."""
    devices = known_devices()
    chosen = wanted(run, flow, devices)
    logs = run / "logs"
    logs.mkdir(exist_ok=True)
    told: Trace = Sandbox("trace", (logs, chosen.case.lab.folder)).call(
        lambda: traced_again(chosen, devices, logs, lambda _what: None)
    )
    return told
