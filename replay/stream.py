"""Where in its flow's byte stream every packet lies, and which bytes are new. Knows positions and times, no content.

TCP positions count from the initial sequence number plus one and are unwrapped beyond 2^32; other protocols
count octets sent.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replay.biflow import Biflows
from replay.columns import FIN, SYN, TCP, Bool, Int64, Packets

# A hole larger than this is a capture that lost more than a message's worth: its size is not believed.
LARGEST_HOLE_OCTETS = 1 << 20


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


def positions(packets: Packets, flows: Biflows) -> tuple[Positions, Pieces, Counter[str]]:
    """Place every packet in its stream, find retransmissions, and cut the payload into pieces of new bytes."""
    skipped: Counter[str] = Counter()
    rows = flows.packet
    side = flows.flow * 2 + flows.direction
    is_tcp = packets.protocol[rows] == TCP
    octets = packets.payload_octets[rows].astype(np.int64)
    order = np.argsort(side, kind="stable")
    offset = np.zeros(len(rows), np.int64)
    if len(rows):
        offset[order] = np.where(
            is_tcp[order],
            _tcp_offsets(packets, rows[order], side[order], octets[order]),
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
    retransmission |= _repeated_flag(packets, rows, side, SYN) | _repeated_flag(packets, rows, side, FIN)
    pieces = _ordered(packets, flows, side, place, at, size, skip, skipped)
    return Positions(offset, retransmission), pieces, skipped


def _tcp_offsets(packets: Packets, rows: Int64, side: Int64, octets: Int64) -> Int64:
    """Unwrapped sequence numbers by lane (flow and direction), from the SYN's or else from the lowest byte carried."""
    syn = (packets.tcp_flags[rows] & SYN) != 0
    sequence = packets.sequence[rows].astype(np.int64) + syn
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


def _repeated_flag(packets: Packets, rows: Int64, side: Int64, flag: int) -> Bool:
    flagged = np.flatnonzero((packets.protocol[rows] == TCP) & ((packets.tcp_flags[rows] & flag) != 0))
    repeated = np.zeros(len(rows), np.bool_)
    repeated[flagged] = pd.Series(side[flagged]).duplicated().to_numpy()
    bare: Bool = repeated & (packets.payload_octets[rows] == 0)
    return bare


def _ordered(
    packets: Packets,
    flows: Biflows,
    side: Int64,
    place: Int64,
    at: Int64,
    size: Int64,
    skip: Int64,
    skipped: Counter[str],
) -> Pieces:
    """TCP pieces and datagrams of all flows in the order in which their senders wrote them."""
    order = np.lexsort((at, side[place]))
    place, at, size, skip = place[order], at[order], size[order], skip[order]
    lane = side[place]
    written = pd.Series(place[::-1]).groupby(lane[::-1]).cummin().to_numpy()[::-1] if len(place) else place
    reached = np.zeros(len(place), np.int64)
    reached[1:] = np.where(lane[1:] == lane[:-1], at[:-1] + size[:-1], 0)
    hole = np.maximum(at - reached, 0)
    lost = hole > LARGEST_HOLE_OCTETS
    if lost.any():
        skipped["stream_hole"] += int(lost.sum())
    rows = flows.packet
    datagrams = np.flatnonzero(packets.protocol[rows] != TCP)
    place_of = np.zeros(len(packets), np.int64)
    place_of[rows] = np.arange(len(rows))
    position = packets.fragment_octets[rows[datagrams]].astype(np.int64)
    columns = (
        np.concatenate((place, datagrams)),
        np.concatenate((written, place_of[packets.datagram[rows[datagrams]]])),
        np.concatenate((at, position)),
        np.concatenate((size, packets.payload_octets[rows[datagrams]].astype(np.int64))),
        np.concatenate((skip, np.zeros(len(datagrams), np.int64))),
        np.concatenate((np.where(lost, -1, hole), np.zeros(len(datagrams), np.int64))),
    )
    order = np.lexsort((columns[2], columns[1]))
    return Pieces(*(column[order] for column in columns))
