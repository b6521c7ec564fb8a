"""Before a run: from a few windows played as is, the smallest effect that so many pairs would find.

The windows that warm a shadow up serve for it: every window is a pair with its neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.kpi import Tolerance
from analysis.pairs.cube import Face, faces
from analysis.pairs.design import Arm, Layout, alphas
from analysis.pairs.hierarchy import Grouping, Level, group_levels
from analysis.pairs.power import Smallest, smallest_effects
from analysis.roster import Roster
from analysis.window import checked

LEAST_WINDOWS = 3
"""Two differences tell a standard deviation badly, one not at all."""


def smallest_beforehand(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    windows: Sequence[int],
    pairs: int,
    seed: int,
    alpha: float = 0.05,
) -> tuple[Smallest, ...]:
    """For every class, slowest tenth and the network, by KPI: what `pairs` pairs would find four times out of five.

    `windows` were played as is, one after the other; the first, which warms up, is better left out. ValueError with
    fewer than three; InvalidTable when a table has not the documented shape.
    """
    if len(windows) < LEAST_WINDOWS:
        raise ValueError(f"found {len(windows)} windows as is, expected at least {LEAST_WINDOWS} to know the noise")
    checked(kpis, flows)
    if flows.empty or kpis.empty:
        return ()
    halves = [list(zip(windows[start::2], windows[start + 1 :: 2], strict=False)) for start in (0, 1)]
    levels = _levels(kpis, flows, tolerances, halves)
    return smallest_effects(levels, pairs, _share(pairs, alpha), seed)


def smallest_of_couples(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    couples: Sequence[tuple[int, int]],
    pairs: int,
    seed: int,
    alpha: float = 0.05,
) -> tuple[Smallest, ...]:
    """As `smallest_beforehand`, from couples of windows played as is at the same time, none in two couples."""
    if len(couples) < LEAST_WINDOWS:
        raise ValueError(f"found {len(couples)} couples of windows, expected at least {LEAST_WINDOWS}")
    levels = _levels(kpis, flows, tolerances, [couples])
    return smallest_effects(levels, pairs, _share(pairs, alpha), seed)


def pair_variance(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    couples: Sequence[tuple[int, int]],
) -> float:
    """How much two windows as is differ, in squares of the margin: the mean over classes, network and essential KPIs.

    Each couple is one pair as a design would play it; a window may be in two that follow one another. NaN when nothing
    can be compared.
    """
    levels = _levels(kpis, flows, tolerances, [couples[0::2], couples[1::2]])
    squares = [
        float(np.nanmean(row**2)) / float(margin) ** 2
        for level in levels
        if level.kpi.essential and not level.tail
        for row, margin in zip(level.block.worse, level.block.margins, strict=True)
        if margin > 0 and np.isfinite(row).any()
    ]
    return float(np.mean(squares)) if squares else float("nan")


def _share(pairs: int, alpha: float) -> float:
    """What of alpha groups have: where they are one family with single flows, those take about half of it."""
    return min(alphas(pairs, alpha)[1], alpha / 2)


def _levels(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    halves: Sequence[Sequence[tuple[int, int]]],
) -> tuple[Level, ...]:
    """Classes and the network by couples of windows; a window may be in one couple of each half."""
    known = [_faces(kpis, flows, couples) for couples in halves if couples]
    joined = list(known[0]) if known else []
    for more in known[1:]:
        others = {face.kpi: face for face in more}
        joined = [_joined(face, others[face.kpi]) for face in joined if face.kpi in others]
    grouping = Grouping.of(Roster.of(flows), [str(flow) for flow in flows["flow_id"]], frozenset())
    return group_levels(joined, grouping, tolerances, floor=LEAST_WINDOWS - 1)


def _faces(kpis: pd.DataFrame, flows: pd.DataFrame, couples: Sequence[tuple[int, int]]) -> tuple[Face, ...]:
    first = {(Arm.AS_IS, pair): early for pair, (early, _) in enumerate(couples)}
    second = {(Arm.CONTROL, pair): late for pair, (_, late) in enumerate(couples)}
    return faces(kpis, flows, Layout(first | second, ()), (Arm.AS_IS, Arm.CONTROL), range(len(couples)))


def _joined(one: Face, other: Face) -> Face:
    before = np.concatenate([one.before, other.before], axis=1)
    after = np.concatenate([one.after, other.after], axis=1)
    return Face(one.kpi, before, after, one.trials)
