"""The score of the Numenta Anomaly Benchmark, written anew from its published definition (Lavin and Ahmad 2015).

An alarm inside a window counts by how early it is, only the best one of each window; one outside costs, the more the
farther behind the last window; a missed window costs too. The first rows of a file are for learning and not scored.
100 is every window found at its first row and no false alarm, 0 is never an alarm. Knows rows and windows only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PROBATION_SHARE, PROBATION_MOST = 0.15, 750


@dataclass(frozen=True, slots=True)
class Weights:
    """What a found window, a missed one and a false alarm count."""

    found: float
    missed: float
    false: float


PROFILES: Mapping[str, Weights] = {
    "standard": Weights(1.0, 1.0, 0.11),
    "reward_low_fp": Weights(1.0, 1.0, 0.22),
    "reward_low_fn": Weights(1.0, 2.0, 0.11),
}
STANDARD = PROFILES["standard"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file's rows and its anomaly windows, each the first and the last row of it, in order and apart."""

    rows: int
    windows: tuple[tuple[int, int], ...]

    @property
    def probation(self) -> int:
        """How many rows are not scored."""
        return min(int(PROBATION_SHARE * self.rows), PROBATION_MOST)


class Ledger:
    """What an alarm in each row of a file is worth, worked out once for many sets of alarms."""

    def __init__(self, labels: Labelled, weights: Weights = STANDARD) -> None:
        self._labels, self._weights = labels, weights
        self._worth = np.full(labels.rows, -weights.false)
        self._window = np.full(labels.rows, -1)
        starts = [*(first for first, _ in labels.windows[1:]), labels.rows][: len(labels.windows)]
        for number, ((first, last), following) in enumerate(zip(labels.windows, starts, strict=True)):
            width = last - first + 1
            inside = np.arange(first, last + 1)
            self._window[inside] = number
            self._worth[inside] = _sigmoid(-(last - inside + 1) / width) / _sigmoid(np.array([-1.0])) * weights.found
            behind = np.arange(last + 1, following)
            self._worth[behind] = _sigmoid((behind - last) / max(width - 1, 1)) * weights.false

    def total(self, alarms: Iterable[int]) -> float:
        """The file's raw score with alarms in these rows."""
        best = dict.fromkeys(range(len(self._labels.windows)), -self._weights.missed)
        outside = 0.0
        for row in alarms:
            if row < self._labels.probation:
                continue
            window = int(self._window[row])
            if window < 0:
                outside += float(self._worth[row])
            else:
                best[window] = max(best[window], float(self._worth[row]))
        return sum(best.values()) + outside

    def sweep(self, scores: Floats) -> tuple[Floats, Floats]:
        """Thresholds from high to low, and the raw score when every row at or above each is an alarm (NaN: never)."""
        rows = np.flatnonzero(~np.isnan(scores))
        rows = rows[rows >= self._labels.probation]
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        gains = np.zeros(len(rows))
        best = dict.fromkeys(range(len(self._labels.windows)), -self._weights.missed)
        for place, row in enumerate(rows):
            window, worth = int(self._window[row]), float(self._worth[row])
            if window < 0:
                gains[place] = worth
            elif worth > best[window]:
                gains[place] = worth - best[window]
                best[window] = worth
        totals = np.cumsum(gains) - self._weights.missed * len(best)
        last = np.append(scores[rows][1:] != scores[rows][:-1], True) if len(rows) else np.zeros(0, bool)
        return (
            np.append(math.inf, scores[rows][last]),
            np.append(-self._weights.missed * len(best), totals[last]),
        )


def normalised(total: float, windows: int, weights: Weights = STANDARD) -> float:
    """From the sum of the files' raw scores to the scale on which 100 is perfect and 0 is silence."""
    silent = -weights.missed * windows
    return 100 * (total - silent) / (weights.found * windows - silent)


def best_of_all_thresholds(
    scores: Sequence[Floats], files: Sequence[Labelled], weights: Weights = STANDARD
) -> tuple[float, float]:
    """The normalised score with the one threshold that suits these very files best, and that threshold.

    It is how the benchmark itself scores every entry; a threshold chosen like this is not held out.
    """
    curves = [Ledger(labels, weights).sweep(given) for given, labels in zip(scores, files, strict=True)]
    thresholds = np.unique(np.concatenate([curve[0] for curve in curves]))
    totals = np.zeros(len(thresholds))
    for high_to_low, raw in curves:
        totals += raw[np.searchsorted(-high_to_low, -thresholds, side="right") - 1]
    best = int(np.argmax(totals))
    windows = sum(len(labels.windows) for labels in files)
    return normalised(float(totals[best]), windows, weights), float(thresholds[best])


def _sigmoid(place: Floats) -> Floats:
    """From nearly 1 at the window's first row through 0 at its end to -1 three widths behind it."""
    return np.where(place > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(place, 3.0))) - 1)
