"""What was measured of classes, the network and single flows, a row each, against how far it was allowed to worsen.

May not know HTML or how an effect was tested. A forest plot has one axis for all KPIs: 0 is as without the change, 1
is the limit, and to the right is worse, whichever way the KPI counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from analysis.verdict import priority_rank
from analysis.words import kpi_label, percent, quantity
from testbed.verdict_file import EffectEntry, number

WIDTH, SIDE = 240.0, 10.0
_MARK = 8.0
LEFTMOST, RIGHTMOST = -1.0, 2.5
ANSWERS: Mapping[str, str] = {"inferior": "worse", "undecided": "undecided", "non_inferior": "not worse"}
_GRAVITY = {"inferior": 0, "undecided": 1, "non_inferior": 2}


@dataclass(frozen=True, slots=True)
class Plot:
    """One line of the forest, in units of its view box; `left` and `right` tell that it goes on beyond the edge."""

    start: float
    end: float
    at: float
    left: bool
    right: bool


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One effect in words; `plot` is None when it has no finite numbers to draw."""

    scope: str
    subject: str
    priority: str
    kpi: str
    answer: str
    word: str
    medians: str
    means: str
    interval: str
    limit: str
    used: str
    plot: Plot | None


def x_of(share: float) -> float:
    """Where a share of the allowed worsening is drawn; beyond the edges at the edge."""
    inside = min(max(share, LEFTMOST), RIGHTMOST)
    return round(SIDE + (WIDTH - 2 * SIDE) * (inside - LEFTMOST) / (RIGHTMOST - LEFTMOST), 1)


def share_of(effect: EffectEntry, value: float) -> float:
    """How much of the allowed worsening a value uses up; NaN where nothing can be said.

    Where nothing at all was allowed, any worsening is the whole of it many times over.
    """
    baseline, limit = number(effect.baseline), number(effect.limit)
    if limit == baseline:
        return 0.0 if value == baseline else math.copysign(math.inf, value - baseline)
    if not (math.isfinite(baseline) and math.isfinite(limit)):
        return math.nan
    return (value - baseline) / (limit - baseline)


def nearness(effect: EffectEntry) -> float:
    """How near the worse end of the interval comes to the limit: 1 is there, more is beyond; −infinity when unknown."""
    shares = [share_of(effect, number(end)) for end in (effect.interval_low, effect.interval_high)]
    return max((share for share in shares if not math.isnan(share)), default=-math.inf)


def used(effect: EffectEntry) -> float:
    """How much of the allowed worsening the average uses up; −infinity when unknown."""
    share = share_of(effect, number(effect.estimate))
    return -math.inf if math.isnan(share) else share


def gravest_first(effects: Iterable[EffectEntry]) -> list[EffectEntry]:
    """Worse, undecided, not worse; among alike the more important subject, then what is farther beyond its limit."""
    return sorted(
        effects,
        key=lambda one: (
            _GRAVITY[one.answer],
            priority_rank(one.priority),
            -nearness(one),
            one.subject,
            one.kpi,
            one.tail,
        ),
    )


def effect_row(effect: EffectEntry, named: Callable[[str], str]) -> EffectRow:
    """The row; `named` says who a flow is."""
    unit = effect.unit
    before, after, mean_before, mean_after, low, high, limit = (
        number(value)
        for value in (
            effect.before,
            effect.after,
            effect.baseline,
            effect.estimate,
            effect.interval_low,
            effect.interval_high,
            effect.limit,
        )
    )
    share = percent(before, after, number(effect.deviation_percent))
    medians = f"{quantity(before, unit)} → {quantity(after, unit)}"
    return EffectRow(
        scope=effect.scope,
        subject=named(effect.subject) if effect.scope == "flow" else effect.subject,
        priority=effect.priority,
        kpi=kpi_label(effect.kpi, tail=effect.tail),
        answer=effect.answer,
        word=ANSWERS[effect.answer],
        medians=f"{medians} ({share})" if share else medians,
        means=f"{quantity(mean_before, unit)} → {quantity(mean_after, unit)}",
        interval=f"{quantity(low, unit)} to {quantity(high, unit)}",
        limit=quantity(limit, unit),
        used=_used(share_of(effect, mean_after)),
        plot=_plot(effect, mean_after, low, high),
    )


def _used(share: float) -> str:
    if math.isnan(share):
        return ""
    if math.isinf(share):
        return "nothing was allowed" if share > 0 else "better"
    if share < 0.005:
        return "no worse" if share > -0.005 else "better"
    return f"{100 * share:.0f} % of what is allowed" if share < 2 else f"{share:,.0f} times what is allowed"


def _plot(effect: EffectEntry, estimate: float, low: float, high: float) -> Plot | None:
    places = [share_of(effect, value) for value in (low, high, estimate)]
    if any(math.isnan(place) for place in places):
        return None
    ends, at = sorted(places[:2]), places[2]
    inside = min(max(x_of(at), SIDE + _MARK), WIDTH - SIDE - _MARK)
    return Plot(x_of(ends[0]), x_of(ends[1]), inside, ends[0] < LEFTMOST, ends[1] > RIGHTMOST)
