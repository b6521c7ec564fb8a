"""Packets to biflows (RFC 5103): each packet's flow and direction. Knows no payload and no outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.columns import (
    ACK,
    ICMP,
    ICMP_ECHO_REPLY,
    ICMP_ECHO_REQUEST,
    ICMPV6,
    ICMPV6_ECHO_REPLY,
    ICMPV6_ECHO_REQUEST,
    SYN,
    TCP,
    Bool,
    Int64,
    Packets,
    UInt8,
)

_WELL_KNOWN_PORTS = 1024
_GROUP, _NEW_SYN, _IDLE, _ACTIVE = 1, 2, 3, 4
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Timeouts:
    """When a flow record ends although its packets go on (RFC 7011 flowEndReason, RFC 5102); None switches a
    timeout off.

    idle_ns: the longest silence inside a flow. active_ns: the longest life of a record, after which the next
    packet opens a new one for the same conversation.
    """

    idle_ns: int | None = None
    active_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Biflows:
    """Flow and direction of every metered packet, ordered by flow, then time.

    `packet` are rows of Packets; `flow`, `direction` stand beside it; flow i spans start[i]:start[i + 1] of
    them. `ordinal` counts the flows of one five-tuple, `cut_by` says what ended the record: 0 nothing, else
    _NEW_SYN, _IDLE or _ACTIVE.
    """

    packet: Int64
    flow: Int64
    direction: UInt8
    start: Int64
    ordinal: Int64
    cut_by: UInt8

    def __len__(self) -> int:
        return len(self.start) - 1

    def ended(self, flow: int, kinds: tuple[int, ...]) -> bool:
        """Whether something of these kinds ended the flow's record."""
        return int(self.cut_by[flow]) in kinds


ENDED_BY_SYN, ENDED_BY_IDLE, ENDED_BY_ACTIVE = _NEW_SYN, _IDLE, _ACTIVE


def biflows(packets: Packets, timeouts: Timeouts) -> Biflows:
    """Group packets into biflows; errors quoting another packet belong to no flow of their own.

    A SYN with another initial sequence number than the one before opens a new flow of the same five-tuple.
    Forward is from the SYN's sender; without a handshake, away from a well-known port when just one side has
    one, else as first seen.
    """
    member = np.ones(len(packets), np.bool_)
    member[np.isin(packets.protocol, (ICMP, ICMPV6))] = False
    member |= _is_query(packets)
    rows = np.flatnonzero(member)
    words, from_greater = endpoint_words(
        packets.source_address[rows],
        packets.destination_address[rows],
        packets.source_port[rows],
        packets.destination_port[rows],
        packets.protocol[rows],
        packets.version[rows],
    )
    order = _grouping(words)
    rows, words, from_greater = rows[order], words[order], from_greater[order]
    cut = np.zeros(len(rows), np.uint8)
    if len(rows):
        cut[_changes(words)] = _GROUP
        _cut_at_new_syns(packets, rows, from_greater, cut)
        direction = _directions(packets, rows, from_greater, cut)
        _cut_at_timeouts(packets.time_ns[rows], cut, timeouts)
    else:
        direction = np.zeros(0, np.uint8)
    return _numbered(rows, direction, cut)


def endpoint_words(
    source: UInt8,
    destination: UInt8,
    source_port: npt.NDArray[np.uint16],
    destination_port: npt.NDArray[np.uint16],
    protocol: UInt8,
    version: UInt8,
) -> tuple[npt.NDArray[np.uint64], Bool]:
    """A five-tuple as five 64-bit words, equal for both directions, and whether the source is the greater end."""
    s = np.ascontiguousarray(source).view(">u8").astype(np.uint64).reshape(-1, 2)
    d = np.ascontiguousarray(destination).view(">u8").astype(np.uint64).reshape(-1, 2)
    same_high, same_low = s[:, 0] == d[:, 0], s[:, 1] == d[:, 1]
    greater = (s[:, 0] > d[:, 0]) | (same_high & (s[:, 1] > d[:, 1]))
    greater |= same_high & same_low & (source_port > destination_port)
    small = np.where(greater[:, None], d, s)
    large = np.where(greater[:, None], s, d)
    small_port = np.where(greater, destination_port, source_port).astype(np.uint64)
    large_port = np.where(greater, source_port, destination_port).astype(np.uint64)
    rest = small_port << np.uint64(32) | large_port << np.uint64(16)
    rest |= protocol.astype(np.uint64) << np.uint64(8) | version.astype(np.uint64)
    return np.column_stack((small, large, rest)), greater


def _is_query(packets: Packets) -> Bool:
    """ICMP that is no error: it can be a flow of its own."""
    four = (packets.protocol == ICMP) & ~np.isin(packets.icmp_type, (3, 4, 5, 11, 12))
    six = (packets.protocol == ICMPV6) & (packets.icmp_type >= 128)
    query: Bool = four | six
    return query


def _changes(words: npt.NDArray[np.uint64]) -> Bool:
    changed = np.ones(len(words), np.bool_)
    changed[1:] = (words[1:] != words[:-1]).any(axis=1)
    return changed


def _grouping(words: npt.NDArray[np.uint64]) -> Int64:
    """An order that joins equal five-tuples and keeps time inside: a sort on one 64-bit hash, verified."""
    key = np.zeros(len(words), np.uint64)
    for column in range(words.shape[1]):
        key = (key ^ words[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    order = np.argsort(key, kind="stable")
    hashed = key[order]
    groups = int((hashed[1:] != hashed[:-1]).sum()) + 1
    if len(words) and int(_changes(words[order]).sum()) != groups:
        return np.lexsort(words.T)
    return order


def _cut_at_new_syns(packets: Packets, rows: Int64, from_greater: Bool, cut: UInt8) -> None:
    flags = packets.tcp_flags[rows]
    is_tcp = packets.protocol[rows] == TCP
    opening = is_tcp & ((flags & (SYN | ACK)) == SYN)
    place = np.flatnonzero(opening)
    group = np.cumsum(cut == _GROUP)
    first_of_group = cut[place] == _GROUP
    side = group[place] * 2 + from_greater[place]
    order = np.argsort(side, kind="stable")
    side, sequence = side[order], packets.sequence[rows[place[order]]]
    fresh_side = np.ones(len(place), np.bool_)
    fresh_side[1:] = side[1:] != side[:-1]
    other_number = np.zeros(len(place), np.bool_)
    other_number[1:] = ~fresh_side[1:] & (sequence[1:] != sequence[:-1])
    answers_syn = np.zeros(len(place), np.bool_)
    before = np.maximum(place[order] - 1, 0)
    answers_syn = is_tcp[before] & ((flags[before] & SYN) != 0) & (from_greater[before] != from_greater[place[order]])
    new = np.zeros(len(place), np.bool_)
    new[order] = other_number | (fresh_side & ~answers_syn)
    cut[place[new & ~first_of_group]] = _NEW_SYN


def _directions(packets: Packets, rows: Int64, from_greater: Bool, cut: UInt8) -> UInt8:
    """Direction of every packet, decided once for everything between two cuts."""
    begins = np.flatnonzero(cut)
    flags, protocol, kind = packets.tcp_flags[rows], packets.protocol[rows], packets.icmp_type[rows]
    is_tcp = protocol == TCP
    requests = np.where(
        protocol == ICMP, kind == ICMP_ECHO_REQUEST, (protocol == ICMPV6) & (kind == ICMPV6_ECHO_REQUEST)
    )
    replies = np.where(protocol == ICMP, kind == ICMP_ECHO_REPLY, (protocol == ICMPV6) & (kind == ICMPV6_ECHO_REPLY))
    asks = (is_tcp & ((flags & (SYN | ACK)) == SYN)) | requests
    answers = (is_tcp & ((flags & (SYN | ACK)) == (SYN | ACK))) | replies
    from_service = packets.source_port[rows] < _WELL_KNOWN_PORTS
    to_service = packets.destination_port[rows] < _WELL_KNOWN_PORTS
    ported = ~np.isin(protocol, (ICMP, ICMPV6))
    guess = ~ported | (from_service == to_service) | to_service
    forward_is_greater = from_greater[begins] == guess[begins]
    place = np.arange(len(rows))
    for witness, is_forward in ((answers, False), (asks, True)):
        first = np.minimum.reduceat(np.where(witness, place, _NEVER), begins)
        seen = first != _NEVER
        forward_is_greater[seen] = from_greater[first[seen]] == is_forward
    spread = np.repeat(forward_is_greater, np.diff(np.append(begins, len(rows))))
    direction: UInt8 = (from_greater != spread).astype(np.uint8)
    return direction


def _cut_at_timeouts(time_ns: Int64, cut: UInt8, timeouts: Timeouts) -> None:
    if timeouts.idle_ns is not None:
        silent = np.zeros(len(cut), np.bool_)
        silent[1:] = np.diff(time_ns) > timeouts.idle_ns
        cut[silent & (cut == 0)] = _IDLE
    if timeouts.active_ns is not None:
        begins = np.flatnonzero(cut)
        ends = np.append(begins[1:], len(cut))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            opened = begin
            while time_ns[end - 1] - time_ns[opened] > timeouts.active_ns:
                due = time_ns[opened] + timeouts.active_ns
                opened += int(np.searchsorted(time_ns[opened:end], due, side="right"))
                cut[opened] = _ACTIVE


def _numbered(rows: Int64, direction: UInt8, cut: UInt8) -> Biflows:
    """Flows numbered by their first packet, whatever order the grouping left them in."""
    begins = np.flatnonzero(cut)
    kinds = cut[begins]
    count = len(begins)
    group_begin = np.maximum.accumulate(np.where(kinds == _GROUP, np.arange(count), 0))
    ordinal = np.arange(count) - group_begin
    cut_by = np.zeros(count, np.uint8)
    cut_by[:-1] = np.where(kinds[1:] == _GROUP, 0, kinds[1:])
    by_first_packet = np.argsort(rows[begins], kind="stable")
    number = np.empty(count, np.int64)
    number[by_first_packet] = np.arange(count)
    flow = np.repeat(number, np.diff(np.append(begins, len(rows))))
    order = np.argsort(flow, kind="stable")
    sizes = np.bincount(flow, minlength=count)
    return Biflows(
        packet=rows[order],
        flow=flow[order],
        direction=direction[order],
        start=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        ordinal=ordinal[by_first_packet],
        cut_by=cut_by[by_first_packet],
    )
