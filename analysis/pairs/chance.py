"""What is counted in one window, by chance: where a share or a mean count comes to on its scale, and how unevenly.

A few packets lost of a few have a logarithm that lies lower, and strays more, than that of their expectation. May not
know tests, tables or verdicts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlogy

from analysis.kpi import Direction, Kpi
from analysis.pairs.margins import CONTINUITY, Scale, scale_of, scaled, unscaled

Floats = npt.NDArray[np.float64]

_MANY = 200.0
"""Of so many counts on either side the logarithm is as good as normal."""
_HALVINGS = 28


def by_chance(kpi: Kpi, value: float, trials: float) -> tuple[float, float]:
    """Mean and variance on the scale of what one window counts of `value` (a share, or a mean count) in so many trials.

    Shares are binomial, counts Poisson. Delays and rates are measured, not counted: ValueError.
    """
    scale = scale_of(kpi)
    if scale is Scale.LOG:
        raise ValueError(f"{kpi.name} is measured, not counted")
    counts = max(1.0, round(trials))
    expected = value * counts
    rest = (1 - value) * counts if scale is Scale.LOG_ODDS else np.inf
    if min(expected, rest) > _MANY:
        place = scaled(kpi, np.array([value]), counts)
        return float(place[0]), 1 / (expected + CONTINUITY) + 1 / (rest + CONTINUITY)
    # the rarer of the two sides is what is counted
    few, turned = (rest, True) if rest < expected else (expected, False)
    most = int(min(few + 12 * np.sqrt(few + 1) + 12, counts if scale is Scale.LOG_ODDS else np.inf))
    seen = np.arange(most + 1, dtype=np.float64)
    # the constant of the density falls out when it is made to sum to 1
    density = xlogy(seen, few) - gammaln(seen + 1)
    if scale is Scale.LOG_ODDS:
        density = xlogy(seen, few) + xlogy(counts - seen, counts - few) - gammaln(seen + 1) - gammaln(counts - seen + 1)
    chances = np.exp(density - density.max())
    places = scaled(kpi, ((counts - seen) if turned else seen) / counts, counts)
    chances = chances / chances.sum()
    mean = float(chances @ places)
    return mean, float(chances @ (places - mean) ** 2)


def worsened(kpi: Kpi, baseline: float, worse: float, trials: float) -> float:
    """The share or mean count at which one window's mean on the scale is worse than the baseline's by so much."""
    aim = by_chance(kpi, baseline, trials)[0] + (worse if kpi.direction is Direction.LOWER else -worse)
    most = 1.0 if scale_of(kpi) is Scale.LOG_ODDS else float(unscaled(kpi, np.array([aim + 2.0]), trials)[0]) + 1.0
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if by_chance(kpi, middle, trials)[0] < aim:
            low = middle
        else:
            high = middle
    return (low + high) / 2
