"""`testbed whatif`: one change, real flows, a verdict with a blamed line."""

from __future__ import annotations

import json
import resource
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from analysis.verdict import Verdict
from testbed.background import InvalidLoad
from testbed.beside_load import unreached
from testbed.capacity import fitted, told
from testbed.devices.registry import known_devices
from testbed.experiment import Clock, Outcome, run
from testbed.packet_flows import Manner, Mode
from testbed.packet_mode import Sender
from testbed.plan import Plan
from testbed.prepare import Case, open_lab, prepared
from testbed.record_of_run import change_diff, run_record
from testbed.report import write_report
from testbed.sandbox import Sandbox
from testbed.store import Catalogue, RunDirectory
from testbed.summary import print_summary
from testbed.verdict_file import read_verdict

EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}
NOT_RESTORED = 4


@click.command(
    epilog="\b\nExample:\n  testbed whatif topologies/shop --change topologies/shop/changes/block-https\n\n"
    "Exit codes: 0 pass, 1 fail, 2 invalid input, 3 inconclusive, 4 not possible here or not restored."
)
@click.argument("lab")
@click.option("--change", required=True, type=click.Path(path_type=Path), help="A change folder, or a .patch file.")
@click.option(
    "--capture",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Use these captures or flow records, not the lab's own.",
)
@click.option("--policy", type=click.Path(path_type=Path), help="Use this policy.yaml, not the lab's own.")
@click.option("--speed", type=click.FloatRange(min=0.01), help="Replay this many times faster than captured.")
@click.option(
    "--load", default=1.0, show_default=True, type=click.FloatRange(min=1), help="Replay so many copies of each flow."
)
@click.option("--baseline", type=click.IntRange(2, 50), help="Windows before the change.")
@click.option("--treatment", type=click.IntRange(2, 50), help="Windows with the change in force.")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.SESSION.value,
    show_default=True,
    help="Replay over sockets, as packets, or as packets what no socket can replay (auto).",
)
@click.option(
    "--sender",
    type=click.Choice([sender.value for sender in Sender]),
    default=Sender.OWN.value,
    show_default=True,
    help="Who sends packets: packet mode itself, or tcpreplay 4.5.3 or newer.",
)
@click.option(
    "--background",
    multiple=True,
    metavar="LOAD",
    help="iperf3 load beside the flows: h1>web1:20M, or 20M from the edge to the busiest server.",
)
@click.option("--max-flows", type=click.IntRange(min=1), help="Replay at most so many flows, the critical ones first.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Of losses on links, and of which flows are copied or left out.",
)
@click.option(
    "--place-by-model",
    "model",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Place addresses that no node owns where this model's zones and classes have their like.",
)
@click.option("--preflight-only", is_flag=True, help="Judge by one flow of every class, in seconds; no long replay.")
@click.option(
    "--runs", default=Path("runs"), show_default=True, type=click.Path(path_type=Path), help="Where runs are kept."
)
@click.option("--json", "as_json", is_flag=True, help="Print verdict.json and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress.")
def whatif(  # noqa: PLR0913, PLR0917  an argument an option
    lab: str,
    change: Path,
    capture: tuple[Path, ...],
    policy: Path | None,
    speed: float | None,
    load: float,
    baseline: int | None,
    treatment: int | None,
    mode: str,
    sender: str,
    background: tuple[str, ...],
    max_flows: int | None,
    seed: int,
    model: Path | None,
    preflight_only: bool,
    runs: Path,
    as_json: bool,
    quiet: bool,
) -> int:
    """Try CHANGE on a shadow of LAB with its captured flows, before production does.

    LAB is a lab folder, a containerlab file, a Mininet file, a GraphML file or topohub:NAME; what is no lab folder is
    written as one below the runs first. The shadow is built, the flows are replayed before, during and after the
    change, every flow's KPIs are compared, the line to blame is named, and the change is rolled back.
    """
    clock, started = Clock(), time.monotonic()
    devices = known_devices()
    with clock.stretch("validate_s"), _imported(runs) as work:
        opened = open_lab(lab, work, devices)
        try:
            manner = Manner(Mode(mode), Sender(sender), background, load, seed)
            case = prepared(opened.lab, change, devices, capture, policy, speed, manner, model=model)
        except InvalidLoad as expected:
            raise click.BadParameter(str(expected), param_hint="--background") from None
        case = fitted(case, max_flows, resource.getrlimit(resource.RLIMIT_NOFILE)[1], seed)
    plan = Plan(
        baseline or case.policy.baseline_windows,
        treatment or case.policy.treatment_windows,
        seed=seed,
        preflight_only=preflight_only,
    )
    directory, created = _directory(runs, case)
    progress = Console(stderr=True, highlight=False, quiet=quiet or as_json or not sys.stderr.isatty())
    notes = (*opened.notes, *case.notes)
    for note in notes:
        progress.print(f"note: {note}", markup=False, style="yellow")
    if case.sampled:
        progress.print(f"note: {told(case.sampled)}", markup=False, style="yellow")
    directory.write_json("run.json", run_record(case, plan, created, notes))
    directory.write_table("flows", case.flows)
    directory.write_text("change.diff", change_diff(case.change))
    with Catalogue(runs) as catalogue:
        catalogue.begin(directory, case.lab.name, case.change.name, created)

    def job() -> tuple[Outcome, dict[str, float]]:
        # the sandbox is a fork: the progress must live in it, and its clock come back with its answer
        with progress.status("build") as status:
            outcome = run(case, devices, plan, directory, clock, lambda step, what: status.update(f"{step:9} {what}"))
        return outcome, clock.seconds

    outcome, clock.seconds = Sandbox(case.lab.name, (directory.path, case.lab.folder)).call(job)
    with clock.stretch("report_s"):
        write_report(directory.path)
    clock.seconds["total_s"] = time.monotonic() - started
    _finish(directory, clock, runs, outcome)
    for shortfall in unreached(json.loads((directory.path / "run.json").read_text())):
        click.echo(f"note: {shortfall}", err=True)
    if as_json:
        click.echo((directory.path / "verdict.json").read_text(), nl=False)
    else:
        print_summary(read_verdict(directory.path), directory.path / "report.html", Console(highlight=False))
    if not outcome.restored:
        return NOT_RESTORED
    return EXIT_CODES[outcome.verdict]


@contextmanager
def _imported(runs: Path) -> Iterator[Path]:
    """Where a lab from elsewhere is written; it is kept like the run that is judged on it, and goes with bad input."""
    work = runs.absolute() / "imported" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    try:
        yield work
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _directory(runs: Path, case: Case) -> tuple[RunDirectory, str]:
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%dT%H%M%S}-{case.lab.name}-{case.change.name}-{secrets.token_hex(2)}"
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in run_id)
    return RunDirectory.created(runs.absolute(), safe), now.isoformat(timespec="milliseconds")


def _finish(directory: RunDirectory, clock: Clock, runs: Path, outcome: Outcome) -> None:
    """Put the whole split of the wall time into run.json and verdict.json, and close the catalogue's entry."""
    timings = {name: round(value, 3) for name, value in clock.seconds.items()}
    verdict = read_verdict(directory.path)
    instrument = verdict.instrument.model_dump(mode="json")
    directory.amend_json("run.json", {"timings": timings, "instrument": instrument})
    directory.write_json("verdict.json", {**verdict.document(), "timings": {**verdict.timings.model_dump(), **timings}})
    with Catalogue(runs) as catalogue:
        catalogue.conclude(directory.run_id, outcome.verdict.name)
