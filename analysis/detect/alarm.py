"""One alarm rule for every detector: how much evidence, how often, and when the next alarm may come.

Knows evidence (a mean of -ln p) and rows, not what made them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.detect.port import Floats

ALARM = 0.5
"""A score as high as this is an alarm that begins in this row; every other row scores below."""
_BELOW = ALARM * (1 - 1e-6)
_LATELY_ROWS = 20
_REFERENCE_ROWS = 2_000
_LEAST_ROWS = 50


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When evidence becomes an alarm.

    The threshold is `evidence` after 2,000 rows and rises with `tightening` times the logarithm of the rows: 0 keeps
    the *rate* of false alarms, 1 their *number* per e-fold of history; ½ lets them grow like the square root. `agree`
    of the latest `among` rows must be above it. An alarm is told once: the next one waits until the evidence was below
    the threshold for `recovery` rows, and for the share `quiet` of all rows so far, so that the longer a series is
    known, the more an alarm means. Only what is above the threshold by `escalation` more than the last alarm was does
    not wait: a chance alarm must not hide a real one behind it.
    """

    evidence: float
    tightening: float = 0.5
    quiet: float = 0.03
    agree: int = 1
    among: int = 1
    recovery: int = 6
    escalation: float = 2.0

    def threshold(self, rows: int) -> float:
        """How much evidence it takes after so many rows."""
        return self.evidence + self.tightening * math.log(max(rows, _LEAST_ROWS) / _REFERENCE_ROWS)

    def thresholds(self, rows: npt.NDArray[np.int64]) -> Floats:
        """The same for many at once."""
        known: Floats = np.log(np.maximum(rows, _LEAST_ROWS) / _REFERENCE_ROWS)
        return self.evidence + self.tightening * known


class Alarms:
    """The rule at work on one series: from evidence to a score from 0 to 1.

    At or above ½, the logistic of evidence less threshold, in the row in which an alarm begins. Everywhere else below
    ½, rising with the evidence of about the last 20 rows: an episode stays marked after its one alarm was told.
    """

    def __init__(self, rule: AlarmRule) -> None:
        self._rule = rule
        self._rows = 0
        self._over: deque[bool] = deque(maxlen=rule.among - 1)
        self._below = rule.recovery
        self._last: int | None = None
        self._last_margin = 0.0
        self._lately = 0.0

    def score_one(self, given: float | None) -> float | None:
        """None where there is no evidence."""
        if given is None:
            return None
        margin = given - self._rule.threshold(self._rows)
        if self._begins(margin):
            return max(ALARM, 1 / (1 + math.exp(-min(50.0, margin))))
        return _BELOW * -math.expm1(-max(0.0, self._lately_with(given)))

    def learn_one(self, given: float | None) -> None:
        """Rows are counted, warm-up included; an alarm begins its quiet time."""
        if given is not None:
            margin = given - self._rule.threshold(self._rows)
            if self._begins(margin):
                self._last, self._last_margin = self._rows, margin
            over = margin >= 0
            self._over.append(over)
            self._below = 0 if over else self._below + 1
            self._lately = self._lately_with(given)
        self._rows += 1

    def _lately_with(self, evidence: float) -> float:
        return self._lately + (evidence - self._lately) / _LATELY_ROWS

    def _begins(self, margin: float) -> bool:
        if margin < 0 or 1 + sum(self._over) < self._rule.agree:
            return False
        if self._last is None or margin >= self._last_margin + self._rule.escalation:
            return True
        return self._below >= self._rule.recovery and self._rows - self._last >= self._rule.quiet * self._rows
