"""The course of an experiment in pairs: how many, what they would find, playing them, and what the judge says.

It knows no preflight, no rollback and no document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from analysis.kpi import Tolerance
from analysis.pairs.design import FLOOR
from testbed.measure import Gauge
from testbed.pairs.judged import Paired, judged_pairs, not_played, smallest, smallest_words, too_few, valid_pairs
from testbed.pairs.play import Played, Stopwatch, pace
from testbed.plan import Plan

SPARE_PAIRS = 1.0
"""How many pairs, as a share of those asked for, are played in the place of pairs with a window that does not count.

The instrument decides that, not a KPI; whether it hits one arm more than the other is asked when the run is judged.
"""
OVER = 1.5
"""The fewest pairs are played though they exceed the budget by so much: an answer is worth more than the seconds."""


@dataclass(slots=True)
class Course:
    """What one run in pairs has measured of its own pace, and what it came to; `watch` is the run's.

    `windows_s` are the walls of windows with all that belongs to them, `change_s` and `settle_s` those of the first
    application.
    """

    flows: pd.DataFrame
    tolerances: Mapping[str, Tolerance]
    plan: Plan
    watch: Stopwatch
    windows_s: list[float] = field(default_factory=list)
    change_s: float = 0.0
    settle_s: float = 0.0
    paired: Paired = field(default_factory=not_played)

    def planned(self, gauge: Gauge, played: Played) -> str:
        """Decide how many pairs are to be played; a sentence that says so, and what they would find."""
        going = pace(self.windows_s, self.change_s, self.settle_s, played)
        budget = self.plan.budget_s
        pairs = self.plan.pairs or 0
        if budget is not None:
            fits = going.pairs_in(budget - self.watch.seconds)
            pairs = min(fits, self.plan.pairs or fits)
            needed = self.watch.seconds + going.seconds_of(FLOOR)
            if pairs < FLOOR and needed <= OVER * budget:
                pairs = FLOOR
            elif pairs < FLOOR:
                self.paired = Paired(too_few(pairs, budget, needed), 0, budget)
                return self.paired.found.reason
        found = smallest(gauge.table(), self.flows, self.tolerances, gauge.records(), pairs, self.plan.seed)
        self.paired = replace(self.paired, asked=pairs, budget_s=budget, smallest=tuple(one.to_json() for one in found))
        return f"{smallest_words(found, pairs)}; about {going.seconds_of(pairs):.0f} s"

    def play(self, gauge: Gauge, played: Played) -> str | None:
        """Play the pairs that were planned, and others in the place of those that the instrument did not stand up to.

        Returns what went wrong when the change could not be made. Raises RevertFailed.
        """
        budget = self.plan.budget_s
        going = pace(self.windows_s, self.change_s, self.settle_s, played)

        def goes_on() -> bool:
            return budget is None or self.watch.seconds + going.seconds_of(1) <= budget

        problem, first, round_, lost = None, 0, 0, self.paired.asked
        most = int(self.paired.asked * (1 + SPARE_PAIRS))
        while problem is None and lost and first < most and (round_ == 0 or goes_on()):
            number = min(lost, most - first)
            problem = played.play(number, first, self.plan.seed + round_, goes_on)
            first, round_ = first + number, round_ + 1
            lost = max(0, self.paired.asked - len(valid_pairs(gauge.records())))
        return problem

    def judge(self, gauge: Gauge, flows: pd.DataFrame) -> Paired:
        """Judge what was played of these flows; where nothing was, why."""
        if self.paired.asked:
            found = judged_pairs(gauge.table(), flows, self.tolerances, gauge.records(), self.plan.seed)
            self.paired = replace(self.paired, found=found)
        return self.paired
