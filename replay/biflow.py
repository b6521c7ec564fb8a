"""Packets to biflows (RFC 5103): where one flow record ends and the next begins, and which end is forward.

Knows a chunk of packets and, of those before it, a few numbers for every five-tuple; knows no payload and no outcome.
Every rule looks back only, so that it does not matter where a stream is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.columns import (
    ACK,
    FIN,
    ICMP,
    ICMP_ECHO_REPLY,
    ICMP_ECHO_REQUEST,
    ICMPV6,
    ICMPV6_ECHO_REPLY,
    ICMPV6_ECHO_REQUEST,
    RST,
    SYN,
    TCP,
    Bool,
    Int64,
    Packets,
    UInt8,
)

Table = np.ndarray[tuple[int, ...], np.dtype[np.void]]
_WELL_KNOWN_PORTS = 1024
GROUP, NEW_SYN, IDLE, ACTIVE, LINGER = 1, 2, 3, 4, 5
NEVER_NS = np.iinfo(np.int64).min
UNKNOWN = -1

# What is remembered of a five-tuple between chunks; ends are 0 (lesser), 1 (greater), -1 (unknown).
TUPLE = np.dtype(
    [
        ("last_ns", np.int64),
        ("syn", np.int64, 2),  # initial sequence number of each end's last SYN, -1 without
        ("opener", np.int8),  # the end whose SYN was the last packet, else -1
        ("asks", np.int8),  # the end of the first witness that it is the initiator, since the last new SYN
        ("answers", np.int8),
        ("guess", np.int8),  # the end that its ports make the initiator
        ("ordinal", np.int32),
        ("is_open", np.bool_),
        ("opened_ns", np.int64),
        ("fins", np.uint8),  # bit 0, 1: a FIN from the lesser, greater end of the open record; bit 2: a RST
    ]
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """When a flow record ends although its packets go on (RFC 7011 flowEndReason, RFC 5102); None switches a
    timeout off.

    idle_ns: the longest silence inside a flow. active_ns: the longest life of a record, after which the next
    packet opens a new one for the same conversation. linger_ns: the longest silence after a RST or both FINs.
    forget_ns: a five-tuple silent for longer is unknown again, so that its flows are counted (and named) anew.
    A stream needs memory for what is open: without idle_ns that is every flow it has seen.
    """

    idle_ns: int | None = None
    active_ns: int | None = None
    linger_ns: int | None = None
    forget_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """A chunk's packets by five-tuple, then time: the columns that decide where flows begin and end.

    `row` is the row in the chunk, `tuple` and `end` the tuple's number and the sending end. `begins` are the places
    where a tuple's packets begin.
    """

    row: Int64
    tuple: Int64
    end: UInt8
    time_ns: Int64
    protocol: UInt8
    flags: UInt8  # 0 where it is not TCP
    sequence: npt.NDArray[np.uint32]
    begins: Int64

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class Segments:
    """The parts of a chunk that belong to one record each: by tuple, then time; segment i begins at begins[i].

    `cut` says what began it (0: it goes on here), `ended_by` what ended the record before, `continues` the segments of
    records that were open before. `ordinal` counts the tuple's flows, `forward` is the end that is the initiator,
    as far as the record shows, `of_row` the segment of each row.
    """

    begins: Int64
    cut: UInt8
    ended_by: UInt8
    continues: Bool
    ordinal: Int64
    forward: UInt8
    of_row: Int64

    def __len__(self) -> int:
        return len(self.begins)


def members(packets: Packets) -> Int64 | None:
    """The rows that belong to flows of their own: all (None) but the errors that quote another packet."""
    icmp = (packets.protocol == ICMP) | (packets.protocol == ICMPV6)
    if not icmp.any():
        return None
    four = (packets.protocol == ICMP) & ~np.isin(packets.icmp_type, (3, 4, 5, 11, 12))
    six = (packets.protocol == ICMPV6) & (packets.icmp_type >= 128)
    return np.flatnonzero(~icmp | four | six)


def ordered(packets: Packets, rows: Int64 | None, numbers: Int64, ends: UInt8, order: Int64) -> Ordered:
    """The rows by tuple and time: `numbers`, `ends` and the `order` of both are the numbering's."""
    row = order if rows is None else rows[order]
    tuples = numbers[order]
    changed = np.ones(len(order), np.bool_)
    changed[1:] = tuples[1:] != tuples[:-1]
    protocol, flags = packets.protocol[row], packets.tcp_flags[row]
    if not (is_tcp := protocol == TCP).all():
        flags = np.where(is_tcp, flags, 0)
    time_ns, sequence = packets.time_ns[row], packets.sequence[row]
    return Ordered(row, tuples, ends[order], time_ns, protocol, flags, sequence, np.flatnonzero(changed))


def segmented(packets: Packets, chunk: Ordered, known: Table, timeouts: Timeouts) -> Segments:
    """Cut a chunk into records; `known` (TUPLE) are the tuples as the chunk found them, and is brought up to date.

    A SYN with another initial sequence number than the one before opens a new flow of the same five-tuple.
    Forward is from the SYN's sender; without a handshake, away from a well-known port when just one side has
    one, else as first seen. A record cut by a timeout leaves its direction to the next.
    """
    tuples = chunk.tuple[chunk.begins]
    before = known[tuples]
    cut = _cuts_of_silence(chunk, before, timeouts)
    silent = cut != 0
    _cut_at_new_syns(chunk, before, cut)
    if timeouts.active_ns is not None or timeouts.linger_ns is not None:
        _cut_within(chunk, before, cut, timeouts)
    is_first = np.zeros(len(chunk), np.bool_)
    is_first[chunk.begins] = True
    ended_by = np.where(silent, IDLE, cut)
    begins = np.flatnonzero(is_first | (cut != 0))
    of_row = np.cumsum(is_first | (cut != 0)) - 1
    kinds, first = cut[begins], is_first[begins]
    of_tuple = np.cumsum(first) - 1
    ordinal = _ordinals(kinds, first, before["ordinal"][of_tuple])
    asks, answers, guess = _witnesses(packets, chunk, before, begins, kinds, first)
    forward = np.where(asks >= 0, asks, np.where(answers >= 0, 1 - answers, guess)).astype(np.uint8)

    last = np.append(np.flatnonzero(first)[1:], len(begins)) - 1
    after = before.copy()
    ends_at = np.append(chunk.begins[1:], len(chunk)) - 1
    after["last_ns"] = chunk.time_ns[ends_at]
    after["opener"] = np.where(chunk.flags[ends_at] & SYN, chunk.end[ends_at], UNKNOWN)
    for name, column in (("asks", asks), ("answers", answers), ("guess", guess), ("ordinal", ordinal)):
        after[name] = column[last]
    after["is_open"] = True
    goes_on = (kinds[last] == 0) & first[last]
    after["opened_ns"] = np.where(goes_on, before["opened_ns"], chunk.time_ns[begins[last]])
    seen = np.bitwise_or.reduceat(fins_of(chunk), begins)[last]
    after["fins"] = np.where(goes_on, before["fins"] | seen, seen)
    _remember_syns(chunk, cut, after)
    known[tuples] = after
    return Segments(begins, kinds, ended_by[begins], first & (kinds == 0), ordinal, forward, of_row)


def fins_of(chunk: Ordered, span: slice = slice(None)) -> UInt8:
    """For each packet which ends it ends: bit 0, 1 a FIN from the lesser, greater end, bit 2 a RST."""
    flags, end = chunk.flags[span], chunk.end[span]
    return (np.where(flags & FIN, np.uint8(1) << end, 0) | np.where(flags & RST, 4, 0)).astype(np.uint8)


def finished(fins: UInt8) -> Bool:
    """Which of these `fins` are of a flow that its ends have ended: by a RST, or a FIN from each."""
    ended: Bool = ((fins & 4) != 0) | ((fins & 3) == 3)
    return ended


def _cuts_of_silence(chunk: Ordered, before: Table, timeouts: Timeouts) -> UInt8:
    cut = np.zeros(len(chunk), np.uint8)
    begins = chunk.begins
    new = before["last_ns"] == NEVER_NS
    if timeouts.idle_ns is not None or timeouts.forget_ns is not None:
        silence = np.zeros(len(chunk), np.int64)
        silence[1:] = np.diff(chunk.time_ns)
        silence[begins] = np.where(new, 0, chunk.time_ns[begins] - before["last_ns"])
        if timeouts.idle_ns is not None:
            cut[silence > timeouts.idle_ns] = IDLE
        if timeouts.forget_ns is not None:
            cut[silence > timeouts.forget_ns] = GROUP
    closed = ~new & ~before["is_open"] & (cut[begins] == 0)
    cut[begins[closed]] = IDLE  # a packet that came too late: its record has been told
    cut[begins[new]] = GROUP
    return cut


def _generations(chunk: Ordered, cut: UInt8) -> tuple[Int64, Bool]:
    """A number for every stretch in which a tuple was not forgotten, and whether it began before the chunk."""
    starts = cut == GROUP
    starts[chunk.begins] = True
    first = np.flatnonzero(starts)
    return np.cumsum(starts) - 1, cut[first] != GROUP


def _cut_at_new_syns(chunk: Ordered, before: Table, cut: UInt8) -> None:
    place = np.flatnonzero((chunk.flags & (SYN | ACK)) == SYN)
    if not len(place):
        return
    generation, is_old = _generations(chunk, cut)
    of_tuple = np.searchsorted(chunk.begins, place, side="right") - 1
    end, sequence = chunk.end[place], chunk.sequence[place].astype(np.int64)
    side = generation[place] * 2 + end
    order = np.argsort(side, kind="stable")
    previous = np.full(len(place), UNKNOWN, np.int64)
    same = side[order[1:]] == side[order[:-1]]
    previous[order[1:][same]] = sequence[order[:-1][same]]
    carried = is_old[generation[place]]
    previous = np.where((previous < 0) & carried, before["syn"][of_tuple, end], previous)
    ahead = np.maximum(place - 1, 0)
    opener = np.where(chunk.flags[ahead] & SYN, chunk.end[ahead].astype(np.int8), UNKNOWN)
    opener = np.where(place == chunk.begins[of_tuple], before["opener"][of_tuple], opener)
    answers_syn = opener == 1 - end.astype(np.int8)
    new = np.where(previous >= 0, sequence != previous, ~answers_syn)
    cut[place[new & (cut[place] != GROUP)]] = NEW_SYN


def _remember_syns(chunk: Ordered, cut: UInt8, after: Table) -> None:
    generation, is_old = _generations(chunk, cut)
    last = generation[np.append(chunk.begins[1:], len(chunk)) - 1]
    after["syn"][~is_old[last]] = UNKNOWN
    place = np.flatnonzero((chunk.flags & (SYN | ACK)) == SYN)
    of_tuple = np.searchsorted(chunk.begins, place, side="right") - 1
    current = generation[place] == last[of_tuple]
    place, of_tuple = place[current], of_tuple[current]
    after["syn"][of_tuple, chunk.end[place]] = chunk.sequence[place]


def _cut_within(chunk: Ordered, before: Table, cut: UInt8, timeouts: Timeouts) -> None:
    """The cuts that hang on when the record was opened (active) and on how it stood (linger): a loop over cuts."""
    starts = cut != 0
    starts[chunk.begins] = True
    begins = np.flatnonzero(starts)
    ends = np.append(begins[1:], len(chunk))
    of_tuple = np.searchsorted(chunk.begins, begins, side="right") - 1
    goes_on = cut[begins] == 0
    opened = np.where(goes_on, before["opened_ns"][of_tuple], chunk.time_ns[begins])
    fins = np.where(goes_on, before["fins"][of_tuple], 0)
    doubtful = finished((fins | np.bitwise_or.reduceat(fins_of(chunk), begins)).astype(np.uint8))
    silence = np.zeros(len(chunk), np.int64)
    silence[1:] = np.diff(chunk.time_ns)
    silence[begins] = np.where(goes_on, chunk.time_ns[begins] - before["last_ns"][of_tuple], 0)
    if timeouts.linger_ns is None:
        doubtful[:] = False
    else:
        doubtful &= np.maximum.reduceat(silence, begins) > timeouts.linger_ns
    if timeouts.active_ns is not None:
        doubtful |= chunk.time_ns[ends - 1] - opened > timeouts.active_ns
    for one in np.flatnonzero(doubtful).tolist():
        span = slice(int(begins[one]), int(ends[one]))
        part = _Part(chunk.time_ns[span], silence[span], fins_of(chunk, span), int(opened[one]), int(fins[one]))
        for at, kind in part.cuts(timeouts):
            cut[span.start + at] = kind


@dataclass(slots=True)
class _Part:
    """Packets of a tuple that no other rule cuts, and the state of the record that they find."""

    time_ns: Int64
    silence_ns: Int64
    fins: UInt8
    opened_ns: int
    seen: int

    def cuts(self, timeouts: Timeouts) -> Iterator[tuple[int, int]]:
        quiet = np.zeros(0, np.int64)
        if timeouts.linger_ns is not None:
            quiet = np.flatnonzero(self.silence_ns > timeouts.linger_ns)
        at, count = 0, len(self.time_ns)
        while True:
            due, kind = count, 0
            if timeouts.active_ns is not None:
                due = int(np.searchsorted(self.time_ns, self.opened_ns + timeouts.active_ns, side="right"))
                kind = ACTIVE if due < count else 0
            if len(quiet):
                before = np.concatenate((np.array([self.seen], np.uint8), self.fins[at:]))
                over = finished(np.bitwise_or.accumulate(before)[quiet - at])
                if over.any() and quiet[over][0] <= due:
                    due, kind = int(quiet[over][0]), LINGER
            if kind == 0:
                return
            yield due, kind
            at, self.opened_ns, self.seen = due, int(self.time_ns[due]), 0
            quiet = quiet[quiet > due]


def _ordinals(kinds: UInt8, first: Bool, before: npt.NDArray[np.int32]) -> Int64:
    place = np.arange(len(kinds))
    starts = first | (kinds == GROUP)
    begin = np.maximum.accumulate(np.where(starts, place, 0))
    new = kinds[begin] == GROUP
    carried = before.astype(np.int64) + (kinds[begin] != 0)
    ordinal: Int64 = place - begin + np.where(new, 0, carried)
    return ordinal


def _witnesses(
    packets: Packets, chunk: Ordered, before: Table, begins: Int64, kinds: UInt8, first: Bool
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """For every segment the ends that ask, that answer, and that are guessed to ask, as known at its last packet."""
    starts = first | (kinds == GROUP) | (kinds == NEW_SYN)
    epoch = np.cumsum(starts) - 1
    heads = np.flatnonzero(starts)
    carried = (kinds[heads] != GROUP) & (kinds[heads] != NEW_SYN)
    of_tuple = (np.cumsum(first) - 1)[heads]
    opening = (chunk.flags & (SYN | ACK)) == SYN
    answering = (chunk.flags & (SYN | ACK)) == (SYN | ACK)
    protocol = chunk.protocol
    icmp = np.flatnonzero((protocol == ICMP) | (protocol == ICMPV6))
    if len(icmp):
        kind, four = packets.icmp_type[chunk.row[icmp]], protocol[icmp] == ICMP
        opening[icmp] = kind == np.where(four, ICMP_ECHO_REQUEST, ICMPV6_ECHO_REQUEST)
        answering[icmp] = kind == np.where(four, ICMP_ECHO_REPLY, ICMPV6_ECHO_REPLY)
    last = np.append(begins[1:], len(chunk)) - 1
    found = []
    for name, witness in (("asks", opening), ("answers", answering)):
        place = np.flatnonzero(witness)
        of_epoch, at = np.unique(epoch[np.searchsorted(begins, place, side="right") - 1], return_index=True)
        earliest = np.full(len(heads), len(chunk), np.int64)
        earliest[of_epoch] = place[at]
        known = np.where(carried, before[name][of_tuple], UNKNOWN)[epoch]
        here = earliest[epoch]
        end = chunk.end[np.minimum(here, len(chunk) - 1)].astype(np.int8)
        found.append(np.where(known >= 0, known, np.where(here <= last, end, UNKNOWN)).astype(np.int8))
    row = chunk.row[begins[heads]]
    from_service = packets.source_port[row] < _WELL_KNOWN_PORTS
    to_service = packets.destination_port[row] < _WELL_KNOWN_PORTS
    ported = ~np.isin(protocol[begins[heads]], (ICMP, ICMPV6))
    as_sent = ~ported | (from_service == to_service) | to_service
    sender = chunk.end[begins[heads]]
    guess = np.where(carried, before["guess"][of_tuple], np.where(as_sent, sender, 1 - sender)).astype(np.int8)[epoch]
    return found[0], found[1], guess
