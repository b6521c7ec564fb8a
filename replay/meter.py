"""The one meter: packets to flows, messages and segments, of production captures and the shadow's taps alike.

Knows no file format (replay.packets reads), no topology and no policy. A packet captured twice (two points of a
mirror) is metered twice: in TCP the second copy shows as a retransmission; removing such copies is not this
issue's.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from replay.biflow import Biflows, Timeouts, biflows
from replay.columns import SYN, TCP, Int64, Packets, UInt8
from replay.message import Messages, messages
from replay.outcome import FlagsByFlow, closes, end_reasons, outcomes
from replay.packets import read_packets
from replay.payload import PayloadStore, recognised
from replay.stream import Positions, positions

__all__ = ["PAUSE_NS", "Metered", "PayloadStore", "Timeouts", "meter", "read_traffic"]

PAUSE_NS = 200_000_000
UNTIMED = Timeouts()


@dataclass(frozen=True)
class Metered:
    """What the meter made of packets: the tables of design section 5, the payloads, and what was left out and why.

    `segments` has a row per packet of a flow, by flow and time: flow_id, direction (0 forward, 1 reverse),
    time_ns, stream_offset, octets (payload), tcp_flags, retransmission (no new byte, or a SYN or FIN again),
    hop_limit. `packets` counts the decoded packets, ICMP errors included. `flow_id` is a categorical in
    messages and segments.
    """

    flows: pd.DataFrame
    messages: pd.DataFrame
    segments: pd.DataFrame
    payloads: PayloadStore
    packets: int
    skipped: Counter[str]


def read_traffic(paths: Sequence[Path], timeouts: Timeouts = UNTIMED) -> Metered:
    """Read and meter captures, recognising applications and labels from the first words of every flow.

    Raises InvalidCapture as read_packets does.
    """
    packets, skipped = read_packets(paths)
    metered = meter(packets, timeouts)
    skipped.update(metered.skipped)
    flows = _with_applications(metered)
    return Metered(flows, metered.messages, metered.segments, metered.payloads, metered.packets, skipped)


def meter(packets: Packets, timeouts: Timeouts = UNTIMED, pause_ns: int = PAUSE_NS) -> Metered:
    """Meter packets into biflows, their messages and segments; a side's silence above pause_ns begins a new message.

    Application and label stay empty, priority `normal` and class `other`: what needs payload or policy is added
    by others.
    """
    grouped = biflows(packets, timeouts)
    placed, pieces, skipped = positions(packets, grouped)
    said, payloads = messages(packets, grouped, pieces, pause_ns)
    flows = _flows(packets, grouped, said, timeouts, skipped)
    names = flows["flow_id"].tolist()
    return Metered(
        flows=flows,
        messages=_messages(said, names),
        segments=_segments(packets, grouped, placed, names),
        payloads=payloads,
        packets=len(packets),
        skipped=skipped,
    )


def _flows(
    packets: Packets, grouped: Biflows, said: Messages, timeouts: Timeouts, skipped: Counter[str]
) -> pd.DataFrame:
    count = len(grouped)
    rows, first = grouped.packet, grouped.packet[grouped.start[:-1]]
    reverse = grouped.direction == 1
    turned = grouped.direction[grouped.start[:-1]] == 1
    version, protocol = packets.version[first], packets.protocol[first]
    source = np.where(turned[:, None], packets.destination_address[first], packets.source_address[first])
    destination = np.where(turned[:, None], packets.source_address[first], packets.destination_address[first])
    source_port = np.where(turned, packets.destination_port[first], packets.source_port[first])
    destination_port = np.where(turned, packets.source_port[first], packets.destination_port[first])

    def total(of: Int64 | None, where: npt.NDArray[np.bool_]) -> Int64:
        weights = None if of is None else of[where]
        return np.bincount(grouped.flow[where], weights=weights, minlength=count).astype(np.int64)

    octets = packets.ip_octets[rows].astype(np.int64)
    flags = packets.tcp_flags[rows]
    columns = {
        "start_ns": packets.time_ns[first],
        "end_ns": packets.time_ns[rows[grouped.start[1:] - 1]],
        "protocol": protocol.astype(np.int64),
        "source_address": _texts(source, version),
        "source_port": source_port.astype(np.int64),
        "destination_address": _texts(destination, version),
        "destination_port": destination_port.astype(np.int64),
        "forward_packets": total(None, ~reverse),
        "reverse_packets": total(None, reverse),
        "forward_octets": total(octets, ~reverse),
        "reverse_octets": total(octets, reverse),
        "tcp_flags_forward": _flags_seen(np.where(reverse, 0, flags), grouped),
        "tcp_flags_reverse": _flags_seen(np.where(reverse, flags, 0), grouped),
        "end_reason": end_reasons(packets, grouped, timeouts),
        "application": np.full(count, "", dtype=object),
        "label": np.full(count, "", dtype=object),
        "outcome": outcomes(packets, grouped, skipped),
        "close": closes(packets, grouped),
        "grade": _grades(packets, grouped, said),
        "priority": np.full(count, "normal", dtype=object),
        "flow_class": np.full(count, "other", dtype=object),
    }
    table = pd.DataFrame(columns)
    text = ("end_reason", "application", "label", "outcome", "close", "grade", "priority", "flow_class")
    table = table.astype(dict.fromkeys(("source_address", "destination_address", *text), "str"))
    table.insert(0, "flow_id", pd.Series(_names(table, grouped.ordinal), dtype="str"))
    return table


def _flags_seen(flags: UInt8, grouped: Biflows) -> Int64:
    if not len(grouped):
        return np.zeros(0, np.int64)
    return np.bitwise_or.reduceat(flags, grouped.start[:-1]).astype(np.int64)


def _texts(addresses: UInt8, version: UInt8) -> list[str]:
    known: dict[tuple[bytes, int], str] = {}
    out: list[str] = []
    for address, number in zip(addresses, version.tolist(), strict=True):
        key = (address.tobytes(), number)
        if key not in known:
            known[key] = _text(*key)
        out.append(known[key])
    return out


def _text(address: bytes, version: int) -> str:
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def _names(table: pd.DataFrame, ordinal: Int64) -> list[str]:
    """12 hexadecimal digits from the five-tuple and its ordinal: the same capture gives the same names."""
    tuples = zip(
        table["protocol"], table["source_address"], table["source_port"], table["destination_address"],
        table["destination_port"], ordinal.tolist(), strict=True,
    )  # fmt: skip
    return [blake2b("|".join(map(str, one)).encode(), digest_size=6).hexdigest() for one in tuples]


def _grades(packets: Packets, grouped: Biflows, said: Messages) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """payload when every byte from the start is at hand; sizes when some were not captured or the start was missed."""
    by = FlagsByFlow(packets, grouped)
    missed_start = by.any(by.is_tcp) & ~by.any(by.has(SYN, SYN))
    incomplete = np.bincount(said.flow[said.payload_ref < 0], minlength=len(grouped)) > 0
    return np.where(missed_start | incomplete, "sizes", "payload").astype(object)


def _messages(said: Messages, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "flow_id": pd.Categorical.from_codes(said.flow, categories=pd.Index(names, dtype="str")),
            "sequence": said.sequence,
            "offset_ns": said.offset_ns,
            "gap_ns": said.gap_ns,
            "direction": said.direction.astype(np.int64),
            "octets": said.octets,
            "payload_ref": said.payload_ref,
        }
    )


def _segments(packets: Packets, grouped: Biflows, placed: Positions, names: list[str]) -> pd.DataFrame:
    rows = grouped.packet
    return pd.DataFrame(
        {
            "flow_id": pd.Categorical.from_codes(grouped.flow, categories=pd.Index(names, dtype="str")),
            "direction": grouped.direction,
            "time_ns": packets.time_ns[rows],
            "stream_offset": placed.stream_offset,
            "octets": packets.payload_octets[rows].astype(np.int64),
            "tcp_flags": packets.tcp_flags[rows],
            "retransmission": placed.retransmission,
            "hop_limit": packets.hop_limit[rows],
        }
    )


def _with_applications(metered: Metered) -> pd.DataFrame:
    flows, spoken = metered.flows, metered.messages
    first = spoken.drop_duplicates(["flow_id", "direction"])
    words: dict[tuple[str, int], bytes | None] = {
        (flow_id, direction): metered.payloads[ref] if ref >= 0 else None
        for flow_id, direction, ref in zip(
            first["flow_id"], first["direction"], first["payload_ref"].tolist(), strict=True
        )
    }
    opened = ((flows["tcp_flags_forward"] | flows["tcp_flags_reverse"]) & SYN != 0) | (flows["protocol"] != TCP)
    found = [
        recognised(
            protocol, port, words.get((flow_id, 0)) if is_open else None, words.get((flow_id, 1)) if is_open else None
        )
        for flow_id, protocol, port, is_open in zip(
            flows["flow_id"], flows["protocol"], flows["destination_port"], opened, strict=True
        )
    ]
    return flows.assign(
        application=pd.Series([one.application for one in found], index=flows.index, dtype="str"),
        label=pd.Series([one.label for one in found], index=flows.index, dtype="str"),
    )
