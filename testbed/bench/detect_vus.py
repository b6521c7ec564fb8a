"""VUS-PR: the volume under the precision-recall surface over thresholds and buffers (Paparrizos and others 2022).

Labels of a series are soft: around each window a buffer falls off as a square root, so that an alarm just beside it is
worth something. For each buffer, from none to `BUFFER_ROWS`, range-based precision and recall over all thresholds give
one area; the volume is their mean. No threshold is chosen and nothing is adjusted. Knows scores and windows only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BUFFER_ROWS = 100
BUFFERS = 11
THRESHOLDS = 200


def vus_pr(scores: Floats, windows: Sequence[tuple[int, int]]) -> float:
    """From 0 to 1; NaN scores count as the lowest. Windows are first and last row; there must be one."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    cuts = np.unique(np.quantile(known[np.isfinite(known)], np.linspace(1, 0, THRESHOLDS)))[::-1]
    return float(np.mean([_area(known, windows, buffer, cuts) for buffer in np.linspace(0, BUFFER_ROWS, BUFFERS)]))


def _area(scores: Floats, windows: Sequence[tuple[int, int]], buffer: float, cuts: Floats) -> float:
    soft = _soft_labels(len(scores), windows, buffer)
    hard = sum(last - first + 1 for first, last in windows)
    positive = (hard + soft.sum()) / 2
    half = int(buffer // 2)
    highest = [scores[max(0, first - half) : last + half + 1].max() for first, last in windows]
    order = np.argsort(-scores, kind="stable")
    predicted = np.searchsorted(-scores[order], -cuts, side="right")
    true = np.concatenate([[0.0], np.cumsum(soft[order])])[predicted]
    existing = np.array([np.mean([peak >= cut for peak in highest]) for cut in cuts])
    recall = np.minimum(true / positive, 1.0) * existing
    precision = true / np.maximum(predicted, 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _soft_labels(rows: int, windows: Sequence[tuple[int, int]], buffer: float) -> Floats:
    soft = np.zeros(rows)
    half = int(buffer // 2)
    for first, last in windows:
        soft[first : last + 1] = 1.0
        for away in range(1, half + 1):
            worth = np.sqrt(1 - away / buffer)
            for row in (first - away, last + away):
                if 0 <= row < rows:
                    soft[row] = max(soft[row], worth)
    return soft
