"""Matched packets to the kpis table: a row a flow, in the same columns as session mode, and a row a reason.

Pure. Names follow IPPM (RFC 7679, 7680, 3393, 4737). What packets alone cannot tell (a connect time, a response time,
goodput) is NaN; a lost packet's delay is infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from replay.columns import Int64
from replay.kpis import KPI_COLUMNS
from replay.packet_mode.flows import packed_address
from replay.packet_mode.losses import ARRIVED, BY_NETWORK, reasons
from replay.packet_mode.match import UNSEEN, Matched, matched, reordered
from replay.packet_mode.plan import PacketPlan
from replay.packet_mode.player import PacketResult

_PDV_FROM_SAMPLES = 3
_PDV_QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class PacketKpis:
    """One window of packet mode: `kpis`, a row a flow; `packets`, a row a flow and direction; `reasons` by count.

    `packets`: flow_id, direction, planned, sent, arrived, lost_by_network, lost_by_method, reordered_ratio (RFC 4737),
    duplicates, one_way_delay_ns (median), pdv_ns. `reasons` has every reason why a packet did not arrive.
    """

    kpis: pd.DataFrame
    packets: pd.DataFrame
    reasons: Mapping[str, int]


def packet_kpis(
    plan: PacketPlan,
    result: PacketResult,
    taps: Mapping[str, Path],
    tap_drops: Mapping[str, int],
    run_id: str,
    window: int,
    role: str,
) -> PacketKpis:
    """What one window's packets met between their end points' taps."""
    found = matched(plan, result.program, taps)
    late = _lateness(result, found.passages)
    told = found.passages.assign(
        reason=reasons(found.passages, result.program, result.fate, tap_drops),
        reordered=reordered(found.passages),
        sent=result.left_ns > 0,
        lateness_ns=np.maximum(late, 0),
    )
    told["delay_ns"] = _delays(told)
    by_direction = _by_direction(plan, told)
    counts = {str(reason): int(n) for reason, n in told["reason"][told["reason"] != ARRIVED].value_counts().items()}
    for reasons_left in (plan.unsent, _left_out(result)):
        for reason, count in reasons_left.items():
            counts[reason] = counts.get(reason, 0) + count
    return PacketKpis(_rows(plan, result, told, by_direction, found, (run_id, window, role)), by_direction, counts)


def _lateness(result: PacketResult, passages: pd.DataFrame) -> Int64:
    """How late each frame left; by the sending tap, from the first one on, where the sender does not tell."""
    due = result.program.due_ns
    if result.stamped:
        return np.asarray(result.left_ns - result.started_ns - due, np.int64)
    moved = passages["sent_ns"].to_numpy(dtype=np.int64) - due
    tapped = passages["sent_ns"].to_numpy() != UNSEEN
    return np.where(tapped, moved - moved[tapped].min(initial=moved.max(initial=0)), 0)


def _delays(told: pd.DataFrame) -> pd.Series[float]:
    """One-way delays: infinite where the network lost the packet, NaN where the method did or no tap saw it leave."""
    arrived, tapped = told["arrived_ns"] != UNSEEN, told["sent_ns"] != UNSEEN
    delay = (told["arrived_ns"] - told["sent_ns"]).astype("float64")
    return delay.where(arrived & tapped).mask(told["reason"].isin(list(BY_NETWORK)), np.inf)


def _by_direction(plan: PacketPlan, told: pd.DataFrame) -> pd.DataFrame:
    told = told.assign(
        came=told["reason"] == ARRIVED,
        by_network=told["reason"].isin(list(BY_NETWORK)),
        finite_ns=told["delay_ns"].where(np.isfinite(told["delay_ns"])),
    )
    grouped = told.groupby(["flow", "direction"], sort=True)
    table = pd.DataFrame(
        {
            "planned": grouped.size(),
            "sent": grouped["sent"].sum(),
            "arrived": grouped["came"].sum(),
            "lost_by_network": grouped["by_network"].sum(),
            "duplicates": grouped["duplicates"].sum(),
            "one_way_delay_ns": grouped["delay_ns"].median(),
        }
    )
    table["lost_by_method"] = table["planned"] - table["arrived"] - table["lost_by_network"]
    table["reordered_ratio"] = (grouped["reordered"].sum() / table["arrived"]).where(table["arrived"] > 0)
    excess = grouped["finite_ns"].quantile(_PDV_QUANTILE) - grouped["finite_ns"].min()
    table["pdv_ns"] = excess.where(grouped["finite_ns"].count() >= _PDV_FROM_SAMPLES)
    table = table.reset_index()
    names = plan.flows["flow_id"].to_numpy(dtype=object)
    table.insert(0, "flow_id", pd.Series(names[table["flow"].to_numpy(dtype=np.int64)], dtype="str"))
    return table


def _rows(
    plan: PacketPlan,
    result: PacketResult,
    told: pd.DataFrame,
    by_direction: pd.DataFrame,
    found: Matched,
    window: tuple[str, int, str],
) -> pd.DataFrame:
    unplayable = {flow_id for flow_id, _ in plan.unplayable}
    flows = plan.flows[~plan.flows["flow_id"].isin(list(unplayable))]
    table = pd.DataFrame({"flow_id": flows["flow_id"].astype(str)})
    number = pd.Series(flows.index, index=flows.index)
    per_flow = told.groupby("flow")
    sides = by_direction.set_index(["direction", "flow"])
    forward, reverse = (sides.loc[way] if way in sides.index.get_level_values(0) else None for way in (0, 1))
    for name, side in (("forward", forward), ("reverse", reverse)):
        values = number.map(side["one_way_delay_ns"]) if side is not None else np.nan
        table[f"one_way_delay_{name}_ns"] = pd.Series(values, index=table.index, dtype="float64")
    arrived = pd.concat(
        [
            number.map(side["arrived"]) if side is not None else pd.Series(np.nan, index=number.index)
            for side in (forward, reverse)
        ],
        axis=1,
    )
    table["completed"] = arrived.notna().any(axis=1) & ((arrived > 0) | arrived.isna()).all(axis=1)
    sent = number.map(per_flow["sent"].sum()).fillna(0)
    table["error"] = _errors(flows, table["completed"], sent, found)
    table["as_expected"] = np.where(flows["outcome"] == "denied", ~table["completed"], table["completed"])
    stamps = told["sent_ns"].where(told["sent_ns"] != UNSEEN)
    first = number.map(stamps.groupby(told["flow"]).min())
    table["started_ns"] = first.fillna(result.started_ns).astype("int64")
    table["lateness_ns"] = number.map(per_flow["lateness_ns"].max()).fillna(0).astype("int64")
    totals = by_direction.groupby("flow")[["arrived", "lost_by_network"]].sum()
    offered = totals["arrived"] + totals["lost_by_network"]
    table["loss_ratio"] = number.map((totals["lost_by_network"] / offered).where(offered > 0)).astype("float64")
    table["pdv_ns"] = number.map(by_direction.groupby("flow")["pdv_ns"].max()).astype("float64")
    table["retransmits"] = 0
    came = told[told["reason"] == ARRIVED]
    table["delivered_octets"] = number.map(came.groupby("flow")["octets"].sum()).fillna(0).astype("int64")
    last = number.map(told["arrived_ns"].where(told["arrived_ns"] != UNSEEN).groupby(told["flow"]).max())
    table["duration_ns"] = (last - first).astype("float64")
    table["run_id"], table["window"], table["role"] = window
    table["path"] = ""
    return table.reindex(columns=list(KPI_COLUMNS)).reset_index(drop=True)


def _errors(flows: pd.DataFrame, completed: pd.Series[bool], sent: pd.Series[int], found: Matched) -> list[str]:
    """none, not_started (nothing left), unreachable (a router said so), or timeout (nobody said why)."""
    columns = ("source_address", "destination_address", "protocol")
    errors = []
    for done, left, (source, destination, protocol) in zip(
        completed, sent, zip(*(flows[name].tolist() for name in columns), strict=True), strict=True
    ):
        if done:
            errors.append("none")
        elif not left:
            errors.append("not_started")
        elif source and (packed_address(source), packed_address(destination), int(protocol)) in found.unreachable:
            errors.append("unreachable")
        else:
            errors.append("timeout")
    return errors


def _left_out(result: PacketResult) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _, reason in result.program.left_out:
        counts[reason] = counts.get(reason, 0) + 1
    return counts
