"""PCA of a vector: how far inside the usual plane (Hotelling's T²) and how far off it (Q, the squared residual).

The vector may be the KPIs of one moment, or the last values of one series (`features.Lags`). Both distances become one
score, each divided by its 99th percentile among the vectors learned (the combined index of Yue and Qin 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from analysis.detect.port import Floats
from analysis.detect.recent import RecentVectors

_LIMIT_QUANTILE = 0.99
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _Plane:
    mean: Floats
    scale: Floats
    axes: Floats  # a row a component, divided by the component's own deviation
    plain_axes: Floats
    t2_limit: float
    q_limit: float

    def distances(self, vectors: Floats) -> tuple[Floats, Floats]:
        """T² and Q of rows of vectors."""
        inside = vectors - self.mean
        inside[np.abs(inside) <= _ROUNDING * (np.abs(vectors) + np.abs(self.mean))] = 0.0
        inside /= self.scale
        whole = np.einsum("ij,ij->i", inside, inside)
        along = inside @ self.plain_axes.T
        off = whole - np.einsum("ij,ij->i", along, along)
        off[off < _ROUNDING * whole] = 0.0
        return np.square(inside @ self.axes.T).sum(axis=1), off


class Subspace:
    """Scores vectors of one length; refitted on its `memory` whenever that much of it is new as `refit` says.

    `alike` says that all entries are of one kind (lags of a series) and share a scale; KPIs have one each.
    """

    FIRST_FIT = 150
    REFIT_ROWS = (200, 2_000)
    REFIT_SHARE = 0.1

    def __init__(self, length: int, components: int, memory: int = 2_000, *, alike: bool = False) -> None:
        self._seen = RecentVectors(memory, length)
        self._components = min(components, length)
        self._alike = alike
        self._plane: _Plane | None = None
        self._next_fit = max(self.FIRST_FIT, 2 * length)

    def score_one(self, given: Floats) -> float | None:
        """T² over its limit plus Q over its own; None before the first fit."""
        if self._plane is None:
            return None
        inside, off = self._plane.distances(given[None, :])
        return float(inside[0]) / self._plane.t2_limit + float(off[0]) / self._plane.q_limit

    def learn_one(self, given: Floats) -> None:
        """The memory takes it in, and now and then the plane is fitted again."""
        self._seen.push(given)
        if self._seen.count >= self._next_fit:
            self._plane = self._fitted(self._seen.latest())
            least, most = self.REFIT_ROWS
            self._next_fit += min(max(least, int(self.REFIT_SHARE * self._seen.count)), most)

    def _fitted(self, vectors: Floats) -> _Plane | None:
        scale = np.full(vectors.shape[1], vectors.std()) if self._alike else vectors.std(axis=0)
        mean = vectors.mean(axis=0)
        scale[scale <= _ROUNDING * np.abs(vectors).max(initial=0.0)] = 1.0
        centred = (vectors - mean) / scale
        if np.abs(centred).max(initial=0.0) <= _ROUNDING:  # nothing ever moved: whatever moves is off the plane
            still = np.zeros((self._components, vectors.shape[1]))
            return _Plane(mean, scale, still, still, 1.0, _ROUNDING)
        model = PCA(self._components, svd_solver="covariance_eigh").fit(centred)
        spread = np.sqrt(np.maximum(model.explained_variance_, _ROUNDING))
        axes = model.components_ / spread[:, None]
        inside, off = _Plane(mean, scale, axes, model.components_, 1.0, 1.0).distances(vectors)
        return _Plane(mean, scale, axes, model.components_, _limit(inside), _limit(off))


def _limit(distances: Floats) -> float:
    """A percentile that is never zero: where all are zero, any distance at all is far."""
    return max(float(np.quantile(distances, _LIMIT_QUANTILE)), _ROUNDING)
