"""What others make of the same windows: percentage deviation, a pooled rank test, and a canary score.

Each is written anew from its published definition and is given what it asks for: every delay of every flow, pooled over
the windows of an arm.  May not know our judge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

DEVIATION_LIMIT_PERCENT = 10.0
RANK_ALPHA = 0.05
CANARY_CONFIDENCE = 0.98
CANARY_TOLERANCE = 0.25
CANARY_PASS, CANARY_MARGINAL = 95.0, 75.0
_PIECE = 4_000_000


def by_percentage(before: Floats, after: Floats) -> bool:
    """Whether any flow's median delay deviates by more than 10 %: `abs((kpi − baseline) / baseline) · 100`."""
    baseline = np.median(before, axis=1)
    deviation = np.abs((np.median(after, axis=1) - baseline) / baseline) * 100
    return bool((deviation > DEVIATION_LIMIT_PERCENT).any())


def by_ranks(before: Floats, after: Floats) -> bool:
    """Whether any flow's pooled delays differ by a two-sided Mann-Whitney test at 5 %."""
    found = stats.mannwhitneyu(before, after, axis=1, method="asymptotic")
    return bool((found.pvalue < RANK_ALPHA).any())


def canary_high(before: Floats, after: Floats, least_effect: float = 1.0) -> npt.NDArray[np.bool_]:
    """Which rows a canary classifier in the manner of Kayenta's default judge calls High.

    A rank-based interval (98 %) of the shift lies above a quarter of the estimated shift itself, and the ratio of the
    means is at least `least_effect`.  A row a metric, a column a point.  Where both arms are constant, their means
    decide.
    """
    points = before.shape[1] * after.shape[1]
    quantile = float(stats.norm.ppf(1 - (1 - CANARY_CONFIDENCE) / 2))
    spread = np.sqrt(points * (before.shape[1] + after.shape[1] + 1) / 12)
    at = max(0, int(np.floor(points / 2 - quantile * spread)))
    high = np.zeros(len(before), dtype=bool)
    step = max(1, _PIECE // points)
    for start in range(0, len(before), step):
        rows = slice(start, start + step)
        shifts = (after[rows, :, None] - before[rows, None, :]).reshape(len(before[rows]), -1)
        shifts = np.partition(shifts, (at, points // 2), axis=1)
        low, estimate = shifts[:, at], shifts[:, points // 2]
        high[rows] = (low > CANARY_TOLERANCE * np.abs(estimate)) & (low > 0)
    means = before.mean(axis=1), after.mean(axis=1)
    larger = np.divide(means[1], means[0], out=np.full(len(high), np.inf), where=means[0] != 0) >= least_effect
    still = (np.ptp(before, axis=1) == 0) & (np.ptp(after, axis=1) == 0)
    return np.asarray(np.where(still, means[1] > means[0], high) & larger)


def canary_score(before: Floats, after: Floats) -> float:
    """The share of metrics that are not High, in percent: one group, equal weights, no metric marked critical."""
    return 100.0 * float(1 - canary_high(before, after).mean())


def by_canary_score(before: Floats, after: Floats) -> bool:
    """Whether the score fails: below the marginal threshold of 75."""
    return canary_score(before, after) < CANARY_MARGINAL


def by_canary_pass(before: Floats, after: Floats) -> bool:
    """Whether the score does not pass: below the threshold of 95."""
    return canary_score(before, after) < CANARY_PASS


def by_any_canary_metric(before: Floats, after: Floats) -> bool:
    """Whether any single flow is called High, as when every metric is marked critical."""
    return bool(canary_high(before, after).any())
