"""Numbers against numbers: percentage deviation, the noise of repeated baselines, and what may be told from them.

May not know flows, classes, tables or verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.kpi import Kpi, Tolerance

NOISE_FACTOR = 2.0
"""A move counts only when it is larger than this many times the largest stray of the baseline windows."""


def deviation_percent(kpi: float, baseline: float) -> float:
    """`abs((kpi − baseline) / baseline) · 100`, the seed's definition, with its holes closed.

    Equal values (also 0 and 0, or both infinite) deviate by 0. From a zero baseline every other value deviates
    infinitely, as does an infinite value from a finite baseline. A finite value deviates from an infinite baseline by
    100: all of it is gone. A tiny baseline is not special here; the absolute floor of a tolerance keeps it harmless.
    NaN (not measured) on either side gives NaN.
    """
    if math.isnan(kpi) or math.isnan(baseline):
        return math.nan
    if kpi == baseline:
        return 0.0
    if baseline == 0 or math.isinf(kpi):
        return math.inf
    if math.isinf(baseline):
        return 100.0
    return abs((kpi - baseline) / baseline) * 100.0


@dataclass(frozen=True, slots=True)
class Contrast:
    """One KPI before and after, with everything that is needed to say whether the difference is real and too much.

    `noise` is the largest stray of a baseline window from the baseline median, in the KPI's unit; `beyond` = past the
    tolerance for the worse; `separated` = every window after is worse than every window before; `improved` = past the
    tolerance for the better, separated and larger than the noise.
    """

    before: float
    after: float
    deviation_percent: float
    noise: float
    noise_percent: float
    noisy: bool
    beyond: bool
    separated: bool
    above_noise: bool
    improved: bool

    @property
    def certain(self) -> bool:
        """Worse beyond tolerance, in every window, by more than the baseline's own noise."""
        return self.beyond and self.separated and self.above_noise

    @property
    def undecided(self) -> bool:
        """Worse beyond tolerance, but the windows do not agree well enough to say so."""
        return self.beyond and not self.certain


def contrast(kpi: Kpi, tolerance: Tolerance, baseline: Sequence[float], after: Sequence[float]) -> Contrast:
    """Hold the windows after a change against the baseline windows; each sequence has one number a window, no NaN.

    The medians are compared, so one odd window of three decides nothing. ValueError when a side is empty.
    """
    if not baseline or not after:
        raise ValueError("found no window, expected at least one before and one after")
    low, high = float(np.median(baseline)), float(np.median(after))
    strays = [0.0 if value == low else abs(value - low) for value in baseline]
    noise = max(strays)
    worse = kpi.worsening(high, low)
    threshold = tolerance.threshold(low) if math.isfinite(low) else tolerance.absolute
    floor = NOISE_FACTOR * noise
    return Contrast(
        before=low,
        after=high,
        deviation_percent=deviation_percent(high, low),
        noise=noise,
        noise_percent=0.0 if noise == 0 else max(deviation_percent(value, low) for value in baseline),
        noisy=noise > threshold,
        beyond=worse > threshold,
        separated=all(kpi.worsening(late, early) > 0 for late in after for early in baseline),
        above_noise=worse > floor,
        improved=-worse > threshold
        and -worse > floor
        and all(kpi.worsening(late, early) < 0 for late in after for early in baseline),
    )
