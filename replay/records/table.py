"""Whole flows of records as the tables of design section 5, column for column what the meter gives. Knows no format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b

import numpy as np
import pandas as pd

from replay.columns import FIN, RST
from replay.payload import recognised
from replay.records.piece import Details, Piece
from replay.records.stitch import first_close, outcome

GRADE = "totals"
_MOST = (1 << 63) - 1
_ORDER = (
    "start_ns", "end_ns", "protocol", "source_address", "source_port", "destination_address", "destination_port",
    "forward_packets", "reverse_packets", "forward_octets", "reverse_octets", "tcp_flags_forward",
    "tcp_flags_reverse", "end_reason", "application", "label", "outcome", "close", "grade", "priority", "flow_class",
)  # fmt: skip


def _end_reason(flow: Piece) -> str:
    if flow.end_reason:
        return flow.end_reason
    both = flow.forward_flags & flow.reverse_flags & FIN
    return "end_of_flow" if both or (flow.forward_flags | flow.reverse_flags) & RST else "forced"


def _application(flow: Piece) -> str:
    return flow.application or recognised(flow.protocol, flow.destination_port, None, None).application


_NUMBERS: dict[str, Callable[[Piece], int]] = {
    "start_ns": lambda flow: flow.start_ns,
    "end_ns": lambda flow: max(flow.start_ns, flow.end_ns),
    "protocol": lambda flow: flow.protocol,
    "source_port": lambda flow: flow.source_port,
    "destination_port": lambda flow: flow.destination_port,
    "forward_packets": lambda flow: flow.forward_packets,
    "reverse_packets": lambda flow: flow.reverse_packets,
    "forward_octets": lambda flow: flow.forward_octets,
    "reverse_octets": lambda flow: flow.reverse_octets,
    "tcp_flags_forward": lambda flow: flow.forward_flags,
    "tcp_flags_reverse": lambda flow: flow.reverse_flags,
}
_TEXTS: dict[str, Callable[[Piece], str]] = {
    "source_address": lambda flow: flow.source_address,
    "destination_address": lambda flow: flow.destination_address,
    "end_reason": _end_reason,
    "application": _application,
    "label": lambda _: "",
    "outcome": outcome,
    "close": lambda flow: flow.close or first_close((flow,)),
    "grade": lambda _: GRADE,
    "priority": lambda _: "normal",
    "flow_class": lambda _: "other",
}


@dataclass(frozen=True)
class Records:
    """What flow records say: the meter's tables, with the grade `totals` and no message.

    `details` has a row a flow: flow_id and the fields of Details. `read` counts the records that were used, `skipped`
    the others by reason; `kinds` names the formats.
    """

    flows: pd.DataFrame
    messages: pd.DataFrame
    details: pd.DataFrame
    read: int
    skipped: Counter[str]
    kinds: tuple[str, ...]


def records(flows: Sequence[Piece], read: int, skipped: Counter[str], kinds: Sequence[str]) -> Records:
    """The tables of whole flows, in the order of their start.

    A flow's name comes from its five-tuple and its number among those of that five-tuple, as the meter's does.
    """
    ordered = sorted(flows, key=lambda flow: (flow.start_ns, flow.end_ns))
    names = _names(ordered)
    columns: dict[str, object] = {"flow_id": pd.Series(names, dtype="str")}
    for column in _ORDER:
        if column in _NUMBERS:
            numbers = [min(_NUMBERS[column](flow), _MOST) for flow in ordered]
            columns[column] = np.array(numbers, dtype=np.int64)
        else:
            columns[column] = pd.Series([_TEXTS[column](flow) for flow in ordered], dtype="str")
    details = {
        one.name: pd.Series([getattr(flow.details, one.name) for flow in ordered], dtype="str")
        for one in fields(Details)
    }
    return Records(
        flows=pd.DataFrame(columns),
        messages=_no_messages(names),
        details=pd.DataFrame({"flow_id": pd.Series(names, dtype="str"), **details}),
        read=read,
        skipped=skipped,
        kinds=tuple(kinds),
    )


def _names(flows: Sequence[Piece]) -> list[str]:
    seen: Counter[tuple[object, ...]] = Counter()
    names = []
    for flow in flows:
        ends = (flow.source_address, flow.source_port), (flow.destination_address, flow.destination_port)
        key = (flow.protocol, *sorted(ends))
        parts = (flow.protocol, *ends[0], *ends[1], seen[key])
        seen[key] += 1
        names.append(blake2b("|".join(map(str, parts)).encode(), digest_size=6).hexdigest())
    return names


def _no_messages(names: list[str]) -> pd.DataFrame:
    none = np.empty(0, np.int64)
    numbers = ("sequence", "offset_ns", "gap_ns", "direction", "octets", "payload_ref")
    flow_id = pd.Categorical.from_codes(np.empty(0, np.int32), categories=pd.Index(names, dtype="str"))
    return pd.DataFrame({"flow_id": flow_id, **{column: pd.Series(none) for column in numbers}})
