"""`testbed bench judge`: the judge held before runs whose truth is known, made up or real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console

from testbed.bench.result import BenchResult
from testbed.cli.bench_told import AS_JSON, told

if TYPE_CHECKING:
    from testbed.bench.judge.real import RealRun


@click.command(
    "judge",
    epilog="\b\nExamples:\n  testbed bench judge --json\n  testbed bench judge --runs 2000\n"
    "  testbed bench judge --real 60 --budget 60\n  testbed bench judge --real 20 --load stress --json\n"
    "  testbed bench judge --dose 40",
)
@click.option(
    "--runs", default=160, show_default=True, type=click.IntRange(80, 100_000), help="Unchanged runs, over all noises."
)
@click.option("--pairs", default=8, show_default=True, type=click.IntRange(6, 16), help="Pairs of windows in a run.")
@click.option("--flows", default=120, show_default=True, type=click.IntRange(12, 5000), help="Flows in a run.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of everything drawn.")
@click.option(
    "--real", type=click.IntRange(1, 10_000), help="Play so many real runs in which nothing changes, instead."
)
@click.option(
    "--lab",
    default=Path("topologies/shop"),
    show_default=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The lab of real runs.",
)
@click.option("--budget", default=60.0, show_default=True, type=click.FloatRange(min=1), help="Seconds a real run.")
@click.option(
    "--load",
    default="none",
    show_default=True,
    type=click.Choice(["none", "stress"]),
    help="Keep every processor busy meanwhile: by stress-ng, or by loops where it is not installed.",
)
@click.option(
    "--resume",
    default=Path("runs/judge.jsonl"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A line a real run; runs of the same lab, budget and load that it has count, and are not played again.",
)
@click.option(
    "--dose",
    type=click.IntRange(5, 10_000),
    metavar="DEALS",
    help="Deal the windows of those real runs anew so often, put delay, loss or a lower rate on a class, and tell what "
    "is found four times out of five beside what the runs told beforehand.",
)
@click.option(
    "--keep", default=Path("runs"), show_default=True, type=click.Path(path_type=Path), help="Where real runs are kept."
)
@AS_JSON
def judge_command(  # noqa: PLR0913, PLR0917  an argument an option
    runs: int,
    pairs: int,
    flows: int,
    seed: int,
    real: int | None,
    lab: Path,
    budget: float,
    load: Literal["none", "stress"],
    resume: Path,
    dose: int | None,
    keep: Path,
    as_json: bool,
) -> int:
    """Count false alarms and finds on synthetic runs; references: percentage deviation, rank test, canary score.

    With --real, count the verdicts of real runs in which a comment is all that changes; --dose deals their windows.
    """
    if real is None and dose is not None:
        return told(_dosed(resume, keep, lab, dose, seed), as_json)
    if real is None:
        from testbed.bench.judge.bench import Sizes, bench_judge  # noqa: PLC0415  as the other benches

        return told(bench_judge(Sizes(runs=runs, pairs=pairs, flows=flows), seed), as_json)
    from testbed.bench.judge.real import Series, bench_real  # noqa: PLC0415  as the other benches

    progress = Console(stderr=True, highlight=False, quiet=as_json, soft_wrap=True)
    series = Series(real, lab, resume, keep.absolute(), budget, load, seed)
    if series.stressor:
        progress.print(f"every processor is kept busy by {series.stressor}", markup=False)
    return told(bench_real(series, lambda one: progress.print(_line(one), markup=False)), as_json)


def _dosed(resume: Path, keep: Path, lab: Path, deals: int, seed: int) -> BenchResult:
    from testbed.bench.judge.dose import bench_dose  # noqa: PLC0415  as the other benches
    from testbed.bench.judge.real import earlier  # noqa: PLC0415  as the other benches

    runs = [one for one in earlier(resume) if one.lab == lab.name]
    try:
        return bench_dose(runs, keep, lab, deals, seed)
    except ValueError as none:
        raise click.UsageError(f"{resume}: {none}; play some with --real") from None


def _line(one: RealRun) -> str:
    said = f"{one.number + 1:3} {one.verdict:12} {one.wall_s:4.0f} s, {one.pairs} of {one.asked} pairs, "
    said += f"{one.lost} windows lost, pressure {one.pressure_percent:.0f} %"
    return said + (f"; {one.cause}: {one.reason}" if one.cause else "")
