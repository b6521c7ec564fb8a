"""One alarm rule for every detector: how much evidence, how often, and when the next alarm may come.

Knows evidence (a mean of -ln p) and rows, not what made them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.detect.port import Detector, Floats

ALARM = 0.5
"""A score as high as this is an alarm that begins in this row; every other row scores below."""
BELOW = ALARM * (1 - 1e-6)
_REFERENCE_ROWS = 2_000
_LEAST_ROWS = 50


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When evidence becomes an alarm.

    The threshold is `evidence` after 2,000 rows and rises with `tightening` times the logarithm of the rows: 0 keeps
    the *rate* of false alarms, 1 their *number* per e-fold of history; ½ lets them grow like the square root. `agree`
    of the latest `among` rows must be above it. An alarm is told once: the next one waits until the evidence was below
    the threshold for `recovery` rows, and for the share `quiet` of all rows so far, so that the longer a series is
    known, the more an alarm means.
    """

    evidence: float
    tightening: float = 0.5
    quiet: float = 0.03
    agree: int = 1
    among: int = 1
    recovery: int = 6

    def threshold(self, rows: int) -> float:
        """How much evidence it takes after so many rows."""
        return self.evidence + self.tightening * math.log(max(rows, _LEAST_ROWS) / _REFERENCE_ROWS)

    def thresholds(self, rows: npt.NDArray[np.int64]) -> Floats:
        """The same for many at once."""
        known: Floats = np.log(np.maximum(rows, _LEAST_ROWS) / _REFERENCE_ROWS)
        return self.evidence + self.tightening * known


class Alarms:
    """The rule at work on one series: from evidence to a score from 0 to 1, at or above ½ where an alarm begins."""

    def __init__(self, rule: AlarmRule) -> None:
        self._rule = rule
        self._rows = 0
        self._over: deque[bool] = deque(maxlen=rule.among - 1)
        self._below = rule.recovery
        self._last: int | None = None

    def score_one(self, given: float | None) -> float | None:
        """The logistic of evidence less threshold; halved in every row in which no alarm begins."""
        if given is None:
            return None
        margin = given - self._rule.threshold(self._rows)
        raw = 1 / (1 + math.exp(-max(-50.0, min(50.0, margin))))
        return max(ALARM, raw) if self._begins(margin) else raw * BELOW

    def learn_one(self, given: float | None) -> None:
        """Rows are counted, warm-up included; an alarm begins its quiet time."""
        margin = None if given is None else given - self._rule.threshold(self._rows)
        if margin is not None:
            if self._begins(margin):
                self._last = self._rows
            over = margin >= 0
            self._over.append(over)
            self._below = 0 if over else self._below + 1
        self._rows += 1

    def _begins(self, margin: float) -> bool:
        if margin < 0 or 1 + sum(self._over) < self._rule.agree:
            return False
        if self._last is None:
            return True
        return self._below >= self._rule.recovery and self._rows - self._last >= self._rule.quiet * self._rows


_PORT: type[Detector[float | None]] = Alarms
