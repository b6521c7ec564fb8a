"""ICMP errors and the flows they speak of: which end's packet was refused. Knows no flag and no payload.

An error belongs to the record of the quoted five-tuple that was open when it passed, or to the next one, when that
begins within the idle timeout; it waits for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from replay.biflow import Ordered, Segments, Table, Timeouts, finished, fins_of
from replay.columns import ICMP, ICMPV6, Int64, Packets, UInt8

_FRAGMENTATION_NEEDED = 4
_UNREACHABLE, _UNREACHABLE_V6 = 3, 1


@dataclass(frozen=True, slots=True)
class Met:
    """A chunk as the meter cut it: `before` is what was known of each of its tuples, `part` its segments' records,
    `old` the records that the chunk ended before its first segment, of the tuples at the places `old_of`.
    """

    chunk: Ordered
    segments: Segments
    before: Table
    part: Table
    old: Table
    old_of: Int64


@dataclass(frozen=True, slots=True)
class _Error:
    row: int
    time_ns: int
    bit: int  # of the end whose packet was refused; 0 when the error refuses nothing


@dataclass(slots=True)
class Denials:
    """The errors whose flow has not been seen yet, by the tuple they quote."""

    _waiting: dict[int, list[_Error]] = field(default_factory=dict)

    def waits(self) -> bool:
        """Whether any error waits for its flow."""
        return bool(self._waiting)

    def meet(
        self,
        packets: Packets,
        quoted: tuple[Int64, UInt8],
        met: Met | None,
        known: Table,
        opened: Table,
        timeouts: Timeouts,
    ) -> None:
        """Mark the records that the waiting errors and those of a chunk speak of; the others wait on."""
        if met is not None and self._waiting:
            self._meet_waiting(met, timeouts)
        for number, error in zip(quoted[0].tolist(), _errors(packets, quoted[1]), strict=True):
            place = _place(met, number)
            if met is None or place < 0:
                one = known[number]
                if one["is_open"] and _alive(error, int(one["last_ns"]), one["fins"], timeouts):
                    opened["denied"][number] |= error.bit
                else:
                    self._waiting.setdefault(number, []).append(error)
            elif not _met_here(met, place, error, timeouts):
                self._waiting.setdefault(number, []).append(error)

    def expired(self, now_ns: int, timeouts: Timeouts) -> int:
        """Give up the errors that no later flow can answer to; returns how many."""
        if timeouts.idle_ns is None or not self._waiting:
            return 0
        count = self.left()
        since_ns = now_ns - timeouts.idle_ns
        kept = {number: [one for one in errors if one.time_ns >= since_ns] for number, errors in self._waiting.items()}
        self._waiting = {number: errors for number, errors in kept.items() if errors}
        return count - self.left()

    def left(self) -> int:
        """How many errors wait."""
        return sum(map(len, self._waiting.values()))

    def tuples(self) -> list[int]:
        """The tuples that errors wait for."""
        return list(self._waiting)

    def renumbered(self, kept: Int64) -> None:
        """Follow the numbering, which kept these tuples in this order."""
        new = {old: number for number, old in enumerate(kept.tolist())}
        self._waiting = {new[number]: errors for number, errors in self._waiting.items()}

    def _meet_waiting(self, met: Met, timeouts: Timeouts) -> None:
        for number in self.tuples():
            place = _place(met, number)
            if place >= 0:
                segment = int(met.segments.of_row[met.chunk.begins[place]])
                errors = self._waiting.pop(number)
                left = [error for error in errors if not _answered(met, segment, error, timeouts)]
                if left:
                    self._waiting[number] = left


def _errors(packets: Packets, ends: UInt8) -> Iterable[_Error]:
    row = packets.quotes.packet
    kind, code, protocol = packets.icmp_type[row], packets.icmp_code[row], packets.protocol[row]
    refuses = (protocol == ICMP) & (kind == _UNREACHABLE) & (code != _FRAGMENTATION_NEEDED)
    refuses |= (protocol == ICMPV6) & (kind == _UNREACHABLE_V6)
    bits = np.where(refuses, 1 << ends, 0)
    return map(_Error, row.tolist(), packets.time_ns[row].tolist(), bits.tolist())


def _place(met: Met | None, number: int) -> int:
    """Which of the chunk's tuples this is, -1 when it has no packet here."""
    if met is None:
        return -1
    tuples = met.chunk.tuple[met.chunk.begins]
    place = int(np.searchsorted(tuples, number))
    return place if place < len(tuples) and tuples[place] == number else -1


def _met_here(met: Met, place: int, error: _Error, timeouts: Timeouts) -> bool:
    """Mark the record that the error speaks of, in a chunk that has packets of its tuple; False when there is none."""
    chunk, segments = met.chunk, met.segments
    begin = int(chunk.begins[place])
    until = int(chunk.begins[place + 1]) if place + 1 < len(chunk.begins) else len(chunk)
    at = begin + int(np.searchsorted(chunk.row[begin:until], error.row)) - 1
    first = int(segments.of_row[begin])
    before = met.before[place]
    if at < begin:
        if before["is_open"] and _alive(error, int(before["last_ns"]), before["fins"], timeouts):
            if segments.continues[first]:
                met.part["denied"][first] |= error.bit
            else:
                met.old["denied"][np.searchsorted(met.old_of, place)] |= error.bit
            return True
        return _answered(met, first, error, timeouts)
    segment = int(segments.of_row[at])
    fins = before["fins"] if segments.continues[segment] else np.uint8(0)
    if timeouts.linger_ns is not None:
        span = slice(int(segments.begins[segment]), at + 1)
        fins = fins | np.bitwise_or.reduce(fins_of(chunk, span))
    if _alive(error, int(chunk.time_ns[at]), fins, timeouts):
        met.part["denied"][segment] |= error.bit
        return True
    following = segment + 1
    if following < len(segments) and chunk.tuple[segments.begins[following]] == chunk.tuple[at]:
        return _answered(met, following, error, timeouts)
    return False


def _alive(error: _Error, last_ns: int, fins: np.uint8, timeouts: Timeouts) -> bool:
    silence_ns = error.time_ns - last_ns
    if timeouts.idle_ns is not None and silence_ns > timeouts.idle_ns:
        return False
    lingers = timeouts.linger_ns is not None and bool(finished(np.asarray(fins)))
    return not (lingers and silence_ns > (timeouts.linger_ns or 0))


def _answered(met: Met, segment: int, error: _Error, timeouts: Timeouts) -> bool:
    """Whether the record of this segment, which begins after the error, may be its flow; it is marked then."""
    begins_ns = int(met.part["start_ns"][segment])
    if timeouts.idle_ns is not None and begins_ns - error.time_ns > timeouts.idle_ns:
        return False
    met.part["denied"][segment] |= error.bit
    return True
