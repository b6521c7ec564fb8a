"""From a detector's score to how surprising it is among its own earlier scores: the causal empirical tail.

Detectors speak in percent, deviations or distances; what they have in common is how rarely each said as much before.
p = (1 + scores as high or higher) / (1 + scores so far) is a valid p-value where scores are exchangeable (Davison and
Hinkley 1997, section 4.2; conformal prediction counts alike), and -ln p of several detectors can be averaged.
"""

from __future__ import annotations

import math
from typing import Generic

from analysis.detect.port import Detector, Given
from analysis.detect.ranked import Ranked

WARM_UP_SCORES = 50
"""Before so many scores even a record would be no surprise worth telling (p > 0.02)."""


class Surprise(Generic[Given]):
    """A detector whose score is turned into -ln p: a detector again."""

    def __init__(self, detector: Detector[Given], memory: int) -> None:
        self._detector = detector
        self._before = Ranked(memory)
        self._asked: tuple[Given, float | None] | None = None

    def score_one(self, given: Given) -> float | None:
        """-ln p of the detector's score, from 0; None while the detector, or the tail itself, warms up."""
        score = self._score(given)
        so_far = len(self._before)
        if score is None or so_far < WARM_UP_SCORES:
            return None
        return math.log((so_far + 1) / (self._before.at_least(score) + 1))

    def learn_one(self, given: Given) -> None:
        """The score joins the earlier ones, then the detector learns."""
        score = self._score(given)
        self._asked = None
        if score is not None:
            self._before.push(score)
        self._detector.learn_one(given)

    def _score(self, given: Given) -> float | None:
        """Computed once, for whoever scores and then learns the same thing."""
        if self._asked is None or self._asked[0] is not given:
            self._asked = given, self._detector.score_one(given)
        return self._asked[1]
