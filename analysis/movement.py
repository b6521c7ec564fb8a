"""KPIs that moved: of a class, of a class's slowest tenth, of the network, of a single flow.

Values are paired: only flows that have a value in every window that is compared take part, so the same flows stand on
both sides. May not know verdicts or words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.compare import NOISE_FACTOR, Contrast, contrast
from analysis.kpi import Direction, Kpi, Tolerance

Floats = npt.NDArray[np.float64]

TAIL_QUANTILE = 0.9
TAIL_MINIMUM_FLOWS = 20
PEER_MINIMUM_FLOWS = 10


@dataclass(frozen=True, slots=True)
class Paired:
    """One KPI of the flows that have it in all compared windows: a row a flow, a column a window."""

    kpi: Kpi
    flow_ids: tuple[str, ...]
    baseline: Floats
    after: Floats

    def of(self, members: frozenset[str]) -> Paired:
        """Only these flows."""
        rows = [index for index, flow in enumerate(self.flow_ids) if flow in members]
        return Paired(self.kpi, tuple(self.flow_ids[row] for row in rows), self.baseline[rows], self.after[rows])


@dataclass(frozen=True, slots=True)
class Move:
    """A flow's KPI that is worse after than before; `extreme` when by so much that one flow alone is enough to fail."""

    flow_id: str
    before: float
    after: float
    extreme: bool


def paired(kpi: Kpi, table: pd.DataFrame, baseline: Sequence[int], after: Sequence[int]) -> Paired:
    """Flows with a finite value in every baseline window and any value (also infinite) in every window after.

    `table` is a panel (see `window.panel`) that has all these windows as columns.
    """
    early = table[list(baseline)].to_numpy(dtype="float64")
    late = table[list(after)].to_numpy(dtype="float64")
    keep = np.isfinite(early).all(axis=1) & ~np.isnan(late).any(axis=1)
    return Paired(kpi, tuple(str(flow) for flow in table.index[keep]), early[keep], late[keep])


def of_group(pair: Paired, tolerance: Tolerance) -> Contrast | None:
    """The median flow of the group, before and after; None when too few flows have this KPI.

    A group of two kinds of flows can have a median that jumps between the kinds though no flow moved, so the median
    of the flows' own moves must be beyond the tolerance as well.
    """
    if len(pair.flow_ids) < pair.kpi.minimum_flows:
        return None
    found = contrast(pair.kpi, tolerance, _medians(pair.baseline), _medians(pair.after))
    if not (found.beyond or found.improved):
        return found
    own = np.median(pair.after, axis=1) - np.median(pair.baseline, axis=1)
    worse = own if pair.kpi.direction is Direction.LOWER else -own
    threshold = tolerance.threshold(float(np.median(pair.baseline)))
    typical = float(np.median(worse))
    return replace(found, beyond=found.beyond and typical > threshold, improved=found.improved and -typical > threshold)


def of_tail(pair: Paired, tolerance: Tolerance) -> Contrast | None:
    """The slowest tenth of the group, by the wider of the tail's tolerance and `tolerance`.

    None when the KPI is not judged there or fewer than 20 flows have it.
    """
    if pair.kpi.tail is None or len(pair.flow_ids) < TAIL_MINIMUM_FLOWS:
        return None
    return contrast(pair.kpi, pair.kpi.tail.widened(tolerance), _tails(pair.baseline), _tails(pair.after))


def of_flows(pair: Paired, peers: Paired, tolerance: Tolerance) -> list[Move]:
    """Single flows that are worse in every window after than in every one before, beyond `tolerance` and their noise.

    Extreme: beyond the KPI's own flow tolerance (or `tolerance`, if that is wider), further than any baseline window
    of any peer strayed from that peer's median, and out of the range that its peers had before: with hundreds of
    flows the luckiest one must not fail a run, nor one that a balancer now sends where others always went.
    Peers are the flow's class, or the network where the class has fewer than 10 flows with this KPI.
    """
    if pair.kpi.flow is None or not pair.flow_ids:
        return []
    before, after = np.median(pair.baseline, axis=1), np.median(pair.after, axis=1)
    worse = _worse(pair.kpi, after, before)
    lower = pair.kpi.direction is Direction.LOWER
    separated = (
        pair.after.min(axis=1) > pair.baseline.max(axis=1)
        if lower
        else pair.after.max(axis=1) < pair.baseline.min(axis=1)
    )
    noise = np.abs(pair.baseline - before[:, None]).max(axis=1)
    suspect = separated & (worse > _thresholds(tolerance, before)) & (worse > NOISE_FACTOR * noise)
    strict = pair.kpi.flow.widened(tolerance)
    group = pair if len(pair.flow_ids) >= PEER_MINIMUM_FLOWS else peers
    extreme = suspect & (worse > _thresholds(strict, before)) & (_scaled(pair.kpi, worse, before) > _worst_stray(group))
    if group.flow_ids:
        extreme &= after > group.baseline.max() if lower else after < group.baseline.min()
    if pair.after.shape[1] < 2:
        extreme = np.zeros_like(extreme)
    return [
        Move(pair.flow_ids[row], float(before[row]), float(after[row]), bool(extreme[row]))
        for row in np.flatnonzero(suspect)
    ]


def _worse(kpi: Kpi, after: Floats, before: Floats) -> Floats:
    return after - before if kpi.direction is Direction.LOWER else before - after


def _thresholds(tolerance: Tolerance, before: Floats) -> Floats:
    return np.maximum(tolerance.absolute, tolerance.relative * np.abs(before))


def _scaled(kpi: Kpi, move: Floats, before: Floats) -> Floats:
    """Rates of flows differ by orders of magnitude, so they are held against each other relatively; delays are not."""
    if kpi.direction is Direction.LOWER:
        return move
    return np.divide(move, before, out=np.zeros_like(move), where=before != 0)


def _worst_stray(group: Paired) -> float:
    if not group.flow_ids:
        return 0.0
    middle = np.median(group.baseline, axis=1)
    strays = np.abs(group.baseline - middle[:, None]).max(axis=1)
    return float(_scaled(group.kpi, strays, middle).max())


def _medians(values: Floats) -> list[float]:
    return [float(value) for value in np.median(values, axis=0)]


def _tails(values: Floats) -> list[float]:
    return [float(value) for value in np.quantile(values, TAIL_QUANTILE, axis=0, method="inverted_cdf")]
