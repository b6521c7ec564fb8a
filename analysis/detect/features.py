"""Vectors of one series, for detectors that look at several numbers at once.  Knows residuals and values, no score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from analysis.detect.port import Detector, Floats
from analysis.detect.recent import Recent


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading beside what is left of it when its season is taken away."""

    value: float
    residual: float


class Features(Protocol):
    """Makes vectors of samples: the one a sample would complete, or None while too few have come."""

    length: int

    def of(self, sample: Sample) -> Floats | None:
        """The vector that ends with this sample; changes nothing."""
        ...

    def push(self, sample: Sample) -> None:
        """The sample becomes the past."""
        ...


class Lags:
    """The last `length` residuals, this one included: the shape of what just happened."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._before = Recent(length - 1)

    def of(self, sample: Sample) -> Floats | None:
        """Oldest first."""
        return np.append(self._before.latest(), sample.residual) if self._before.full else None

    def push(self, sample: Sample) -> None:
        """As the port says."""
        self._before.push(sample.residual)


class Shape:
    """Level, two short means, the step, and how restless the series was over a short and a longer span."""

    length = 6

    def __init__(self, short: int, middle: int, long: int) -> None:
        self._short, self._middle = short, middle
        self._residuals = Recent(middle - 1)
        self._values = Recent(long)

    def of(self, sample: Sample) -> Floats | None:
        """Residual, its means over `short` and `middle`, the step, deviations over `middle` and `long` before it."""
        if not self._values.full:
            return None
        before, values = self._residuals.latest(), self._values.latest()
        vector: Floats = np.array(
            [
                sample.residual,
                (before[1 - self._short :].sum() + sample.residual) / self._short,
                (before.sum() + sample.residual) / self._middle,
                sample.value - values[-1],
                _deviation(values[-self._middle :]),
                _deviation(values),
            ]
        )
        return vector

    def push(self, sample: Sample) -> None:
        """As the port says."""
        self._residuals.push(sample.residual)
        self._values.push(sample.value)


class OnFeatures:
    """A detector of vectors as a detector of samples."""

    def __init__(self, features: Features, detector: Detector[Floats]) -> None:
        self._features = features
        self._detector = detector
        self._asked: tuple[Sample, Floats | None] | None = None

    def score_one(self, given: Sample) -> float | None:
        """The detector's score of the vector that ends here."""
        vector = self._vector(given)
        return None if vector is None else self._detector.score_one(vector)

    def learn_one(self, given: Sample) -> None:
        """The detector learns the vector, the features the sample."""
        vector = self._vector(given)
        self._asked = None
        if vector is not None:
            self._detector.learn_one(vector)
        self._features.push(given)

    def _vector(self, given: Sample) -> Floats | None:
        if self._asked is None or self._asked[0] is not given:
            self._asked = given, self._features.of(given)
        return self._asked[1]


class OnResidual:
    """A detector of numbers that is given what the season left."""

    def __init__(self, detector: Detector[float]) -> None:
        self._detector = detector

    def score_one(self, given: Sample) -> float | None:
        """Of the residual."""
        return self._detector.score_one(given.residual)

    def learn_one(self, given: Sample) -> None:
        """The residual."""
        self._detector.learn_one(given.residual)


class OnValue:
    """A detector of numbers that is given the reading as it is."""

    def __init__(self, detector: Detector[float]) -> None:
        self._detector = detector

    def score_one(self, given: Sample) -> float | None:
        """Of the value."""
        return self._detector.score_one(given.value)

    def learn_one(self, given: Sample) -> None:
        """The value."""
        self._detector.learn_one(given.value)


def _deviation(values: Floats) -> float:
    """Standard deviation; numpy's own takes five times as long for so few numbers."""
    off = values - values.sum() / len(values)
    return math.sqrt(float(off @ off) / len(values))
