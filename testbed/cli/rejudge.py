"""`testbed rejudge`: the stored windows of a run judged again, without replay."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from analysis.verdict import Verdict
from testbed.rejudge import read_run, rejudged, under
from testbed.rejudged_files import write_rejudged
from testbed.report import NAME as REPORT
from testbed.summary import print_summary
from testbed.verdict_file import NAME
from testbed.whatif import exit_code


@click.command(
    epilog="\b\nExamples:\n  testbed rejudge runs/20261125T043416-shop-block-https-8fb5\n"
    "  testbed rejudge runs/20261125T043416-shop-block-https-8fb5 --policy stricter.yaml\n\n"
    "Exit codes: 0 pass, 1 fail, 2 no such run or a damaged one, 3 inconclusive, 4 the run was not restored."
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--policy",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Judge by this policy.yaml, not by the run's own.",
)
@click.option(
    "--expect",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Expect this of the change, in the place of what the run expected.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here, not into rejudged/ of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print the new verdict.json and nothing else.")
def rejudge(run: Path, policy: Path | None, expect: Path | None, output: Path | None, as_json: bool) -> int:
    """Judge the stored windows of RUN again, without replay, and say what that changes.

    The run's directory is all that is read: lab, change and captures may be gone.  The first verdict stays; the new one
    is written beside it.
    """
    stored = under(read_run(run), policy, expect)
    judged = rejudged(stored)
    target, difference = write_rejudged(stored, judged, policy, expect, output)
    if as_json:
        click.echo((target / NAME).read_text(), nl=False)
    else:
        print_summary(judged.verdict, target / REPORT, Console(highlight=False))
        for line in difference.lines():
            click.echo(line)
    verdict = judged.verdict
    return exit_code(Verdict[verdict.verdict], verdict.rollback.restored)
