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
_STEEPEST = 600.0
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


def offset_of(kpi: Kpi, tolerance: Tolerance) -> float:
    """What is added before a logarithm is taken: the absolute tolerance, so that what is small beside it is no noise.

    30 µs or 60 µs is the same where 5 ms are allowed; beside 500 ms nothing changes.
    """
    return tolerance.absolute if scale_of(kpi) is Scale.LOG else 0.0


def scaled(kpi: Kpi, values: Floats, trials: Floats | float = 1.0, offset: float = 0.0) -> Floats:
    """Values in the KPI's unit on its scale; NaN and infinite become NaN: what never came has no delay to compare.

    `trials` is what a ratio is a share of, and among how many flows a mean count was taken; `offset` as above.
    """
    finite = np.where(np.isfinite(values), values, np.nan)
    scale = scale_of(kpi)
    if scale is Scale.LOG:
        return np.asarray(np.log(np.maximum(finite, _FLOORS.get(kpi.unit, 1.0)) + offset))
    if scale is Scale.LOG_COUNT:
        return np.asarray(np.log(np.maximum(finite, 0.0) + CONTINUITY / np.asarray(trials)))
    share = np.clip(finite, 0.0, 1.0)
    return np.asarray(np.log((share * trials + CONTINUITY) / ((1 - share) * trials + CONTINUITY)))


def unscaled(kpi: Kpi, places: Floats, trials: Floats | float = 1.0, offset: float = 0.0) -> Floats:
    """The values, in the KPI's unit, of places on its scale: the inverse of `scaled`, never below 0."""
    grown = np.exp(np.clip(places, -_STEEPEST, _STEEPEST))
    scale = scale_of(kpi)
    if scale is Scale.LOG:
        return np.asarray(np.maximum(grown - offset, 0.0))
    if scale is Scale.LOG_COUNT:
        return np.asarray(np.maximum(grown - CONTINUITY / np.asarray(trials), 0.0))
    share = (grown * (trials + CONTINUITY) - CONTINUITY) / (np.asarray(trials) * (1 + grown))
    return np.asarray(np.clip(share, 0.0, 1.0))


def limits(kpi: Kpi, tolerance: Tolerance, baseline: Floats, width: Floats | float = 1.0) -> Floats:
    """The worst value that the tolerance allows around each baseline, in the KPI's unit; `width` multiplies it."""
    allowed = np.maximum(tolerance.absolute, tolerance.relative * np.abs(baseline)) * width
    return np.asarray(baseline + allowed if kpi.direction is Direction.LOWER else baseline - allowed)


def margins(
    kpi: Kpi, tolerance: Tolerance, baseline: Floats, width: Floats | float = 1.0, trials: Floats | float = 1.0
) -> Floats:
    """The limits as distances from their baselines on the scale, whose offset is the tolerance's; 0 or more.

    Infinite where the tolerance reaches further than the KPI can worsen: there is nothing to judge.
    """
    edge = limits(kpi, tolerance, baseline, width)
    if kpi.direction is Direction.LOWER:
        out = edge >= 1 if scale_of(kpi) is Scale.LOG_ODDS else np.zeros(np.shape(baseline), dtype=bool)
    else:
        out = edge <= 0
    offset = offset_of(kpi, tolerance)
    distance = np.abs(scaled(kpi, edge, trials, offset) - scaled(kpi, baseline, trials, offset))
    return np.asarray(np.where(out, np.inf, distance))


def worsening(kpi: Kpi, after: Floats, before: Floats) -> Floats:
    """How much worse `after` is than `before`, both on the scale; negative when it is better."""
    return np.asarray(after - before if kpi.direction is Direction.LOWER else before - after)


def moved_by(kpi: Kpi, baseline: float, worse: float, trials: float = 1.0, offset: float = 0.0) -> float:
    """Where a baseline (KPI's unit) comes to when it worsens by so much on the scale."""
    change = worse if kpi.direction is Direction.LOWER else -worse
    start = scaled(kpi, np.array([baseline]), trials, offset)
    return float(unscaled(kpi, start + change, trials, offset)[0])
