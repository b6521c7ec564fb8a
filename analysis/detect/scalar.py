"""Detectors of one number at a time: percentage deviation, robust z, trend, EWMA, CUSUM.

Each is given the residual that `season` left, but for the percentage deviation, which is given the value itself.
A difference too small for the numbers that made it counts as none: rounding is no anomaly.
"""

from __future__ import annotations

import math

import numpy as np

from analysis.detect.port import Floats
from analysis.detect.recent import Recent

_ROUNDING = 1e-9
_GAUSSIAN = math.sqrt(math.pi / 2)
"""Standard deviation over mean absolute deviation, of a normal distribution."""


class DeviationPercent:
    """abs((kpi - baseline) / baseline) * 100 against the mean so far, as the seed of this project writes it.

    Against a baseline of zero any other value is infinitely far.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0

    def score_one(self, given: float) -> float | None:
        """In percent."""
        if not self._count:
            return None
        off = _difference(given, self._mean)
        if not self._mean:
            return math.inf if off else 0.0
        return abs(off / self._mean) * 100

    def learn_one(self, given: float) -> None:
        """The mean takes it in."""
        self._count += 1
        self._mean += (given - self._mean) / self._count


class RobustZ:
    """How many deviations the mean of the last `span` residuals is from zero; a long span sees what stays off.

    A residual is already a distance from a median. The deviation is the mean absolute residual with each residual
    cut at ten times that mean, so that an outlier neither hides the next one nor, where most are zero, stops it.
    """

    CUT = 10.0

    def __init__(self, span: int) -> None:
        self._before = Recent(span - 1) if span > 1 else None
        self._span = span
        self._count = 0
        self._spread = 0.0

    def score_one(self, given: float) -> float | None:
        """In deviations of a single residual."""
        if self._count < self._span:
            return None
        total = given if self._before is None else given + float(self._before.latest().sum())
        if not self._spread:
            return math.inf if total else 0.0
        return abs(total) / self._span / (self._spread * _GAUSSIAN)

    def learn_one(self, given: float) -> None:
        """The spread and the span take it in."""
        if self._before is not None:
            self._before.push(given)
        self._count += 1
        stray = abs(given)
        if self._spread:
            stray = min(stray, self.CUT * self._spread)
        self._spread += (stray - self._spread) / self._count


class TrendResidual:
    """How far a number is from where the polynomial through the last `width` numbers leads: a trend is no anomaly."""

    def __init__(self, width: int, degree: int = 1) -> None:
        self._before = Recent(width)
        self._ahead = _one_step_ahead(width, degree)

    def score_one(self, given: float) -> float | None:
        """In units of the series; None until `width` numbers have come."""
        if not self._before.full:
            return None
        return abs(_difference(given, float(self._ahead @ self._before.latest())))

    def learn_one(self, given: float) -> None:
        """The window moves on."""
        self._before.push(given)


class EwmaResidual:
    """How far a number is from the exponentially weighted mean of those before it (Roberts 1959)."""

    def __init__(self, span: float) -> None:
        self._share = min(1.0, 1 / span)
        self._mean: float | None = None

    def score_one(self, given: float) -> float | None:
        """In units of the series."""
        return None if self._mean is None else abs(_difference(given, self._mean))

    def learn_one(self, given: float) -> None:
        """The mean moves by 1/span of the way."""
        self._mean = given if self._mean is None else self._mean + self._share * (given - self._mean)


class Cusum:
    """Two-sided cumulative sum of standardised numbers beyond an allowance: a small shift that stays (Page 1954).

    Mean and deviation follow slowly; single numbers count five deviations at most, so that a spike is left to others;
    a sum that reached its limit has told its news and begins again.
    """

    ALLOWANCE, CUT, LIMIT = 0.5, 5.0, 40.0
    WARM_UP = 20

    def __init__(self, span: float) -> None:
        self._share = min(1.0, 1 / span)
        self._mean = 0.0
        self._spread = 0.0
        self._high = self._low = 0.0
        self._count = 0

    def score_one(self, given: float) -> float | None:
        """The larger of both sums, in deviations."""
        return None if self._count < self.WARM_UP else max(self._sums(given))

    def learn_one(self, given: float) -> None:
        """The sums go on, the mean and the deviation follow."""
        if self._count >= self.WARM_UP:
            self._high, self._low = self._sums(given)
            if max(self._high, self._low) > self.LIMIT:
                self._high = self._low = 0.0
        off = given - self._mean if self._count else 0.0
        self._mean = self._mean + self._share * off if self._count else given
        self._spread += self._share * (abs(off) - self._spread)
        self._count += 1

    def _sums(self, given: float) -> tuple[float, float]:
        off = _difference(given, self._mean)
        deviation = self._spread * _GAUSSIAN
        step = off / deviation if deviation else math.copysign(self.CUT, off) if off else 0.0
        step = max(-self.CUT, min(self.CUT, step))
        return max(0.0, self._high + step - self.ALLOWANCE), max(0.0, self._low - step - self.ALLOWANCE)


def _difference(one: float, other: float) -> float:
    off = one - other
    return off if abs(off) > _ROUNDING * (abs(one) + abs(other)) else 0.0


def _one_step_ahead(width: int, degree: int) -> Floats:
    """Weights of the last `width` numbers whose sum is the next value of the least-squares polynomial through them."""
    places = np.linspace(-1.0, 1.0, width)
    weights: Floats = np.vander([1.0 + 2.0 / (width - 1)], degree + 1)[0] @ np.linalg.pinv(
        np.vander(places, degree + 1)
    )
    return weights
