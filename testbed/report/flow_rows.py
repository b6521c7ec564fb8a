"""The flows that were affected, a row each: who, how it ended before and after.

May not know HTML or how findings came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.words import quantity
from testbed.store import RunDirectory
from testbed.verdict_file import VerdictFile

LIMIT = 2000
_PROTOCOLS: Mapping[object, str] = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_RANK = {"critical": 0, "high": 1, "normal": 2, "low": 3}


@dataclass(frozen=True, slots=True)
class FlowRow:
    """One affected flow."""

    flow_id: str
    flow_class: str
    priority: str
    rank: int
    protocol: str
    source: str
    destination: str
    label: str
    before: str
    after: str
    error: str
    severity: str


def flow_rows(run: RunDirectory, verdict: VerdictFile) -> tuple[tuple[FlowRow, ...], int]:
    """The flows of all FAIL and WARN findings, worst first, and how many beyond the limit were left out."""
    severity: dict[str, str] = {}
    for finding in verdict.findings:
        if finding.verdict != "INFO":
            for flow in finding.flows:
                severity.setdefault(flow, finding.verdict)
    try:
        flows, kpis = run.read_table("flows"), run.read_table("kpis")
    except FileNotFoundError:
        return (), 0
    affected = [r for r in flows.to_dict("records") if str(r["flow_id"]) in severity]
    affected.sort(key=lambda record: _gravity(record, severity))
    shown = affected[:LIMIT]
    kpis = kpis[kpis["flow_id"].isin([record["flow_id"] for record in shown])]
    endings = {role: _endings(kpis, role) for role in ("baseline", "treatment")}
    rows = []
    for record in shown:
        flow = str(record["flow_id"])
        before, _ = endings["baseline"].get(flow, ("-", ""))
        after, error = endings["treatment"].get(flow, ("-", ""))
        priority = str(record.get("priority", "normal"))
        rows.append(
            FlowRow(
                flow_id=flow,
                flow_class=str(record.get("flow_class", "")),
                priority=priority,
                rank=_RANK.get(priority, 2),
                protocol=_protocol(record),
                source=_end(record.get("source_address"), record.get("source_port")),
                destination=_end(record.get("destination_address"), record.get("destination_port")),
                label=str(record.get("label") or ""),
                before=before,
                after=after,
                error=error,
                severity=severity[flow],
            )
        )
    return tuple(rows), max(0, len(affected) - LIMIT)


def flow_names(run: RunDirectory, flows: Collection[str]) -> Mapping[str, str]:
    """Who these flows are: "tcp 198.51.100.7:3301 → 203.0.113.10:443 (checkout)"; without a table nobody is known."""
    if not flows:
        return {}
    try:
        table = run.read_table("flows")
    except FileNotFoundError:
        return {}
    return {str(r["flow_id"]): _name(r) for r in table[table["flow_id"].isin(list(flows))].to_dict("records")}


def _name(record: Mapping[Hashable, object]) -> str:
    ends = [_end(record.get(f"{end}_address"), record.get(f"{end}_port")) for end in ("source", "destination")]
    return f"{_protocol(record)} {' → '.join(ends)} ({record.get('flow_class', '')})"


def _protocol(record: Mapping[Hashable, object]) -> str:
    return _PROTOCOLS.get(record.get("protocol"), str(record.get("protocol", "")))


def _gravity(record: Mapping[Hashable, object], severity: Mapping[str, str]) -> tuple[bool, int, str, str]:
    flow = str(record["flow_id"])
    rank = _RANK.get(str(record.get("priority", "normal")), 2)
    return severity[flow] != "FAIL", rank, str(record.get("flow_class", "")), flow


def _endings(kpis: pd.DataFrame, role: str) -> dict[str, tuple[str, str]]:
    """How each flow ended in the windows of one role: in words, and the commonest error ("" when there was none)."""
    endings: dict[str, tuple[str, str]] = {}
    for flow, part in kpis[kpis["role"] == role].groupby("flow_id"):
        errors = Counter(str(error) for error in part["error"])
        error, count = errors.most_common(1)[0]
        often = "" if count == len(part) else f" in {count} of {len(part)} windows"
        if error == "none":
            values = part["response_ns"].to_numpy(dtype="float64") if "response_ns" in part else np.array([])
            values = values[~np.isnan(values)]
            endings[str(flow)] = (quantity(float(np.median(values)), "ns") if values.size else "completed") + often, ""
        else:
            endings[str(flow)] = f"{error}{often}", error
    return endings


def _end(address: object, port: object) -> str:
    text = "" if address is None else str(address)
    if not port or (isinstance(port, float) and np.isnan(port)):
        return text
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
