"""Which flow each frame belongs to: flows that are known already, and flows of what has no session to re-enact.

Pure; knows no node. A flow of an odd protocol is everything between two addresses (and ports, where it has some).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd

from replay.columns import ICMP, ICMPV6, TCP, UDP, Bool, Int64
from replay.packet_mode.frames import NO_IP, Frames

NO_FLOW = -1
MALFORMED = "malformed"
"""The application of flows whose packets no stack would have sent."""

_WITH_SESSION = (TCP, UDP, ICMP, ICMPV6)
_MAPPED = bytes(10) + b"\xff\xff"
_KNOWN = ["flow_id", "protocol", "source_address", "source_port", "destination_address", "destination_port"]
_TEXTS = ("end_reason", "application", "label", "outcome", "close", "grade", "priority", "flow_class")

Endpoint = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Assigned:
    """A flow table, and for each frame its row there (NO_FLOW: none) and its direction (0 forward, 1 reverse)."""

    flows: pd.DataFrame
    flow: Int64
    direction: Int64

    def __len__(self) -> int:
        return len(self.flows)


def without_session(frames: Frames, *, malformed: bool = True, link_layer: bool = False) -> Assigned:
    """Group what no session can re-enact: odd protocols, by default malformed packets, by choice frames without IP.

    The table has the meter's columns. A flow that was seen in one direction only is `unanswered`: most odd protocols
    have no answer, so that says nothing about the network.
    """
    odd = ~np.isin(frames.protocol, _WITH_SESSION) & (frames.protocol != NO_IP)
    odd |= (frames.protocol == NO_IP) & link_layer
    bad = frames.malformed & (frames.protocol != NO_IP)
    chosen = (odd & ~bad) | (bad & malformed)
    return _grouped(frames, chosen, bad)


def of_flows(frames: Frames, flows: pd.DataFrame) -> Assigned:
    """The well-formed frames of these flows, found by five-tuple and time."""
    known: dict[tuple[int, Endpoint, Endpoint], list[tuple[int, int, int]]] = {}
    columns = zip(*(flows[name].tolist() for name in _KNOWN[1:]), strict=True)
    spans = zip(flows["start_ns"].tolist(), flows["end_ns"].tolist(), strict=True)
    for row, ((protocol, source, port, target, target_port), (start, end)) in enumerate(
        zip(columns, spans, strict=True)
    ):
        key = (int(protocol), (packed_address(source), int(port)), (packed_address(target), int(target_port)))
        known.setdefault(key, []).append((int(start), int(end), row))
    flow, direction = np.full(len(frames), NO_FLOW, np.int64), np.zeros(len(frames), np.int64)
    for number, (protocol, one, other) in _ends(frames, ~frames.malformed & (frames.protocol != NO_IP)):
        at_ns = int(frames.time_ns[number])
        for way, key in ((0, (protocol, one, other)), (1, (protocol, other, one))):
            row = next((row for start, end, row in known.get(key, ()) if start <= at_ns <= end), NO_FLOW)
            if row != NO_FLOW:
                flow[number], direction[number] = row, way
                break
    return Assigned(flows.reset_index(drop=True), flow, direction)


def together(one: Assigned, other: Assigned) -> Assigned:
    """Both tables as one; a frame that both claim stays with the first."""
    flow = np.where(
        one.flow != NO_FLOW, one.flow, np.where(other.flow != NO_FLOW, other.flow + len(one.flows), NO_FLOW)
    )
    direction = np.where(one.flow != NO_FLOW, one.direction, other.direction)
    return Assigned(pd.concat([one.flows, other.flows], ignore_index=True), flow, direction)


def _grouped(frames: Frames, chosen: Bool, bad: Bool) -> Assigned:
    flow, direction = np.full(len(frames), NO_FLOW, np.int64), np.zeros(len(frames), np.int64)
    rows: dict[tuple[int, Endpoint, Endpoint, bool], int] = {}
    first: list[tuple[int, int, Endpoint, Endpoint, bool]] = []
    for number, (protocol, one, other) in _ends(frames, chosen):
        is_bad = bool(bad[number])
        key = (protocol, one, other, is_bad)
        row = rows.get(key)
        if row is None:
            row = len(first)
            rows[key] = row
            rows.setdefault((protocol, other, one, is_bad), row)
            first.append((number, protocol, one, other, is_bad))
        flow[number] = row
        direction[number] = int((one, other) != first[row][2:4])
    return Assigned(_table(frames, flow, direction, first), flow, direction)


def _ends(frames: Frames, chosen: Bool) -> list[tuple[int, tuple[int, Endpoint, Endpoint]]]:
    """Number, protocol and both ends of each chosen frame; a later fragment has the ports of its datagram's first."""
    firsts: dict[tuple[bytes, bytes, int, int], tuple[int, int]] = {}
    found = []
    for row in np.flatnonzero(chosen).tolist():
        source, destination = frames.source[row].tobytes(), frames.destination[row].tobytes()
        protocol = int(frames.protocol[row])
        ports = (int(frames.source_port[row]), int(frames.destination_port[row]))
        datagram = (source, destination, protocol, int(frames.identification[row]))
        if frames.fragment_octets[row]:
            ports = firsts.get(datagram, ports)
        elif frames.more[row]:
            firsts[datagram] = ports
        if protocol == NO_IP:
            kind = int.from_bytes(frames.packet(row)[:2], "big")
            ports = (kind, kind)
        found.append((row, (protocol, (source, ports[0]), (destination, ports[1]))))
    return found


def _table(
    frames: Frames, flow: Int64, direction: Int64, first: Sequence[tuple[int, int, Endpoint, Endpoint, bool]]
) -> pd.DataFrame:
    count = len(first)
    mine = flow != NO_FLOW
    number, reverse, octets, time_ns = flow[mine], direction[mine] == 1, frames.octets[mine], frames.time_ns[mine]

    def total(values: Int64, where: Bool) -> Int64:
        return np.bincount(number[where], weights=values[where], minlength=count).astype(np.int64)

    ones = np.ones(len(number), np.int64)
    end_ns = np.zeros(count, np.int64)
    np.maximum.at(end_ns, number, time_ns)
    reverse_packets = total(ones, reverse)
    ends = [(_text(one, protocol), one[1], _text(other, protocol), other[1]) for _, protocol, one, other, _ in first]
    columns = {
        "start_ns": np.array([int(frames.time_ns[row]) for row, *_ in first], np.int64),
        "end_ns": end_ns,
        "protocol": np.array([protocol for _, protocol, *_ in first], np.int64),
        "source_address": [end[0] for end in ends],
        "source_port": np.array([end[1] for end in ends], np.int64),
        "destination_address": [end[2] for end in ends],
        "destination_port": np.array([end[3] for end in ends], np.int64),
        "forward_packets": total(ones, ~reverse),
        "reverse_packets": reverse_packets,
        "forward_octets": total(octets, ~reverse),
        "reverse_octets": total(octets, reverse),
        "tcp_flags_forward": np.zeros(count, np.int64),
        "tcp_flags_reverse": np.zeros(count, np.int64),
        "end_reason": ["forced"] * count,
        "application": [MALFORMED if is_bad else "" for *_, is_bad in first],
        "label": [""] * count,
        "outcome": ["accepted" if packets else "unanswered" for packets in reverse_packets],
        "close": ["none"] * count,
        "grade": ["payload"] * count,
        "priority": ["normal"] * count,
        "flow_class": ["other"] * count,
    }
    table = pd.DataFrame(columns).astype(dict.fromkeys(("source_address", "destination_address", *_TEXTS), "str"))
    names = [
        blake2b(f"packets|{protocol}|{end}|{is_bad}".encode(), digest_size=6).hexdigest()
        for (_, protocol, _, _, is_bad), end in zip(first, ends, strict=True)
    ]
    table.insert(0, "flow_id", pd.Series(names, dtype="str"))
    return table


def _text(end: Endpoint, protocol: int) -> str:
    """The address as people write it; a frame without IP has none."""
    if protocol == NO_IP:
        return ""
    address = end[0]
    if address[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def packed_address(text: str) -> bytes:
    """The 16 octets of an address as people write it, IPv4 as ::ffff:a.b.c.d."""
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return _MAPPED + socket.inet_pton(socket.AF_INET, text)


def address_text(address: bytes) -> str:
    """The text of 16 octets."""
    return _text((address, 0), 0)
