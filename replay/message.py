"""Pieces of payload to messages: what a side said until the other spoke or a pause came. Knows no outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.columns import SYN, TCP, Bool, Int64, UInt8
from replay.payload import PayloadStore
from replay.rows import Biflows, Rows
from replay.spool import Spool
from replay.stream import Pieces


@dataclass(frozen=True, slots=True)
class Messages:
    """A message a row, ordered by flow and time; `payload_ref` is -1 where not every byte was captured."""

    flow: Int64
    sequence: Int64
    offset_ns: Int64
    gap_ns: Int64
    direction: UInt8
    octets: Int64
    payload_ref: Int64

    def __len__(self) -> int:
        return len(self.flow)


def messages(flows: Biflows, pieces: Pieces, pause_ns: int, spool: Spool) -> tuple[Messages, PayloadStore]:
    """Merge a side's TCP payload until the other speaks or it pauses beyond pause_ns; a datagram is a message.

    A message begins when its first byte was first sent. Its `gap_ns` is think time: since the last byte before
    it, the other side's or its own, so that replay does not count the network's delay twice; the first one's
    since the last SYN.
    """
    if not len(pieces):
        nothing = np.zeros(0, np.int64)
        none = Messages(nothing, nothing, nothing, nothing, np.zeros(0, np.uint8), nothing, nothing)
        return none, PayloadStore(spool.kept(nothing), nothing, nothing, np.zeros(1, np.int64))
    rows = flows.rows
    flow, direction = flows.flow[pieces.place], flows.direction[pieces.place]
    written_ns = rows.time_ns[pieces.written]
    begins = np.flatnonzero(_begins(rows.protocol[pieces.place] == TCP, flow, direction, written_ns, pieces, pause_ns))
    ends = np.append(begins[1:], len(pieces)) - 1

    owner = flow[begins]
    start_ns, end_ns = written_ns[begins], written_ns[ends]
    first = np.ones(len(begins), np.bool_)
    first[1:] = owner[1:] != owner[:-1]
    quiet_since = np.concatenate(([0], end_ns[:-1]))
    quiet_since[first] = _opened_ns(flows)[owner[first]]
    place = np.arange(len(begins))
    whole, store = _payloads(rows, pieces, begins, spool)
    made = Messages(
        flow=owner,
        sequence=place - np.maximum.accumulate(np.where(first, place, 0)),
        offset_ns=start_ns - rows.time_ns[flows.start[owner]],
        gap_ns=np.maximum(start_ns - quiet_since, 0),
        direction=direction[begins],
        octets=np.add.reduceat(pieces.octets + np.maximum(pieces.hole_octets, 0), begins),
        payload_ref=np.where(whole, np.cumsum(whole) - 1, -1),
    )
    return made, store


def _begins(is_tcp: Bool, flow: Int64, direction: UInt8, written_ns: Int64, pieces: Pieces, pause_ns: int) -> Bool:
    begins = np.ones(len(pieces), np.bool_)
    other_flow = flow[1:] != flow[:-1]
    turned = direction[1:] != direction[:-1]
    paused = np.diff(written_ns) > pause_ns
    lost = pieces.hole_octets[1:] < 0
    other_datagram = pieces.written[1:] != pieces.written[:-1]
    begins[1:] = other_flow | np.where(is_tcp[1:], turned | paused | lost, other_datagram)
    return begins


def _opened_ns(flows: Biflows) -> Int64:
    """When the last SYN of each flow passed, else its first packet."""
    time_ns = flows.rows.time_ns
    syn = (flows.rows.tcp_flags & SYN) != 0
    return np.maximum.reduceat(np.where(syn, time_ns, time_ns[flows.start[flows.flow]]), flows.start[:-1])


def _payloads(rows: Rows, pieces: Pieces, begins: Int64, spool: Spool) -> tuple[Bool, PayloadStore]:
    place = pieces.place
    complete = (rows.captured_octets[place] - pieces.skip_octets >= pieces.octets) & (pieces.hole_octets == 0)
    whole = np.logical_and.reduceat(complete, begins)
    sizes = np.diff(np.append(begins, len(pieces)))
    kept = np.repeat(whole, sizes)
    at = (rows.at[place] + pieces.skip_octets)[kept]
    start = np.concatenate(([0], np.cumsum(sizes[whole]))).astype(np.int64)
    return whole, PayloadStore(spool.kept(at), at, pieces.octets[kept], start)
