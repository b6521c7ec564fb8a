"""How far a KPI may worsen before it matters, on the scale on which its differences add: logarithms and log-odds.

A margin is relative and absolute, as a tolerance is: both must be exceeded. Criticality acts here and through fixed
multipliers, never through alpha. May not know tables, windows or verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from analysis.kpi import Direction, Kpi, Tolerance

Floats = npt.NDArray[np.float64]

CONTINUITY = 0.5
"""Added to what was lost and to what was not (Haldane 1956, Anscombe 1956): none lost and all lost stay finite."""
TRIALS_UNKNOWN = 100.0
"""A ratio whose number of packets nobody told is taken for one of so many."""
_FLOORS: Mapping[str, float] = MappingProxyType({"ns": 1_000.0, "bps": 1_000.0})
"""Delays below 1 µs and rates below 1 kbit/s are as good as equal: a logarithm would make much of nothing."""


class Scale(Enum):
    """Where differences of a KPI add and its noise is about alike for small and large values."""

    LOG = "log"
    LOG_COUNT = "log_count"
    LOG_ODDS = "log_odds"


@dataclass(frozen=True, slots=True)
class Criticality:
    """What a priority does: how its statistics are multiplied, its share in the network's mean, its margins' width.

    `mandatory`: nothing passes unless it was shown not to be worse.
    """

    multiplier: float
    share: float
    margin: float
    mandatory: bool


CRITICALITY: Mapping[str, Criticality] = MappingProxyType(
    {
        "critical": Criticality(1.25, 4.0, 0.75, mandatory=True),
        "high": Criticality(1.1, 2.0, 0.9, mandatory=False),
        "normal": Criticality(1.0, 1.0, 1.0, mandatory=False),
        "low": Criticality(0.8, 0.5, 1.0, mandatory=False),
    }
)


def criticality(priority: str) -> Criticality:
    """What this priority does; an unknown word counts as normal."""
    return CRITICALITY.get(priority, CRITICALITY["normal"])


def scale_of(kpi: Kpi) -> Scale:
    """Ratios are judged by their log-odds, counts by the logarithm of the count and a half, all else by logarithm."""
    if kpi.unit == "ratio":
        return Scale.LOG_ODDS
    return Scale.LOG_COUNT if kpi.unit == "count" else Scale.LOG


def scaled(kpi: Kpi, values: Floats, trials: Floats | float = 1.0) -> Floats:
    """Values in the KPI's unit on its scale; NaN and infinite become NaN: what never came has no delay to compare.

    `trials` is what a ratio is a share of, and among how many flows a mean count was taken.
    """
    finite = np.where(np.isfinite(values), values, np.nan)
    scale = scale_of(kpi)
    if scale is Scale.LOG:
        return np.asarray(np.log(np.maximum(finite, _FLOORS.get(kpi.unit, 1.0))))
    if scale is Scale.LOG_COUNT:
        return np.asarray(np.log(np.maximum(finite, 0.0) + CONTINUITY / np.asarray(trials)))
    share = np.clip(finite, 0.0, 1.0)
    return np.asarray(np.log((share * trials + CONTINUITY) / ((1 - share) * trials + CONTINUITY)))


def margins(
    kpi: Kpi, tolerance: Tolerance, baseline: Floats, width: Floats | float = 1.0, trials: Floats | float = 1.0
) -> Floats:
    """The tolerance around each baseline (KPI's unit) as a distance on the scale, 0 or more; `width` multiplies it.

    Infinite where the tolerance reaches further than the KPI can worsen: there is nothing to judge.
    """
    allowed = np.maximum(tolerance.absolute, tolerance.relative * np.abs(baseline)) * width
    if kpi.direction is Direction.LOWER:
        edge = baseline + allowed
        out = edge >= 1 if scale_of(kpi) is Scale.LOG_ODDS else np.zeros(np.shape(baseline), dtype=bool)
    else:
        edge = baseline - allowed
        out = edge <= 0
    distance = np.abs(scaled(kpi, edge, trials) - scaled(kpi, baseline, trials))
    return np.asarray(np.where(out, np.inf, distance))


def worsening(kpi: Kpi, after: Floats, before: Floats) -> Floats:
    """How much worse `after` is than `before`, both on the scale; negative when it is better."""
    return np.asarray(after - before if kpi.direction is Direction.LOWER else before - after)


def percent(kpi: Kpi, worse: float) -> float:
    """A difference on the scale as the change of the KPI in percent (of the odds, for a ratio), with the KPI's sign."""
    change = worse if kpi.direction is Direction.LOWER else -worse
    return float(np.expm1(np.clip(change, -50.0, 50.0)) * 100.0)
