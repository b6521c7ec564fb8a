"""The options that say which windows a change is judged by, and which of them exclude each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from analysis.pairs.design import DEFAULT, FLOOR
from testbed.plan import MOST_PAIRS, SHORTEST_WINDOW_S, Design

Command = TypeVar("Command", bound=Callable[..., Any])

BASELINE = click.option(
    "--baseline", type=click.IntRange(2, 50), metavar="N", help="So many windows before the change."
)
TREATMENT = click.option(
    "--treatment",
    type=click.IntRange(2, 50),
    metavar="N",
    help="Judge by so many windows with the change all in a row: quicker than pairs, and blind to small effects.",
)
PAIRS = click.option(
    "--pairs",
    is_flag=False,
    flag_value=str(DEFAULT),
    type=click.IntRange(FLOOR, MOST_PAIRS),
    help=f"Judge by so many pairs of windows, as is and changed in random order; {DEFAULT} where nobody tells.",
)
BUDGET = click.option(
    "--budget",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Judge by as many pairs of windows as fit into so much time.",
)
WINDOW = click.option(
    "--window",
    type=click.FloatRange(min=SHORTEST_WINDOW_S),
    metavar="SECONDS",
    help="Replay so that a window lasts so long.",
)
DESIGN = click.option(
    "--design",
    default=Design.AUTO.value,
    show_default=True,
    type=click.Choice([design.value for design in Design]),
    help="Play pairs on one shadow in turn, on two at once (duet), or as processors and a pilot tell.",
)


def pair_options(command: Command) -> Command:
    """Give a command --pairs, --budget, --window and --design, and --baseline and --treatment for windows in a row."""
    return PAIRS(BUDGET(WINDOW(DESIGN(BASELINE(TREATMENT(command))))))


def excluded(
    *,
    pairs: int | None,
    budget: float | None,
    window: float | None,
    design: str,
    speed: float | None,
    treatment: int | None,
    preflight_only: bool,
) -> None:
    """Refuse what does not go together; raises UsageError."""
    if preflight_only and (pairs or budget):
        raise click.UsageError("--preflight-only replays no window, so that there are no --pairs and no --budget")
    if Design(design) is not Design.AUTO and (treatment or preflight_only):
        raise click.UsageError("--design tells how pairs are played, and there are none")
    if speed and window:
        raise click.UsageError("--window sets the speed: give one of --speed and --window")
    if treatment and (pairs or budget):
        raise click.UsageError("--treatment counts windows in a row: give --pairs or --budget, or --treatment")
