"""From flows to classes to the network: what is held against what, as blocks for the sign-flip test.

A class is a service on its path, as the flow table names it. May not know tests, words or verdicts.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.kpi import Kpi, Tolerance, own_bounds
from analysis.movement import TAIL_MINIMUM_FLOWS, TAIL_QUANTILE
from analysis.pairs.cube import Face
from analysis.pairs.margins import Scale, criticality, limits, margins, offset_of, scale_of, scaled, unscaled, worsening
from analysis.pairs.signflip import Block
from analysis.roster import Roster
from analysis.verdict import Scope

Floats = npt.NDArray[np.float64]

NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a hypothesis is about: a flow, a class or the network, and its numbers for people in the KPI's unit.

    `baseline` is the typical value that everything is measured from, `limit` the worst that its tolerance allows, and
    `trials` what its ratio or mean count was taken over.
    """

    scope: Scope
    name: str
    priority: str
    flows: int
    before: float
    after: float
    baseline: float
    limit: float
    trials: float = 1.0


@dataclass(frozen=True, slots=True)
class Level:
    """One KPI of subjects of a kind, with the block that is tested; `tail` is the slowest tenth of a class.

    `offset` belongs to the scale (see `margins.offset_of`).
    """

    kpi: Kpi
    tail: bool
    offset: float
    subjects: tuple[Subject, ...]
    block: Block

    def turned(self) -> Level:
        """The question turned round: whether what came first is worse."""
        return replace(self, block=replace(self.block, worse=-self.block.worse))


@dataclass(frozen=True, slots=True)
class Grouping:
    """Where the flows of the faces belong, row by row; `left_out` flows have a finding of their own."""

    flow_ids: tuple[str, ...]
    classes: Mapping[str, npt.NDArray[np.int64]]
    priorities: tuple[str, ...]
    kept: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, roster: Roster, flow_ids: Sequence[str], left_out: frozenset[str]) -> Grouping:
        """The rows of each class among `flow_ids`."""
        at = {flow: row for row, flow in enumerate(flow_ids)}
        kept = np.array([flow not in left_out for flow in flow_ids], dtype=bool)
        classes = {
            name: np.array([at[flow] for flow in members if kept[at[flow]]], dtype=np.int64)
            for name, members in roster.classes.items()
        }
        priorities = tuple(roster.priority_of[flow] for flow in flow_ids)
        return cls(tuple(flow_ids), {name: rows for name, rows in classes.items() if len(rows)}, priorities, kept)

    def only(self, rows: npt.NDArray[np.bool_]) -> Grouping:
        """The same with no other rows kept than these."""
        return replace(self, kept=self.kept & rows)

    def rows_of(self, classes: Container[str]) -> npt.NDArray[np.bool_]:
        """The rows that belong to one of these classes."""
        found = np.zeros(len(self.flow_ids), bool)
        for name, rows in self.classes.items():
            if name in classes:
                found[rows] = True
        return found

    def priority(self, rows: npt.NDArray[np.int64]) -> str:
        """The highest priority among these rows."""
        present = {self.priorities[row] for row in rows}
        return next(
            (name for name in ("critical", "high") if name in present), "normal" if present != {"low"} else "low"
        )


def flow_levels(
    faces: Sequence[Face], grouping: Grouping, tolerances: Mapping[str, Tolerance], floor: int
) -> tuple[Level, ...]:
    """Every flow that has the KPI in at least `floor` pairs; only KPIs that have a tolerance here are judged."""
    levels = []
    for face in faces:
        kpi = face.kpi
        if kpi.name not in tolerances:
            continue
        tolerance = tolerances[kpi.name]
        comparable = face.comparable
        rows = np.flatnonzero((comparable.sum(axis=1) >= floor) & grouping.kept)
        use, trials = comparable[rows], face.trials[rows][:, None]
        offset = offset_of(kpi, tolerance)
        before, after = (scaled(kpi, values[rows], trials, offset) for values in (face.before, face.after))
        worse = np.where(use, worsening(kpi, after, before), np.nan)
        base = _typical(kpi, face.before[rows], use, offset)
        ranks = [criticality(grouping.priorities[row]) for row in rows]
        width = np.array([rank.margin for rank in ranks])
        now = _middle(face.after[rows])
        was = _middle(face.before[rows])
        edges = limits(kpi, tolerance, base, width)
        distances = margins(kpi, tolerance, base, width, face.trials[rows])
        block = Block(worse, distances, np.array([rank.multiplier for rank in ranks]))
        subjects = tuple(
            Subject(Scope.FLOW, grouping.flow_ids[row], grouping.priorities[row], 1, *numbers)
            for row, *numbers in zip(
                rows, *(column.tolist() for column in (was, now, base, edges, face.trials[rows])), strict=True
            )
        )
        levels.append(_finite(Level(kpi, False, offset, subjects, block)))
    return tuple(level for level in levels if level.subjects)


def group_levels(
    faces: Sequence[Face], grouping: Grouping, tolerances: Mapping[str, Tolerance], floor: int
) -> tuple[Level, ...]:
    """Every class and the network per KPI, and the slowest tenth of classes of 20 flows or more.

    What is held to a bound of its own is a level of its own, and has no part in the network.
    """
    groups = [_Group(Scope.CLASS, name, grouping.priority(rows), rows) for name, rows in grouping.classes.items()]
    weights = np.array([criticality(priority).share for priority in grouping.priorities])
    levels = []
    for face in faces:
        kpi = face.kpi
        tolerance = tolerances.get(kpi.name, kpi.tolerance)
        view = _View(face, face.comparable, weights, _middle(face.before), _middle(face.after))
        bounds = own_bounds(tolerances, kpi.name)
        network = _Group(Scope.NETWORK, NETWORK, "normal", np.flatnonzero(grouping.kept & ~grouping.rows_of(bounds)))
        usual = [group for group in groups if group.name not in bounds]
        parts = [(tolerance, [*usual, network], usual)]
        for group in groups:
            if group.name in bounds:
                # a declared bound is taken at its word, however critical
                plain = replace(group, literal=True)
                parts.append((bounds[group.name], [plain], [plain]))
        for allowed, members, of_tails in parts:
            levels.append(_level(view, False, allowed, floor, members))
            if kpi.tail is not None:
                large = [group for group in of_tails if len(group.rows) >= TAIL_MINIMUM_FLOWS]
                levels.append(_level(view, True, kpi.tail.widened(allowed), floor, large))
    return tuple(level for level in levels if level.subjects)


@dataclass(frozen=True, slots=True)
class _Group:
    scope: Scope
    name: str
    priority: str
    rows: npt.NDArray[np.int64]
    literal: bool = False


@dataclass(frozen=True, slots=True)
class _View:
    """A face with what all its groups need: where it can be compared, flows' weights, their medians for people."""

    face: Face
    comparable: npt.NDArray[np.bool_]
    weights: Floats
    was: Floats
    now: Floats


def _level(view: _View, tail: bool, tolerance: Tolerance, floor: int, groups: Sequence[_Group]) -> Level:
    series, subjects, distances, multipliers = [], [], [], []
    face, offset = view.face, offset_of(view.face.kpi, tolerance)
    for group in groups:
        flows = view.comparable[group.rows].any(axis=1)
        rows = group.rows[flows]
        if tail and len(rows) < TAIL_MINIMUM_FLOWS:
            continue
        use = view.comparable[rows]
        if int(use.any(axis=0).sum()) < floor:
            continue
        worse, base, was, now, trials = (_tail if tail else _whole)(view, rows, use, offset)
        rank = criticality(group.priority)
        series.append(worse)
        width = 1.0 if group.literal else rank.margin
        edge = float(limits(face.kpi, tolerance, np.array(base), width))
        subjects.append(Subject(group.scope, group.name, group.priority, len(rows), was, now, base, edge, trials))
        distances.append(float(margins(face.kpi, tolerance, np.array(base), width, trials)))
        multipliers.append(rank.multiplier)
    block = Block(
        np.array(series).reshape(len(series), face.before.shape[1]), np.array(distances), np.array(multipliers)
    )
    return _finite(Level(face.kpi, tail, offset, tuple(subjects), block))


_Series = tuple[Floats, float, float, float, float]
"""How much worse in each pair; the baseline; before and after for people; trials."""


def _whole(view: _View, rows: npt.NDArray[np.int64], use: npt.NDArray[np.bool_], offset: float) -> _Series:
    """Ratios and counts are pooled over the flows of a window; else the mean of the flows' own differences is taken."""
    face, kpi, weights = view.face, view.face.kpi, view.weights[rows]
    before, after = face.before[rows], face.after[rows]
    if scale_of(kpi) is Scale.LOG:
        late, early = (scaled(kpi, values, 1.0, offset) for values in (after, before))
        worse = _share(np.where(use, worsening(kpi, late, early), 0.0), use, weights)
        base = scaled(kpi, _typical(kpi, before, use, offset), 1.0, offset)
        middle = float(unscaled(kpi, np.asarray(np.average(base, weights=weights)), 1.0, offset))
        return worse, middle, _median(view.was[rows]), _median(view.now[rows]), 1.0
    trials = face.trials[rows] if scale_of(kpi) is Scale.LOG_ODDS else np.ones(len(rows))
    early, late = (_share(np.where(use, values, 0.0), use, trials) for values in (before, after))
    pooled = (use * trials[:, None]).sum(axis=0)
    worse = worsening(kpi, scaled(kpi, late, np.maximum(pooled, 1)), scaled(kpi, early, np.maximum(pooled, 1)))
    was, now = float(np.nanmean(early)), float(np.nanmean(late))
    return worse, was, was, now, float(np.median(pooled[pooled > 0]))


def _tail(view: _View, rows: npt.NDArray[np.int64], use: npt.NDArray[np.bool_], offset: float) -> _Series:
    face, full = view.face, use.all(axis=0)
    edges = []
    for values in (face.before[rows], face.after[rows]):
        masked = np.where(use, values, np.nan)
        edge = np.full(masked.shape[1], np.nan)
        measured = use.any(axis=0)
        if full.all():
            edge = np.quantile(masked, TAIL_QUANTILE, axis=0, method="inverted_cdf")
        else:
            edge[measured] = [
                np.quantile(column[~np.isnan(column)], TAIL_QUANTILE, method="inverted_cdf")
                for column in masked[:, measured].T
            ]
        edges.append(edge)
    early, late = edges
    worse = worsening(face.kpi, scaled(face.kpi, late, 1.0, offset), scaled(face.kpi, early, 1.0, offset))
    was = _median(early)
    return worse, was, was, _median(late), 1.0


def _share(values: Floats, use: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """The weighted mean over flows, pair by pair; NaN where no flow was measured."""
    total = (use * weights[:, None]).sum(axis=0)
    return np.asarray(
        np.divide((values * weights[:, None]).sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)
    )


def _typical(kpi: Kpi, values: Floats, use: npt.NDArray[np.bool_], offset: float) -> Floats:
    """A flow's baseline over its compared windows: the mean on the logarithmic scale, else the plain one."""
    counts = np.maximum(use.sum(axis=1), 1)
    if scale_of(kpi) is Scale.LOG:
        places = np.where(use, scaled(kpi, values, 1.0, offset), 0.0).sum(axis=1) / counts
        return unscaled(kpi, places, 1.0, offset)
    return np.asarray(np.where(use, values, 0.0).sum(axis=1) / counts)


def _median(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


def _middle(values: Floats) -> Floats:
    """Row medians without what was not measured; infinite counts."""
    if not len(values):
        return np.zeros(0)
    if not np.isnan(values).any():
        return np.asarray(np.median(values, axis=1))
    return np.array([np.median(row[~np.isnan(row)]) if not np.isnan(row).all() else np.nan for row in values])


def _finite(level: Level) -> Level:
    """Without hypotheses whose margin is infinite: the KPI cannot worsen that far."""
    keep = np.flatnonzero(np.isfinite(level.block.margins))
    if len(keep) == len(level.subjects):
        return level
    block = Block(level.block.worse[keep], level.block.margins[keep], level.block.multipliers[keep])
    return replace(level, subjects=tuple(level.subjects[at] for at in keep), block=block)
