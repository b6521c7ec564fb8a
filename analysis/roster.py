"""The judged flows by name: class, priority and a title that a person recognises.

May not know KPIs, windows or verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.verdict import priority_rank

UNCLASSED = "other"


@dataclass(frozen=True, slots=True)
class Roster:
    """Who belongs where; built from the flow table."""

    classes: Mapping[str, tuple[str, ...]]
    class_of: Mapping[str, str]
    priority_of: Mapping[str, str]
    title_of: Mapping[str, str]
    captured: Mapping[str, str]

    @classmethod
    def of(cls, flows: pd.DataFrame) -> Roster:
        """Read the flow table (`flow_id, flow_class, priority`, and what there is of the five-tuple and `outcome`)."""
        classes: dict[str, list[str]] = {}
        class_of: dict[str, str] = {}
        priority_of: dict[str, str] = {}
        title_of: dict[str, str] = {}
        captured: dict[str, str] = {}
        for row in flows.to_dict("records"):
            flow = str(row["flow_id"])
            name = str(row["flow_class"] or UNCLASSED)
            classes.setdefault(name, []).append(flow)
            class_of[flow] = name
            priority_of[flow] = str(row["priority"] or "normal")
            title_of[flow] = _title(flow, {str(key): value for key, value in row.items()})
            captured[flow] = str(row.get("outcome") or "")
        members = {name: tuple(ids) for name, ids in classes.items()}
        return cls(members, class_of, priority_of, title_of, captured)

    def priority(self, flows: Iterable[str]) -> str:
        """The highest priority among these flows; "normal" of none."""
        return min((self.priority_of.get(flow, "normal") for flow in flows), key=priority_rank, default="normal")


def _title(flow: str, row: Mapping[str, object]) -> str:
    if "source_address" not in row or "destination_address" not in row:
        return flow
    return f"{_end(row, 'source')} → {_end(row, 'destination')}"


def _end(row: Mapping[str, object], side: str) -> str:
    address, port = str(row[f"{side}_address"]), row.get(f"{side}_port")
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
