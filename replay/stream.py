"""Where in its flow's byte stream every packet lies, and which bytes are new. Knows positions and times, no content.

TCP positions count from the initial sequence number plus one and are unwrapped beyond 2^32; other protocols
count octets sent.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replay.columns import FIN, SYN, TCP, Bool, Int64
from replay.coverage import LARGEST_HOLE_OCTETS
from replay.rows import Biflows, Rows


@dataclass(frozen=True, slots=True)
class Positions:
    """Beside the packets of Biflows: position of the first payload byte, and whether all of it was sent before."""

    stream_offset: Int64
    retransmission: Bool


@dataclass(frozen=True, slots=True)
class Pieces:
    """The new payload of a flow, each byte once, ordered by flow and by when its sender must have written it.

    `place` is the packet's place in Biflows that carried it first, `written` the place that dates it: a byte
    that came late because its first transmission was lost is dated by the bytes behind it. `hole_octets` before
    the piece were never seen.
    """

    place: Int64
    written: Int64
    stream_offset: Int64
    octets: Int64
    skip_octets: Int64
    hole_octets: Int64

    def __len__(self) -> int:
        return len(self.place)


def positions(flows: Biflows) -> tuple[Positions, Pieces]:
    """Place every packet in its stream, find retransmissions, and cut the payload into pieces of new bytes."""
    rows = flows.rows
    side = flows.flow * 2 + flows.direction
    is_tcp = rows.protocol == TCP
    octets = rows.payload_octets.astype(np.int64)
    order = np.argsort(side, kind="stable")
    offset = np.zeros(len(rows), np.int64)
    if len(rows):
        offset[order] = np.where(
            is_tcp[order],
            _tcp_offsets(rows.taken(order), side[order], octets[order]),
            _running_octets(side[order], octets[order]),
        )
    carried = np.flatnonzero(is_tcp & (octets > 0))
    by_position = carried[np.lexsort((carried, offset[carried] + octets[carried], offset[carried], side[carried]))]
    begin, end, lane = offset[by_position], offset[by_position] + octets[by_position], side[by_position]
    repeated = _repeated_exactly(begin, end, lane) | (end <= 0)
    overlapping = _overlapping_lanes(begin, end, lane, repeated)
    plain = by_position[~repeated & ~np.isin(lane, overlapping)]
    skip, kept = np.maximum(-offset[plain], 0), plain
    place, at, size = kept, offset[plain] + skip, octets[plain] - skip
    if len(overlapping):
        mixed = carried[np.isin(side[carried], overlapping)]
        extra = _new_bytes(mixed, offset[mixed], octets[mixed], side[mixed])
        place = np.concatenate((place, extra[0]))
        skip = np.concatenate((skip, extra[1]))
        at, size = offset[place] + skip, np.concatenate((size, extra[2]))
    retransmission = np.zeros(len(rows), np.bool_)
    retransmission[carried] = True
    retransmission[place] = False
    retransmission |= _repeated_flag(rows, side, SYN) | _repeated_flag(rows, side, FIN)
    return Positions(offset, retransmission), _ordered(rows, side, place, at, size, skip)


def _tcp_offsets(rows: Rows, side: Int64, octets: Int64) -> Int64:
    """Unwrapped sequence numbers by lane (flow and direction), from the SYN's or else from the lowest byte carried."""
    syn = (rows.tcp_flags & SYN) != 0
    sequence = rows.sequence.astype(np.int64) + syn
    step = np.zeros(len(rows), np.int64)
    step[1:] = (np.diff(sequence) + (1 << 31)) % (1 << 32) - (1 << 31)
    running = np.cumsum(step)
    begins, lane = _lanes(side)
    place = np.arange(len(rows))
    never = len(rows)
    first_syn = np.minimum.reduceat(np.where(syn, place, never), begins)
    far = np.iinfo(np.int64).max
    lowest = np.minimum.reduceat(np.where(octets > 0, running, far), begins)
    base = np.where(lowest == far, running[begins], lowest)
    base = np.where(first_syn < never, running[np.minimum(first_syn, never - 1)], base)
    offset: Int64 = running - base[lane]
    return offset


def _running_octets(side: Int64, octets: Int64) -> Int64:
    before = np.cumsum(octets) - octets
    begins, lane = _lanes(side)
    running: Int64 = before - before[begins][lane]
    return running


def _lanes(side: Int64) -> tuple[Int64, Int64]:
    changed = np.ones(len(side), np.bool_)
    changed[1:] = side[1:] != side[:-1]
    return np.flatnonzero(changed), np.cumsum(changed) - 1


def _repeated_exactly(begin: Int64, end: Int64, lane: Int64) -> Bool:
    repeated = np.zeros(len(begin), np.bool_)
    repeated[1:] = (begin[1:] == begin[:-1]) & (end[1:] == end[:-1]) & (lane[1:] == lane[:-1])
    return repeated


def _overlapping_lanes(begin: Int64, end: Int64, lane: Int64, repeated: Bool) -> Int64:
    fresh = ~repeated
    begin, end, lane = begin[fresh], end[fresh], lane[fresh]
    if not len(begin):
        return lane
    reached = pd.Series(end).groupby(lane).cummax().to_numpy()
    overlaps = np.zeros(len(begin), np.bool_)
    overlaps[1:] = (lane[1:] == lane[:-1]) & (begin[1:] < reached[:-1])
    return np.unique(lane[overlaps])


def _new_bytes(place: Int64, offset: Int64, octets: Int64, side: Int64) -> tuple[Int64, Int64, Int64]:
    """Place, octets to skip and octets of every run of new bytes, for lanes whose segments overlap in part."""
    out: list[tuple[int, int, int]] = []
    seen: dict[int, list[tuple[int, int]]] = {}
    rows = zip(place.tolist(), offset.tolist(), octets.tolist(), side.tolist(), strict=True)
    for where, begin, size, lane in rows:
        covered = seen.setdefault(lane, [(-(1 << 62), 0)])
        out.extend(
            (where, gap_begin - begin, gap_end - gap_begin)
            for gap_begin, gap_end in _claimed(covered, begin, begin + size)
        )
    columns = np.array(out, dtype=np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def _claimed(covered: list[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    """Add begin:end to disjoint sorted intervals; return the parts that were free."""
    first = bisect_left(covered, (begin, begin))
    if first and covered[first - 1][1] >= begin:
        first -= 1
    last, free, at = first, [], begin
    low, high = begin, end
    while last < len(covered) and covered[last][0] <= end:
        if covered[last][0] > at:
            free.append((at, covered[last][0]))
        at = max(at, covered[last][1])
        low, high = min(low, covered[last][0]), max(high, covered[last][1])
        last += 1
    if at < end:
        free.append((at, end))
    covered[first:last] = [(low, high)]
    return free


def _repeated_flag(rows: Rows, side: Int64, flag: int) -> Bool:
    flagged = np.flatnonzero((rows.protocol == TCP) & ((rows.tcp_flags & flag) != 0))
    repeated = np.zeros(len(rows), np.bool_)
    repeated[flagged] = pd.Series(side[flagged]).duplicated().to_numpy()
    bare: Bool = repeated & (rows.payload_octets == 0)
    return bare


def _ordered(rows: Rows, side: Int64, place: Int64, at: Int64, size: Int64, skip: Int64) -> Pieces:
    """TCP pieces and datagrams of all flows in the order in which their senders wrote them."""
    order = np.lexsort((at, side[place]))
    place, at, size, skip = place[order], at[order], size[order], skip[order]
    lane = side[place]
    written = pd.Series(place[::-1]).groupby(lane[::-1]).cummin().to_numpy()[::-1] if len(place) else place
    reached = np.zeros(len(place), np.int64)
    reached[1:] = np.where(lane[1:] == lane[:-1], at[:-1] + size[:-1], 0)
    hole = np.maximum(at - reached, 0)
    lost = hole > LARGEST_HOLE_OCTETS
    datagrams = np.flatnonzero(rows.protocol != TCP)
    columns = (
        np.concatenate((place, datagrams)),
        np.concatenate((written, _first_fragments(rows, datagrams))),
        np.concatenate((at, rows.fragment_octets[datagrams].astype(np.int64))),
        np.concatenate((size, rows.payload_octets[datagrams].astype(np.int64))),
        np.concatenate((skip, np.zeros(len(datagrams), np.int64))),
        np.concatenate((np.where(lost, -1, hole), np.zeros(len(datagrams), np.int64))),
    )
    order = np.lexsort((columns[2], columns[1]))
    return Pieces(*(column[order] for column in columns))


def _first_fragments(rows: Rows, datagrams: Int64) -> Int64:
    """The place of each datagram's first fragment, its own where that one is in another flow record."""
    wanted = rows.datagram[datagrams]
    apart = np.flatnonzero(wanted != rows.packet[datagrams])
    places = datagrams.copy()
    if len(apart):
        by_packet = np.argsort(rows.packet, kind="stable")
        packets = rows.packet[by_packet]
        at = np.minimum(np.searchsorted(packets, wanted[apart]), len(packets) - 1)
        first = by_packet[at]
        found = (packets[at] == wanted[apart]) & (rows.flow[first] == rows.flow[datagrams[apart]])
        places[apart[found]] = first[found]
    return places
