"""Windows: their roles, which of them count, and the KPI table turned into flow × window panels.

May not know what is judged from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from analysis.kpi import KPIS
from analysis.verdict import Json, json_number


class Role(StrEnum):
    """What a window is for."""

    WARMUP = "warmup"
    BASELINE = "baseline"
    TRANSITION = "transition"
    TREATMENT = "treatment"
    RESTORED = "restored"


class InvalidTable(ValueError):
    """A table that crosses the seam does not have the documented shape."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """A window that does not count, and why."""

    window: int
    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The windows that count before and after the change, and those that do not."""

    baseline: tuple[int, ...]
    after: tuple[int, ...]
    excluded: tuple[Excluded, ...]


REQUIRED_KPI_COLUMNS = frozenset({"window", "role", "flow_id", "completed", "error", "as_expected"})
REQUIRED_FLOW_COLUMNS = frozenset({"flow_id", "flow_class", "priority"})


def checked(kpis: pd.DataFrame, flows: pd.DataFrame) -> None:
    """Raise InvalidTable when a column is missing or a flow has two rows where one belongs; empty tables are fine."""
    for name, table, required in (("kpis", kpis, REQUIRED_KPI_COLUMNS), ("flows", flows, REQUIRED_FLOW_COLUMNS)):
        missing = sorted(required - set(table.columns))
        if missing and not table.empty:
            raise InvalidTable(f"{name}: found columns {sorted(map(str, table.columns))}, expected also {missing}")
    if not kpis.empty and bool(kpis.duplicated(["flow_id", "window"]).any()):
        twice = kpis[kpis.duplicated(["flow_id", "window"])].iloc[0]
        raise InvalidTable(f"kpis: found flow {twice['flow_id']} twice in window {twice['window']}, expected once")
    if not flows.empty and bool(flows.duplicated(["flow_id"]).any()):
        raise InvalidTable(f"flows: found flow {flows[flows.duplicated(['flow_id'])].iloc[0]['flow_id']} twice")


def windows_of(kpis: pd.DataFrame, role: Role) -> tuple[int, ...]:
    """The numbers of the windows that have this role, in order."""
    if kpis.empty:
        return ()
    return tuple(sorted({int(window) for window in kpis.loc[kpis["role"] == role.value, "window"]}))


def selected(kpis: pd.DataFrame, instruments: Sequence[Mapping[str, object]], after: Role) -> Selection:
    """Which baseline and `after` windows count: those whose instrument record says `valid`.

    `instruments` has one mapping a window with `window`, `valid` and `reason`; a window without a record is excluded,
    because an instrument that said nothing cannot be trusted.
    """
    records = {record["window"]: record for record in instruments}
    counted: dict[Role, list[int]] = {Role.BASELINE: [], after: []}
    excluded: list[Excluded] = []
    for role, numbers in counted.items():
        for window in windows_of(kpis, role):
            record = records.get(window)
            if record is None:
                excluded.append(Excluded(window, role, "no instrument record"))
            elif not record.get("valid", False):
                excluded.append(Excluded(window, role, str(record.get("reason") or "no reason given")))
            else:
                numbers.append(window)
    return Selection(tuple(counted[Role.BASELINE]), tuple(counted[after]), tuple(excluded))


def panel(kpis: pd.DataFrame, column: str, windows: Sequence[int]) -> pd.DataFrame:
    """One KPI as float64, a row a flow and a column a window; NaN where it was not measured."""
    chosen = kpis[kpis["window"].isin(list(windows))]
    table = chosen.pivot(index="flow_id", columns="window", values=column)
    return table.reindex(columns=list(windows)).astype("float64")


def summary(kpis: pd.DataFrame, instruments: Sequence[Mapping[str, object]]) -> list[dict[str, Json]]:
    """The `windows` list of `verdict.json`: per window its role, counts and network median of every KPI.

    `started` (text) and `seconds` are taken over from the instrument record when it has them. Medians are over the
    flows that have a value; infinite is "Infinity".
    """
    if kpis.empty:
        return []
    records = {record["window"]: record for record in instruments}
    rows: list[dict[str, Json]] = []
    for key, part in kpis.groupby("window", sort=True):
        window = int(str(key))
        record = records.get(window, {})
        seconds = record.get("seconds")
        started = record.get("started")
        medians: dict[str, Json] = {}
        for name in KPIS:
            if name in part.columns:
                values = part[name].to_numpy(dtype="float64")
                values = values[~np.isnan(values)]
                medians[name] = json_number(float(np.median(values))) if values.size else None
        rows.append(
            {
                "window": window,
                "role": str(part["role"].iloc[0]),
                "started": None if started is None else str(started),
                "seconds": json_number(float(seconds)) if isinstance(seconds, int | float) else None,
                "flows": len(part),
                "completed": int(part["completed"].astype(bool).sum()),
                "as_expected": int(part["as_expected"].astype(bool).sum()),
                "kpis": medians,
            }
        )
    return rows
