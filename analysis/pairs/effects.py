"""What the test says of each hypothesis: worse than its margin, not worse, or not to be told.

May not know how findings are worded or a verdict is formed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from analysis.compare import deviation_percent
from analysis.kpi import Kpi
from analysis.pairs.hierarchy import Level, Subject
from analysis.pairs.margins import moved_by
from analysis.pairs.signflip import Answers, Floats, answers
from analysis.verdict import Json

PASS_ALPHA = 0.05
"""The chance that something worse than its margin is called not worse, for each that must be shown."""
_DIGITS = 6


class Answer(StrEnum):
    """Worse than the margin beyond chance; shown not to be; neither."""

    INFERIOR = "inferior"
    NON_INFERIOR = "non_inferior"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Effect:
    """One KPI of one subject, A against B.

    `change`, `low`, `high` and `margin` are on the KPI's scale and positive when worse; `low` to `high` covers the
    truth of everything of its family at once. `before` and `after` are in the KPI's unit; `deviation_percent` between
    them is a description that decides nothing.
    """

    kpi: Kpi
    tail: bool
    offset: float
    subject: Subject
    change: float
    low: float
    high: float
    margin: float
    standard_error: float
    p_inferior: float
    p_non_inferior: float
    answer: Answer

    @property
    def deviation_percent(self) -> float:
        """As the seed defines it, between the medians over windows."""
        return deviation_percent(self.subject.after, self.subject.before)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the typical value comes to with the change, in the KPI's unit, lower end first."""
        low, high = self.value_at(self.low), self.value_at(self.high)
        return min(low, high), max(low, high)

    def value_at(self, worse: float) -> float:
        """Where the typical value comes to when it worsens by so much on the scale, in the KPI's unit."""
        return moved_by(self.kpi, self.subject.baseline, worse, self.subject.trials, self.offset)

    @property
    def beyond(self) -> bool:
        """The estimate is past the margin, whether or not that is certain."""
        return self.change > self.margin

    def to_json(self) -> dict[str, Json]:
        """Six significant digits, so that the same data give the same bytes."""
        low, high = self.interval
        return {
            "scope": self.subject.scope.value,
            "subject": self.subject.name,
            "kpi": self.kpi.name,
            "tail": self.tail,
            "priority": self.subject.priority,
            "flows": self.subject.flows,
            "before": rounded(self.subject.before),
            "after": rounded(self.subject.after),
            "deviation_percent": rounded(self.deviation_percent),
            "baseline": rounded(self.subject.baseline),
            "estimate": rounded(self.value_at(self.change)),
            "interval_low": rounded(low),
            "interval_high": rounded(high),
            "limit": rounded(self.subject.limit),
            "unit": self.kpi.unit,
            "p_inferior": rounded(self.p_inferior),
            "p_non_inferior": rounded(self.p_non_inferior),
            "answer": self.answer.value,
        }


def effects(levels: Sequence[Level], signs: Floats, alpha: float) -> tuple[Effect, ...]:
    """Test one family at `alpha`; every subject of every level has its effect."""
    found = []
    for level, answered in zip(levels, answers([level.block for level in levels], signs, alpha), strict=True):
        found += [_effect(level, answered, at, alpha) for at in range(len(level.subjects))]
    return tuple(found)


def _effect(level: Level, answered: Answers, at: int, alpha: float) -> Effect:
    worse, better = float(answered.p_inferior[at]), float(answered.p_non_inferior[at])
    margin = float(level.block.margins[at])
    change = float(answered.mean[at])
    answer = Answer.UNDECIDED
    if worse <= alpha:
        answer = Answer.INFERIOR
    elif better <= PASS_ALPHA and change <= margin:
        answer = Answer.NON_INFERIOR
    return Effect(
        kpi=level.kpi,
        tail=level.tail,
        offset=level.offset,
        subject=level.subjects[at],
        change=change,
        low=float(answered.low[at]),
        high=float(answered.high[at]),
        margin=margin,
        standard_error=float(answered.standard_error[at]),
        p_inferior=worse,
        p_non_inferior=better,
        answer=answer,
    )


def rounded(value: float) -> float | str | None:
    """A number that JSON can carry, to six significant digits; see `analysis.verdict.json_number`."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(np.format_float_positional(value, precision=_DIGITS, unique=False, fractional=False, trim="-"))
