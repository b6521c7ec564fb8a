"""The flows that are open, brought up to date a chunk of packets at a time, and told when they have ended.

What is kept is a row per open flow, never a packet. Knows the rules of replay.biflow, replay.coverage and
replay.first_words by name only; knows no table that leaves the meter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from replay.biflow import (
    IDLE,
    NEVER_NS,
    TUPLE,
    UNKNOWN,
    Ordered,
    Segments,
    Table,
    Timeouts,
    finished,
    members,
    ordered,
    segmented,
)
from replay.columns import ACK, FIN, RST, SYN, TCP, Int64, Packets, UInt8, UInt16
from replay.coverage import LANE, Runs, covered, holes, lane_order
from replay.denials import Denials, Met
from replay.first_words import COLLECTED, FirstWords, Listener, Saying
from replay.tuples import WORDS, EndPoints, Numbering, end_points

SYN_ACK, ESTABLISHED, RST_NUMBERED, TRUNCATED = 0x100, 0x200, 0x400, 0x800

# An open flow record; what has two fields is by end: the lesser, then the greater.
RECORD = np.dtype(
    [
        ("number", np.int64),
        ("ordinal", np.int64),
        ("start_ns", np.int64),
        ("end_ns", np.int64),
        ("packets", np.int64, 2),
        ("octets", np.int64, 2),
        ("facts", np.uint16, 2),  # TCP flags seen, and the facts above
        ("close", np.uint8),  # 0, or 1 + the end that closed first + 2 when it was by RST
        ("forward", np.uint8),
        ("cut_by", np.uint8),
        ("denied", np.uint8),  # bit of the end whose packet an ICMP error refused
        ("words", np.uint8, 2),
        ("lane", LANE, 2),
    ]
)


@dataclass(frozen=True, slots=True)
class Ended:
    """Flow records that ended, by flow number: the records, their tuples, which lanes have holes, what was said."""

    records: Table
    ends: EndPoints
    torn: npt.NDArray[np.bool_]
    said: dict[int, Saying]

    def __len__(self) -> int:
        return len(self.records)

    @classmethod
    def joined(cls, parts: Sequence[Ended]) -> Ended:
        """All of them, by flow number."""
        records = np.concatenate([part.records for part in parts])
        order = np.argsort(records["number"], kind="stable")
        ends = EndPoints(
            *(np.concatenate([getattr(part.ends, one.name) for part in parts])[order] for one in fields(EndPoints))
        )
        said = {lane: words for part in parts for lane, words in part.said.items()}
        return cls(records[order], ends, np.concatenate([part.torn for part in parts])[order], said)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The ends of some rows of packets."""

    source_address: UInt8
    destination_address: UInt8
    source_port: UInt16
    destination_port: UInt16
    protocol: UInt8
    version: UInt8

    @classmethod
    def of(cls, packets: Packets, rows: Int64) -> _Chosen:
        """The ends of these rows."""
        return cls(*(getattr(packets, one.name)[rows] for one in fields(cls)))


@dataclass(frozen=True, slots=True)
class Assigned:
    """The packets of a chunk that are of flows: the row in the chunk, its flow's number, the sending end."""

    row: Int64
    flow: Int64
    end: UInt8


@dataclass(slots=True)
class FlowTable:
    """Open flows, fed chunk after chunk; flows are numbered from 0 by their first packet."""

    numbering: Numbering
    timeouts: Timeouts
    skipped: Counter[str] = field(default_factory=Counter)
    now_ns: int = NEVER_NS
    _known: Table = field(default_factory=lambda: np.zeros(0, TUPLE))
    _open: Table = field(default_factory=lambda: np.zeros(0, RECORD))
    _runs: Runs = field(default_factory=dict)
    _words: FirstWords = field(default_factory=FirstWords)
    _denials: Denials = field(default_factory=Denials)
    _next: int = 0

    def feed(self, packets: Packets) -> tuple[Assigned, Ended]:
        """Add a chunk, later than all before; returns whose its packets are, and the flows that ended."""
        gone: list[tuple[Int64, Table]] = []
        assigned = _NONE_ASSIGNED
        if len(packets):
            self.now_ns = max(self.now_ns, int(packets.time_ns[-1]))
            rows = members(packets)
            numbers, ends = self.numbering.numbered(packets if rows is None else _Chosen.of(packets, rows))
            quoted = self.numbering.numbered(packets.quotes)
            self._grow(self.numbering.count())
            chunk = ordered(packets, rows, numbers, ends, self.numbering.by_number(numbers))
            if len(chunk):
                assigned = self._add(packets, chunk, quoted, gone)
            elif len(quoted[0]):
                self._denials.meet(packets, quoted, None, self._known, self._open, self.timeouts)
            gone.append(self._expired())
            self._count_denials(self._denials.expired(self.now_ns, self.timeouts))
        ended = self._ended(gone)
        if self.timeouts.forget_ns is not None:
            self._forget(self.timeouts.forget_ns)
        return assigned, ended

    def finish(self) -> Ended:
        """The flows that are still open, ended by the end of the stream."""
        left = np.flatnonzero(self._known["is_open"])
        self._known["is_open"] = False
        self._count_denials(self._denials.left())
        return self._ended([(left, self._open[left])])

    def _add(
        self, packets: Packets, chunk: Ordered, quoted: tuple[Int64, UInt8], gone: list[tuple[Int64, Table]]
    ) -> Assigned:
        tuples = chunk.tuple[chunk.begins]
        before = self._known[tuples]
        segments = segmented(packets, chunk, self._known, self.timeouts)
        owner = chunk.tuple[segments.begins]
        part = self._records(packets, chunk, segments, owner)
        self._cover(packets, chunk, segments, part)
        first = np.searchsorted(segments.begins, chunk.begins)
        cut = before["is_open"] & ~segments.continues[first]
        old = self._open[tuples[cut]]
        old["cut_by"] = segments.ended_by[first[cut]]
        if len(quoted[0]) or self._denials.waits():
            met = Met(chunk, segments, before, part, old, np.flatnonzero(cut))
            self._denials.meet(packets, quoted, met, self._known, self._open, self.timeouts)
        last = np.append(first[1:], len(part)) - 1
        over = np.ones(len(part), np.bool_)
        over[last] = False
        part["cut_by"][over] = segments.ended_by[np.flatnonzero(over) + 1]
        gone += [(tuples[cut], old), (owner[over], part[over])]
        self._open[tuples] = part[last]
        return Assigned(chunk.row, part["number"][segments.of_row], chunk.end)

    def _records(self, packets: Packets, chunk: Ordered, segments: Segments, owner: Int64) -> Table:
        """A record for every segment, with what its flow's record held before."""
        begins, last = segments.begins, np.append(segments.begins[1:], len(chunk)) - 1
        part = np.zeros(len(segments), RECORD)
        part[segments.continues] = self._open[owner[segments.continues]]
        new = np.flatnonzero(~segments.continues)
        rank = np.empty(len(new), np.int64)
        rank[np.argsort(chunk.row[begins[new]], kind="stable")] = np.arange(len(new))
        part["number"][new] = self._next + rank
        self._next += len(new)
        part["start_ns"][new] = chunk.time_ns[begins[new]]
        part["end_ns"] = chunk.time_ns[last]
        part["ordinal"], part["forward"] = segments.ordinal, segments.forward
        octets = packets.ip_octets[chunk.row]
        for name, each in (("packets", np.int64(1)), ("octets", octets)):
            greater = np.add.reduceat(chunk.end * each, begins, dtype=np.int64)
            both = last - begins + 1 if name == "packets" else np.add.reduceat(each, begins, dtype=np.int64)
            part[name] += np.stack((both - greater, greater), axis=1)
        facts = _FACTS[chunk.flags].astype(np.uint32)
        reset = np.flatnonzero(chunk.flags & RST)
        facts[reset[chunk.sequence[reset] != 0]] |= RST_NUMBERED
        if len(short := np.flatnonzero(packets.captured_octets < packets.payload_octets)):
            is_short = np.zeros(len(packets), np.bool_)
            is_short[short] = True
            facts[is_short[chunk.row]] |= TRUNCATED
        seen = np.bitwise_or.reduceat(facts << (chunk.end.astype(np.uint32) << np.uint32(4)), begins)
        part["facts"] |= np.stack((seen & np.uint32(0xFFFF), seen >> np.uint32(16)), axis=1).astype(np.uint16)
        closing = np.flatnonzero(chunk.flags & (FIN | RST))
        which, at = np.unique(segments.of_row[closing], return_index=True)
        place = closing[at]
        close = 1 + chunk.end[place] + np.where(chunk.flags[place] & RST, 2, 0)
        part["close"][which] = np.where(part["close"][which] == 0, close, part["close"][which])
        return part

    def _cover(self, packets: Packets, chunk: Ordered, segments: Segments, part: Table) -> None:
        """Streams and first words of the chunk's TCP lanes; first words of DNS datagrams."""
        place = np.flatnonzero(chunk.protocol == TCP)
        listener = Listener(packets, chunk, self._words)
        if len(place) < len(chunk):
            listener.datagrams(segments, part)
        if not len(place):
            return
        segment, end = segments.of_row[place], chunk.end[place]
        fresh = np.ones(len(place), np.bool_)
        fresh[1:] = segment[1:] != segment[:-1]
        begins = np.flatnonzero(fresh)
        by_lane = lane_order(np.cumsum(fresh) - 1, end, begins)
        place = place[by_lane]
        lane = segments.of_row[place] * 2 + chunk.end[place]
        fresh[1:] = lane[1:] != lane[:-1]
        begins = np.flatnonzero(fresh)
        which = (lane[begins] >> 1, lane[begins] & 1)
        lanes = part["lane"][which]
        lanes["number"] = part["number"][which[0]] * 2 + which[1]
        payload = packets.payload_octets[chunk.row[place]]
        syn = (chunk.flags[place] & SYN) != 0
        placed = covered(lanes, self._runs, begins, chunk.sequence[place], syn, payload)
        part["lane"][which] = lanes
        if len(placed.at):
            words = part["words"][which]
            listener.stream(lanes, words, placed, place[placed.at])
            part["words"][which] = words

    def _expired(self) -> tuple[Int64, Table]:
        """The open flows that any later packet would find ended by silence."""
        if self.timeouts.idle_ns is None and self.timeouts.linger_ns is None:
            return np.zeros(0, np.int64), self._open[:0]
        silent = np.zeros(len(self._known), np.bool_)
        silence_ns = self.now_ns - np.where(self._known["is_open"], self._known["last_ns"], self.now_ns)
        if self.timeouts.idle_ns is not None:
            silent |= silence_ns > self.timeouts.idle_ns
        if self.timeouts.linger_ns is not None:
            silent |= (silence_ns > self.timeouts.linger_ns) & finished(self._known["fins"])
        gone = np.flatnonzero(silent)
        self._known["is_open"][gone] = False
        records = self._open[gone]
        records["cut_by"] = IDLE
        return gone, records

    def _ended(self, gone: list[tuple[Int64, Table]]) -> Ended:
        if not any(len(numbers) for numbers, _ in gone):
            return _NONE_ENDED
        tuples = np.concatenate([np.zeros(0, np.int64), *(numbers for numbers, _ in gone)])
        records = np.concatenate([np.zeros(0, RECORD), *(kept for _, kept in gone)])
        order = np.argsort(records["number"], kind="stable")
        tuples, records = tuples[order], records[order]
        lanes = records["lane"].reshape(-1)
        torn, large = holes(lanes, self._runs)
        if large:
            self.skipped["stream_hole"] += large
        if self._runs:
            for number in lanes["number"][lanes["heard"]].tolist():
                self._runs.pop(number, None)
        said: dict[int, Saying] = {}
        row, end = np.nonzero(records["words"] == COLLECTED)
        for lane in (records["number"][row] * 2 + end).tolist():
            if (heard := self._words.pop(lane)) is not None:
                said[lane] = heard
        return Ended(records, end_points(self.numbering.words()[tuples]), torn.reshape(-1, 2), said)

    def _grow(self, count: int) -> None:
        if count > len(self._known):
            more = max(count, 2 * len(self._known), 1024) - len(self._known)
            new = np.zeros(more, TUPLE)
            new["last_ns"] = NEVER_NS
            new["syn"] = new["opener"][:, None] = UNKNOWN
            self._known = np.concatenate((self._known, new))
            self._open = np.concatenate((self._open, np.zeros(more, RECORD)))

    def _forget(self, forget_ns: int) -> None:
        """Give up what is known of tuples long silent, when they are more than the others."""
        count = self.numbering.count()
        known = self._known[:count]
        kept = known["is_open"] | ((known["last_ns"] != NEVER_NS) & (self.now_ns - known["last_ns"] <= forget_ns))
        kept[self._denials.tuples()] = True
        if count < _FEW or 2 * int(kept.sum()) > count:
            return
        left = np.flatnonzero(kept)
        self.numbering.keep(left)
        self._known, self._open = known[left], self._open[left]
        self._denials.renumbered(left)

    def _count_denials(self, count: int) -> None:
        if count:
            self.skipped["icmp_error_without_flow"] += count


_FEW = 4096
_NONE_ASSIGNED = Assigned(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))


_NONE_ENDED = Ended(np.zeros(0, RECORD), end_points(np.zeros((0, WORDS), np.uint64)), np.zeros((0, 2), np.bool_), {})


def _facts() -> npt.NDArray[np.uint16]:
    flags = np.arange(256, dtype=np.uint16)
    facts = flags.copy()
    facts[(flags & (SYN | ACK)) == (SYN | ACK)] |= SYN_ACK
    facts[(flags & (SYN | RST | ACK)) == ACK] |= ESTABLISHED
    return facts


_FACTS = _facts()
