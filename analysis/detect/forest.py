"""An isolation forest over a vector of features: what few cuts set apart is odd (Liu, Ting and Zhou 2008).

scikit-learn grows the trees; one vector at a time is scored here, because scikit-learn's own call takes milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import IsolationForest

from analysis.detect.port import Floats
from analysis.detect.recent import RecentVectors

Integers = npt.NDArray[np.int64]

_EULER = 0.5772156649015329
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class _Trees:
    """All trees in one table, a row a node; a leaf is its own child, so that every walk may take equally many steps."""

    roots: Integers
    children: Integers  # two columns: where not above the threshold, where above
    feature: Integers
    threshold: Floats
    path: Floats
    steps: int
    usual_path: float

    @classmethod
    def of(cls, forest: IsolationForest) -> _Trees:
        roots, children, feature, threshold, path = [], [], [], [], []
        first = deepest = 0
        for estimator in forest.estimators_:
            tree = estimator.tree_
            here = np.arange(tree.node_count)
            leaf = tree.children_left < 0
            left = np.where(leaf, here, tree.children_left)
            right = np.where(leaf, here, tree.children_right)
            depth = np.zeros(tree.node_count)
            for node in range(tree.node_count):  # parents come before their children
                if not leaf[node]:
                    depth[[left[node], right[node]]] = depth[node] + 1
            roots.append(first)
            children.append(np.stack([left, right], axis=1) + first)
            feature.append(np.where(leaf, 0, tree.feature))
            threshold.append(np.where(leaf, np.inf, tree.threshold))
            path.append(depth + _mean_path(tree.n_node_samples))
            first += tree.node_count
            deepest = max(deepest, int(depth.max()))
        return cls(
            np.array(roots, np.int64),
            np.concatenate(children).astype(np.int64),
            np.concatenate(feature).astype(np.int64),
            np.concatenate(threshold),
            np.concatenate(path),
            deepest,
            float(_mean_path(np.array([forest.max_samples_]))[0]),
        )

    def score(self, vector: Floats) -> float:
        """From 0 to 1: 2 to the minus mean path over the usual path."""
        single = np.clip(vector, -_LARGEST, _LARGEST).astype(np.float32).astype(np.float64)
        nodes = self.roots
        for _ in range(self.steps):
            above = single[self.feature[nodes]] > self.threshold[nodes]
            nodes = self.children[nodes, above.view(np.int8)]
        return float(2.0 ** (-self.path[nodes].mean() / self.usual_path))


class Forest:
    """Scores vectors of one length; grown anew on its `memory` whenever what came has grown by a quarter."""

    TREES = 50
    SAMPLES = 200
    REFIT_ROWS = (400, 4_000)
    REFIT_SHARE = 0.25

    def __init__(self, length: int, seed: int, memory: int = 4_000) -> None:
        self._seen = RecentVectors(memory, length)
        self._seed = seed
        self._trees: _Trees | None = None
        self._next_fit = self.SAMPLES

    def score_one(self, given: Floats) -> float | None:
        """How soon it is set apart; None before the first forest."""
        return None if self._trees is None else self._trees.score(given)

    def learn_one(self, given: Floats) -> None:
        """The memory takes it in, and now and then the forest is grown again."""
        self._seen.push(given)
        if self._seen.count >= self._next_fit:
            known = np.clip(self._seen.latest(), -_LARGEST, _LARGEST)
            forest = IsolationForest(n_estimators=self.TREES, max_samples=self.SAMPLES, random_state=self._seed)
            self._trees = _Trees.of(forest.fit(known))
            least, most = self.REFIT_ROWS
            self._next_fit += min(max(least, int(self.REFIT_SHARE * self._seen.count)), most)


def _mean_path(samples: npt.NDArray[np.generic]) -> Floats:
    """Mean depth of an unsuccessful search in a binary tree of so many samples: what a leaf stands for."""
    count = np.asarray(samples, dtype=np.float64)
    more = np.maximum(count, 2.0)
    return np.where(count > 2, 2 * (np.log(more - 1) + _EULER) - 2 * (more - 1) / more, np.where(count == 2, 1.0, 0.0))
