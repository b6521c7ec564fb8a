"""The pcapng format: octets to records, as far as they are whole. Knows nothing of files, packing or packet headers.

Interfaces count from the block that describes them to the end of their section. A simple packet block has no time: it
is given that of the packet before it, and left out as `no_timestamp` when there is none. Format:
draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.capture.chain import Links, followed, overlapping_words
from replay.capture.records import Records
from replay.capture.recovery import RecordFormat, Stop
from replay.columns import Bool, Int64, UInt8, UInt32

SECTION_HEADER = 0x0A0D0D0A
_INTERFACE, _OBSOLETE_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
_PLAUSIBLE_KINDS = (_ENHANCED_PACKET, SECTION_HEADER, _INTERFACE, _OBSOLETE_PACKET, _SIMPLE_PACKET, 4, 5, 10)
_TIME_RESOLUTION_OPTION, _TIME_OFFSET_OPTION = 9, 14
_LATEST_S = (1 << 62) // 1_000_000_000
_LEAST_OCTETS, _MOST_OCTETS = 12, 1 << 24
_MOST_INTERFACES = 1 << 16


@dataclass(slots=True)
class Interface:
    """What an interface description block says; resolution as in the option if_tsresol."""

    link_type: int
    snaplen: int = 0
    resolution: int = 6
    offset_s: int = 0

    def times_ns(self, ticks: npt.NDArray[np.uint64]) -> tuple[Int64, Bool]:
        """Interface ticks as ns since 1970, and which of them are times at all."""
        exponent = self.resolution & 0x7F
        if self.resolution & 0x80:
            shift = np.uint64(min(exponent, 63))
            seconds = ticks >> shift
            fraction = ticks - (seconds << shift)
            kept = min(exponent, 32)
            nanoseconds = ((fraction >> np.uint64(min(exponent, 63) - kept)) * np.uint64(10**9)) >> np.uint64(kept)
        else:
            per_second = np.uint64(10 ** min(exponent, 19))
            seconds, fraction = ticks // per_second, ticks % per_second
            coarser, finer = 10 ** max(exponent - 9, 0), 10 ** max(9 - exponent, 0)
            nanoseconds = fraction // np.uint64(min(coarser, 1 << 63)) * np.uint64(finer)
        possible = seconds < np.uint64(_LATEST_S)
        whole = np.where(possible, seconds, np.uint64(0)).astype(np.int64) + self.offset_s
        possible &= (whole >= 0) & (whole < _LATEST_S)
        return np.where(possible, whole, 0) * 1_000_000_000 + nanoseconds.astype(np.int64), possible


class Pcapng(RecordFormat):
    """Reads one pcapng file's octets, which come in pieces; begins with a section header block."""

    def __init__(self) -> None:
        self._order = "<"
        self._interfaces: list[Interface] = []
        self._last_ns: int | None = None

    def links(self, data: UInt8, begin: int, end: int, final: bool) -> Links:
        """A plausible block is of a kind that holds or describes packets and ends with its own length again."""
        if begin + _LEAST_OCTETS <= end and not self.lost:
            self._order = _order_of(data, begin, self._order)
        words = overlapping_words(data, self._order)

        def looks(first: UInt32) -> Bool:
            packet: Bool = first == _ENHANCED_PACKET
            return packet if first.ndim > 1 else packet | np.isin(first, _PLAUSIBLE_KINDS)

        def plausible(at: Int64) -> Bool:
            length = words[np.minimum(at + 4, end)].astype(np.int64)
            possible = (length >= _LEAST_OCTETS) & (length <= _MOST_OCTETS) & (length % 4 == 0) & (at + length <= end)
            again = words[np.where(possible, at + length - 4, 0)]
            right: Bool = possible & (again == length)
            return right

        return Links(self._order, 4, 0, _LEAST_OCTETS, looks, plausible)

    def run(
        self, data: UInt8, begin: int, until: int, end: int, links: Links, skipped: Counter[str]
    ) -> tuple[Records, int, Stop]:
        """Blocks as far as they are whole and right, or to the next section, whose octets may be in another order."""
        at = followed(data, begin, until, links)
        at = at[: int(np.searchsorted(at, end - _LEAST_OCTETS, side="right"))]
        words = overlapping_words(data, links.order)
        kind, length = words[at].astype(np.uint32), words[at + 4].astype(np.int64)
        sections = np.flatnonzero(kind == SECTION_HEADER)
        other = sections[sections > 0]
        if len(other):
            at, kind, length = at[: other[0]], kind[: other[0]], length[: other[0]]
        wrong = (length < _LEAST_OCTETS) | (length % 4 != 0) | (length > _MOST_OCTETS)
        bad = np.flatnonzero(wrong | (at + length > end))
        count = int(bad[0]) if len(bad) else len(at)
        rest = int(at[count]) if len(bad) else int(at[-1] + length[-1]) if len(at) else begin
        table = self._packets(data, at[:count], kind[:count], length[:count], skipped)
        if len(bad):
            return table, rest, Stop.WRONG if wrong[count] else Stop.CUT
        if len(other):
            return table, rest, Stop.TURNED
        return table, rest, Stop.WALKED if rest >= until else Stop.CUT

    def _packets(self, data: UInt8, at: Int64, kind: UInt32, length: Int64, skipped: Counter[str]) -> Records:
        described = self._describe(data, at, kind, length)
        is_packet = ((kind == _ENHANCED_PACKET) | (kind == _OBSOLETE_PACKET)) & (length >= 32)
        simple = (kind == _SIMPLE_PACKET) & (length >= 16)
        chosen = np.flatnonzero(is_packet | simple)
        at, kind, length, simple = at[chosen], kind[chosen], length[chosen], simple[chosen]
        words = overlapping_words(data, self._order)
        third, fourth, fifth, sixth, seventh = (words[at + 4 * place].astype(np.int64) for place in range(2, 7))
        obsolete = third >> 16 if self._order == ">" else third & 0xFFFF
        interface = np.where(simple, 0, np.where(kind == _OBSOLETE_PACKET, obsolete, third))
        snaplen, link_type, known = self._about(interface, chosen, described)
        room = length - np.where(simple, 16, 32)
        captured = np.where(simple, np.minimum(np.minimum(third, room), np.where(snaplen > 0, snaplen, room)), sixth)
        time_ns, possible = self._times(
            interface, (fourth.astype(np.uint64) << np.uint64(32)) | fifth.astype(np.uint64)
        )
        inside = captured <= room
        timed = self._lend_times(time_ns, simple, known & inside & possible & ~simple)
        reasons = (
            ("unknown_interface", ~known),
            ("no_timestamp", known & simple & ~timed),
            ("damaged_record", known & ~inside),
            ("impossible_time", known & inside & ~simple & ~possible),
        )
        for reason, bad in reasons:
            if bad.any():
                skipped[reason] += int(bad.sum())
        kept = np.flatnonzero(known & inside & np.where(simple, timed, possible))
        return Records(
            data,
            (at + np.where(simple, 12, 28))[kept],
            captured[kept],
            np.where(simple, third, seventh)[kept],
            time_ns[kept],
            link_type[kept],
        )

    def _describe(self, data: UInt8, at: Int64, kind: UInt32, length: Int64) -> Int64:
        """Take in the interfaces that are described here; after which block each of the section's is known."""
        if len(kind) and kind[0] == SECTION_HEADER:
            self._interfaces = []
        known_from = [-1] * len(self._interfaces)
        for place in np.flatnonzero((kind == _INTERFACE) & (length >= 20)).tolist():
            if len(self._interfaces) < _MOST_INTERFACES:
                body = data[at[place] + 8 : at[place] + length[place] - 4].tobytes()
                self._interfaces.append(_interface(body, self._order))
                known_from.append(place)
        return np.array(known_from, np.int64)

    def _about(self, interface: Int64, place: Int64, described: Int64) -> tuple[Int64, Int64, Bool]:
        """Each packet's snaplen and link type, and whether its interface is described before it."""
        if not len(described):
            nothing = np.zeros(len(interface), np.int64)
            return nothing, nothing, np.zeros(len(interface), np.bool_)
        number = np.minimum(interface, len(described) - 1)
        snaplens = np.array([one.snaplen for one in self._interfaces], np.int64)
        link_types = np.array([one.link_type for one in self._interfaces], np.int64)
        known = (interface < len(described)) & (described[number] < place)
        return snaplens[number], link_types[number], known

    def _times(self, interface: Int64, ticks: npt.NDArray[np.uint64]) -> tuple[Int64, Bool]:
        if len(interface) and len(self._interfaces) == 1:
            return self._interfaces[0].times_ns(ticks)
        time_ns, possible = np.zeros(len(ticks), np.int64), np.ones(len(ticks), np.bool_)
        order = np.argsort(interface, kind="stable")
        bounds = np.searchsorted(interface[order], np.arange(len(self._interfaces) + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            mine = order[bounds[number] : bounds[number + 1]]
            time_ns[mine], possible[mine] = self._interfaces[number].times_ns(ticks[mine])
        return time_ns, possible

    def _lend_times(self, time_ns: Int64, simple: Bool, timed: Bool) -> Bool:
        """Give simple packets the time of the timed packet before them; says which packets have a time now."""
        before = np.maximum.accumulate(np.where(timed, np.arange(len(timed)), -1)) if len(timed) else np.zeros(0, int)
        if simple.any():
            lent = time_ns[np.maximum(before, 0)]
            earlier = -1 if self._last_ns is None else self._last_ns
            time_ns[simple] = np.where(before >= 0, lent, earlier)[simple]
        if len(timed) and before[-1] >= 0:
            self._last_ns = int(time_ns[before[-1]])
        has_time: Bool = timed | (simple & (time_ns >= 0))
        return has_time


def _order_of(data: UInt8, at: int, order: str) -> str:
    """The order of the section that begins here; the order so far when none does."""
    if data[at : at + 4].tobytes() != b"\x0a\x0d\x0d\x0a":
        return order
    return ">" if data[at + 8 : at + 12].tobytes() == b"\x1a\x2b\x3c\x4d" else "<"


def _interface(body: bytes, order: str) -> Interface:
    link_type, _, snaplen = struct.unpack_from(f"{order}HHI", body)
    interface = Interface(link_type, snaplen)
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 0:
            break
        if code == _TIME_RESOLUTION_OPTION and len(value) >= 1:
            interface.resolution = value[0]
        elif code == _TIME_OFFSET_OPTION and len(value) >= 8:
            seconds = struct.unpack_from(f"{order}q", value)[0]
            interface.offset_s = max(-_LATEST_S, min(seconds, _LATEST_S))
        at += 4 + length + -length % 4
    return interface
