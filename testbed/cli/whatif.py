"""`testbed whatif`: one change, real flows, a verdict with a blamed line."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from testbed.background import InvalidLoad
from testbed.cli.pair_options import excluded, pair_options
from testbed.packet_flows import Manner, Mode
from testbed.packet_mode import Sender
from testbed.plan import BudgetTooShort, Design, DuetUnfit
from testbed.summary import print_summary
from testbed.whatif import Question, answered


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
@click.option(
    "--expect",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What the change is expected to do, in the place of its own expect.yaml.",
)
@click.option("--speed", type=click.FloatRange(min=0.01), help="Replay this many times faster than captured.")
@click.option(
    "--load", default=1.0, show_default=True, type=click.FloatRange(min=1), help="Replay so many copies of each flow."
)
@pair_options
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.AUTO.value,
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
    expect: Path | None,
    speed: float | None,
    load: float,
    baseline: int | None,
    treatment: int | None,
    pairs: int | None,
    budget: float | None,
    window: float | None,
    design: str,
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
    excluded(
        pairs=pairs,
        budget=budget,
        window=window,
        design=design,
        speed=speed,
        treatment=treatment,
        preflight_only=preflight_only,
    )
    progress = Console(stderr=True, highlight=False, quiet=quiet or as_json or not sys.stderr.isatty())
    question = Question(
        lab,
        change,
        runs,
        capture,
        policy,
        speed,
        baseline,
        treatment,
        pairs,
        budget,
        window,
        max_flows,
        model,
        preflight_only,
        Manner(Mode(mode), Sender(sender), background, load, seed),
        expect=expect,
        design=Design(design),
    )
    try:
        answer = answered(question, progress)
    except InvalidLoad as expected:
        raise click.BadParameter(str(expected), param_hint="--background") from None
    except BudgetTooShort as expected:
        raise click.BadParameter(str(expected), param_hint="--budget") from None
    except DuetUnfit as expected:
        raise click.BadParameter(str(expected), param_hint="--design") from None
    for shortfall in answer.shortfalls:
        click.echo(f"note: {shortfall}", err=True)
    if as_json:
        click.echo((answer.run.path / "verdict.json").read_text(), nl=False)
    else:
        print_summary(answer.verdict, answer.report, Console(highlight=False))
    return answer.exit_code
