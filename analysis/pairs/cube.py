"""The KPI table as arrays: per KPI a number a flow and a pair, for two arms that are compared.

May not know margins, tests or verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.disposition import AS_EXPECTED, NOT_STARTED
from analysis.kpi import KPIS, Kpi
from analysis.pairs.design import Arm, Layout
from analysis.pairs.margins import TRIALS_UNKNOWN, Scale, scale_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Face:
    """One KPI of every flow in two arms of the same pairs: a row a flow, a column a pair, in the KPI's unit.

    NaN was not measured; an infinite delay is one that never came. `trials` is what a flow's ratio is a share of.
    """

    kpi: Kpi
    before: Floats
    after: Floats
    trials: Floats

    @property
    def comparable(self) -> npt.NDArray[np.bool_]:
        """Where both arms have a number: what one of them lacks says nothing about the KPI, only about the ending."""
        return np.asarray(np.isfinite(self.before) & np.isfinite(self.after))


def faces(
    kpis: pd.DataFrame, flows: pd.DataFrame, layout: Layout, arms: tuple[Arm, Arm], pairs: Sequence[int]
) -> tuple[Face, ...]:
    """Every judged KPI that the table has a number of; flows in the order of the flow table.

    `flows` may have `forward_packets` and `reverse_packets`: they are the trials of loss.
    """
    index = pd.Index(flows["flow_id"].astype(str))
    slots = {layout.windows[arm, pair]: (side, at) for side, arm in enumerate(arms) for at, pair in enumerate(pairs)}
    chosen = kpis[kpis["window"].isin(list(slots))]
    row = index.get_indexer(pd.Index(chosen["flow_id"].astype(str)))
    chosen, row = chosen[row >= 0], row[row >= 0]
    windows = chosen["window"].to_numpy()
    known, place = np.unique(windows, return_inverse=True)
    side = np.array([slots[int(window)][0] for window in known], dtype=np.int64)[place]
    at = np.array([slots[int(window)][1] for window in known], dtype=np.int64)[place]
    packets = _packets(flows)
    found = []
    for kpi, values in _columns(chosen).items():
        both = np.full((2, len(index), len(pairs)), np.nan)
        both[side, row, at] = values
        if not np.isnan(both).all():
            trials = np.ones(len(index)) if kpi is AS_EXPECTED or scale_of(kpi) is not Scale.LOG_ODDS else packets
            found.append(Face(kpi, both[0], both[1], trials))
    return tuple(found)


def _columns(chosen: pd.DataFrame) -> Mapping[Kpi, Floats]:
    columns = {kpi: chosen[kpi.name].to_numpy(dtype="float64") for kpi in KPIS.values() if kpi.name in chosen.columns}
    ended = chosen["as_expected"].astype(bool).to_numpy(dtype="float64")
    columns[AS_EXPECTED] = np.where((chosen["error"] == NOT_STARTED).to_numpy(), np.nan, ended)
    return columns


def _packets(flows: pd.DataFrame) -> Floats:
    if not {"forward_packets", "reverse_packets"} <= set(flows.columns):
        return np.full(len(flows), TRIALS_UNKNOWN)
    total = flows["forward_packets"].to_numpy(dtype="float64") + flows["reverse_packets"].to_numpy(dtype="float64")
    return np.where(total >= 1, total, TRIALS_UNKNOWN)
