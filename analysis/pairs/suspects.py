"""Triage: which flows to look at first. A list of suspects decides nothing; the label says so wherever it is shown.

Two views: per flow and KPI a paired t-test with Benjamini and Hochberg's q-values, and per flow an isolation forest
over all its KPIs at once, its scores ranked among those of A' against A (conformal p-values; Bates and others 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.pairs.cube import Face
from analysis.pairs.margins import offset_of, scaled, worsening
from analysis.verdict import Json

Floats = npt.NDArray[np.float64]

Q_LIMIT = 0.1
LABEL = "triage, not gating"
LEAST_CALIBRATION = 20
"""With fewer flows to calibrate on, the rank of a score says too little: no note is made."""
_TREES = 100


@dataclass(frozen=True, slots=True)
class Suspect:
    """A flow whose KPI moved more than chance would move it, at a false discovery rate of 10 %."""

    flow_id: str
    kpi: str
    q_value: float

    def to_json(self) -> dict[str, Json]:
        """As in the document's list of suspects."""
        return {"flow_id": self.flow_id, "kpi": self.kpi, "q_value": float(f"{self.q_value:.6g}"), "label": LABEL}


@dataclass(frozen=True, slots=True)
class Odd:
    """A flow whose KPIs together moved as no flow's do between two windows as is; `p_value` is conformal."""

    flow_id: str
    p_value: float
    q_value: float

    def to_json(self) -> dict[str, Json]:
        """As in the document's list of odd flows."""
        return {
            "flow_id": self.flow_id,
            "p_value": float(f"{self.p_value:.6g}"),
            "q_value": float(f"{self.q_value:.6g}"),
            "label": LABEL,
        }


def suspects(faces: Sequence[Face], flow_ids: Sequence[str], floor: int) -> tuple[Suspect, ...]:
    """Flows that are worse in B than in A, surest first; every KPI of every flow with `floor` pairs is looked at."""
    names: list[tuple[str, str]] = []
    values: list[Floats] = []
    for face in faces:
        change, counts = _changes(face)
        rows = np.flatnonzero(counts >= floor)
        names += [(flow_ids[int(row)], face.kpi.name) for row in rows]
        values.append(_one_sided(change[rows], counts[rows]))
    p = np.concatenate(values) if values else np.zeros(0)
    if not len(p):
        return ()
    q = stats.false_discovery_control(p)
    chosen = sorted((float(q[at]), *names[at]) for at in np.flatnonzero(q <= Q_LIMIT))
    return tuple(Suspect(flow, kpi, value) for value, flow, kpi in chosen)


def odd_flows(faces: Sequence[Face], controls: Sequence[Face], flow_ids: Sequence[str], seed: int) -> tuple[Odd, ...]:
    """Flows whose vector of changes A to B is stranger than those A to A'; a forest is grown on half of the latter."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415  a second of import that only this note needs

    moved, known = (
        _vectors(faces, [face.kpi.name for face in controls]),
        _vectors(controls, [f.kpi.name for f in faces]),
    )
    seen = np.flatnonzero(np.abs(known).sum(axis=1) > 0)
    if len(seen) < 2 * LEAST_CALIBRATION or not known.shape[1]:
        return ()
    seen = np.random.default_rng(seed).permutation(seen)
    grown, ranked = known[seen[::2]], known[seen[1::2]]
    forest = IsolationForest(n_estimators=_TREES, random_state=seed, n_jobs=1).fit(grown)
    usual = np.sort(-forest.score_samples(ranked))
    score = -forest.score_samples(moved)
    p = (1 + len(usual) - np.searchsorted(usual, score)) / (1 + len(usual))
    q = stats.false_discovery_control(p)
    chosen = sorted((float(q[at]), float(p[at]), flow_ids[int(at)]) for at in np.flatnonzero(q <= Q_LIMIT))
    return tuple(Odd(flow, own, value) for value, own, flow in chosen)


def _changes(face: Face) -> tuple[Floats, npt.NDArray[np.int64]]:
    trials = face.trials[:, None]
    offset = offset_of(face.kpi, face.kpi.tolerance)
    late, early = (scaled(face.kpi, values, trials, offset) for values in (face.after, face.before))
    change = worsening(face.kpi, late, early)
    return np.where(face.comparable, change, 0.0), np.asarray(face.comparable.sum(axis=1), dtype=np.int64)


def _one_sided(change: Floats, counts: npt.NDArray[np.int64]) -> Floats:
    """p of a one-sided paired t-test, row by row; 1 where nothing moved.

    Missing pairs hold 0, so sums count only what was measured.
    """
    mean = change.sum(axis=1) / counts
    freedom = counts - 1
    variance = np.maximum((change**2).sum(axis=1) - counts * mean**2, 0.0) / freedom
    error = np.sqrt(variance / counts)
    still = np.abs(mean) < 1e-12
    statistic = np.divide(mean, error, out=np.where(mean > 0, np.inf, -np.inf), where=error > 1e-12)
    return np.asarray(np.where(still, 1.0, stats.t.sf(statistic, freedom)))


def _vectors(faces: Sequence[Face], also: Sequence[str]) -> Floats:
    """A row a flow, a column a KPI that both comparisons have: the mean change, 0 where not measured."""
    columns = []
    for face in faces:
        if face.kpi.name in also:
            change, counts = _changes(face)
            columns.append(change.sum(axis=1) / np.maximum(counts, 1))
    return np.array(columns).T if columns else np.zeros((len(faces[0].before) if faces else 0, 0))
