"""Which design of pairs a run plays: one shadow in turn, or two at once; and what that was decided by.

It knows no shadow: tables and records in, a decision out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pandas as pd

from analysis.kpi import Tolerance
from analysis.pairs.beforehand import LEAST_WINDOWS, pair_variance
from analysis.window import Role
from testbed.pairs.judged import Record, at_once
from testbed.plan import Design
from testbed.prepare import Case

LEAST_BUDGET_S = 180.0
"""Less is not spent on a pilot: another shadow, and as many windows as is again."""
LEAST_PROCESSORS = 4
"""With fewer, two players and two shadows wait for one another."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The design that is used, and why; `variance` by design where it was measured, in squares of the margins."""

    asked: Design
    used: Design
    why: str
    variance: Mapping[Design, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """As in run.json."""
        told = {
            name.value: None if math.isnan(value) else float(f"{value:.4g}") for name, value in self.variance.items()
        }
        return {"asked": self.asked.value, "used": self.used.value, "why": self.why, "pair_variance": told}


def duet_unfit(case: Case) -> str:
    """Why a case's traffic cannot be played on two shadows at once; "" when it can."""
    if case.packets is not None:
        return "what goes as packets is played on one shadow only"
    return "background load is played on one shadow only" if case.background else ""


def beforehand(asked: Design, processors: int, unfit: str, budget_s: float | None = None) -> Decision | None:
    """What can be decided before anything is built; None where it takes a pilot.

    `unfit` says why two shadows cannot carry this traffic, "" when they can.
    """
    if asked is not Design.AUTO:
        return Decision(asked, asked, "asked for")
    if unfit:
        return Decision(asked, Design.ALTERNATE, unfit)
    if processors < LEAST_PROCESSORS:
        why = f"{processors} processors, two shadows at once want {LEAST_PROCESSORS}"
        return Decision(asked, Design.ALTERNATE, why)
    if budget_s is not None and budget_s < LEAST_BUDGET_S:
        return Decision(asked, Design.ALTERNATE, f"a budget of {budget_s:g} s has no room for a pilot")
    return None


def by_pilot(
    kpis: pd.DataFrame, flows: pd.DataFrame, tolerances: Mapping[str, Tolerance], records: Sequence[Record]
) -> Decision:
    """Decide for the smaller variance between two windows as is, from those played in turn and those at once."""
    found = measured_variance(kpis, flows, tolerances, records)
    turn, once = (found.get(design, math.nan) for design in (Design.ALTERNATE, Design.DUET))
    invalid = [record for record in records if record.get("shadow") == 1 and not record["valid"]]
    if invalid:
        why = f"two shadows at once were too much for this machine: {invalid[0]['reason']}"
        return Decision(Design.AUTO, Design.ALTERNATE, why, found)
    if math.isnan(once) or math.isnan(turn):
        return Decision(Design.AUTO, Design.ALTERNATE, "too few windows of the pilot were valid", found)
    better = Design.DUET if once < turn else Design.ALTERNATE
    why = f"the smaller variance between windows as is: {once:.3g} at once, {turn:.3g} in turn (squares of the margins)"
    return Decision(Design.AUTO, better, why, found)


def measured_variance(
    kpis: pd.DataFrame, flows: pd.DataFrame, tolerances: Mapping[str, Tolerance], records: Sequence[Record]
) -> dict[Design, float]:
    """The variance of either design between windows as is, as far as there are enough of them."""
    once = at_once(records)
    beside = {window for couple in once for window in couple}
    alone = [
        int(str(record["window"]))
        for record in records
        if record["role"] == Role.BASELINE.value and record["valid"] and not record["arm"]
    ]
    turn = list(pairwise(window for window in alone if window not in beside))
    couples = {Design.ALTERNATE: (turn, LEAST_WINDOWS - 1), Design.DUET: (once, LEAST_WINDOWS)}
    return {
        design: pair_variance(kpis, flows, tolerances, own)
        for design, (own, least) in couples.items()
        if len(own) >= least
    }
