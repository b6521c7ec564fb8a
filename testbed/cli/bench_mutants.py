"""`testbed bench mutants`: whether what does harm is found and blamed, and what does none is let through."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from testbed.cli.bench_told import AS_JSON, told

if TYPE_CHECKING:
    from testbed.bench.mutants.score import Score


@click.command(
    "mutants",
    epilog="\b\nExamples:\n  testbed bench mutants --seconds 170\n  testbed bench mutants --only frr --pairs 6 --json\n"
    "\n"
    "Exit codes: 0 nothing harmful was missed and nothing equivalent failed, 1 otherwise.",
)
@click.option("--only", multiple=True, metavar="NAME", help="One mutant, or those whose names begin so.")
@click.option(
    "--pairs", default=0, type=click.IntRange(0, 16), help="Ask with so many pairs of windows; 0: windows in a row."
)
@click.option("--preflight-first", is_flag=True, help="Ask the preflight alone first; replay what it does not fail.")
@click.option(
    "--seconds",
    default=float("inf"),
    type=click.FloatRange(min=0),
    help="Begin no further mutant after so long; the next call goes on.",
)
@click.option(
    "--results",
    default=Path("runs/mutants.jsonl"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A line a mutant; what has its line is not played again.",
)
@click.option(
    "--runs", default=Path("runs"), show_default=True, type=click.Path(path_type=Path), help="Where runs are kept."
)
@AS_JSON
def mutants_command(
    only: tuple[str, ...], pairs: int, preflight_first: bool, seconds: float, results: Path, runs: Path, as_json: bool
) -> int:
    """Change a lab's production files by operators whose harm is known, and ask what would become of the flows."""
    from testbed.bench.mutants.bench import Slice, bench_mutants  # noqa: PLC0415  as the other benches
    from testbed.bench.mutants.play import Asked  # noqa: PLC0415

    progress = Console(stderr=True, highlight=False, quiet=as_json, soft_wrap=True)
    chosen = Slice(results, runs.absolute(), only, Asked(pairs, preflight_first), seconds)
    try:
        chosen.chosen()
    except ValueError as unknown:
        raise click.BadParameter(str(unknown), param_hint="--only") from None
    result, scores = bench_mutants(chosen, lambda score: progress.print(_line(score), markup=False))
    told(result, as_json)
    wrong = [score for score in scores if not score.right]
    for score in wrong:
        progress.print(_line(score), markup=False)
        progress.print(f"    {score.made.mutant.why}; {score.played.run}", markup=False)
    return 1 if wrong else 0


def _line(score: Score) -> str:
    truth = "harmful" if score.harmful else "equivalent"
    line = f"{score.played.verdict:12} {truth:10} {score.played.mutant} ({score.played.seconds:.0f} s)"
    if score.found and score.harmful and not score.blamed_first:
        named = score.played.blames[0] if score.played.blames else None
        line += f"; blamed {f'{named.file}: {named.text}' if named else 'nobody'}"
    return line
