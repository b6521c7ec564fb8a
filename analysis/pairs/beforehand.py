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
from analysis.pairs.hierarchy import Grouping, group_levels
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
    neighbours = [_neighbours(kpis, flows, windows[start:]) for start in (0, 1)]
    others = {face.kpi: face for face in neighbours[1]}
    joined = [_joined(face, others[face.kpi]) for face in neighbours[0] if face.kpi in others]
    roster = Roster.of(flows)
    grouping = Grouping.of(roster, [str(flow) for flow in flows["flow_id"]], frozenset())
    levels = group_levels(joined, grouping, tolerances, floor=LEAST_WINDOWS - 1)
    return smallest_effects(levels, pairs, alphas(pairs, alpha)[1], seed)


def _neighbours(kpis: pd.DataFrame, flows: pd.DataFrame, windows: Sequence[int]) -> tuple[Face, ...]:
    """Each window with the next, none twice."""
    couples = list(zip(windows[::2], windows[1::2], strict=False))
    first = {(Arm.AS_IS, pair): early for pair, (early, _) in enumerate(couples)}
    second = {(Arm.CONTROL, pair): late for pair, (_, late) in enumerate(couples)}
    return faces(kpis, flows, Layout(first | second, ()), (Arm.AS_IS, Arm.CONTROL), range(len(couples)))


def _joined(one: Face, other: Face) -> Face:
    before = np.concatenate([one.before, other.before], axis=1)
    after = np.concatenate([one.after, other.after], axis=1)
    return Face(one.kpi, before, after, one.trials)
