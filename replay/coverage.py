"""Which bytes of a TCP stream were seen: whether it has holes. Knows sequence numbers by lane, no content and no time.

A lane is one direction of one flow. Positions are sequence numbers unwrapped beyond 2^32, a SYN's own number plus
one. Nearly every lane arrives in order and is two numbers; a lane with holes keeps its runs of bytes in a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from replay.biflow import Table
from replay.columns import Bool, Int32, Int64, UInt8, UInt32

# A hole larger than this is a capture that lost more than a message's worth: its size is not believed.
LARGEST_HOLE_OCTETS = 1 << 20
_MOST_RUNS = 4096

LANE = np.dtype(
    [
        ("number", np.int64),  # the flow's number * 2 + the sending end
        ("heard", np.bool_),  # any TCP packet
        ("synchronised", np.bool_),  # `base` is the SYN's
        ("late", np.bool_),  # the SYN came after payload
        ("carried", np.bool_),  # any payload: `low` and `reach` mean something
        ("torn", np.bool_),  # more holes than are kept
        ("sequence", np.uint32),
        ("running", np.int64),
        ("base", np.int64),
        ("low", np.int64),
        ("reach", np.int64),
    ]
)
Runs = dict[int, list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Placed:
    """TCP packets by lane, then time: the rows with payload, where each one's payload lies, and its lane."""

    begin: Int64
    end: Int64
    lane: Int64
    at: Int64


def covered(lanes: Table, runs: Runs, begins: Int64, sequence: UInt32, syn: Bool, octets: Int32) -> Placed:
    """Add packets, ordered by lane, to their lanes; lane i has the packets from begins[i]. Changes lanes and runs."""
    shifted = sequence + syn.astype(np.uint32)
    step = np.zeros(len(shifted), np.int64)
    step[1:] = (shifted[1:] - shifted[:-1]).view(np.int32)
    first = shifted[begins]
    jump = (first - lanes["sequence"]).view(np.int32).astype(np.int64)
    start = np.where(lanes["heard"], lanes["running"] + jump, first.astype(np.int64))
    step[begins] = 0
    running = np.cumsum(step)
    of_lane = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(shifted))))
    running += (start - running[begins])[of_lane]
    last = np.append(begins[1:], len(shifted)) - 1
    lanes["sequence"], lanes["running"], lanes["heard"] = shifted[last], running[last], True

    opened = np.flatnonzero(syn)
    which, at = np.unique(of_lane[opened], return_index=True)
    fresh = ~lanes["synchronised"][which]
    which, at = which[fresh], opened[at[fresh]]
    lanes["base"][which], lanes["synchronised"][which] = running[at], True
    rows = np.flatnonzero(octets)
    earlier = np.searchsorted(rows, at) > np.searchsorted(rows, begins[which])
    lanes["late"][which] = lanes["carried"][which] | earlier
    placed = Placed(running[rows], running[rows] + octets[rows], of_lane[rows], rows)
    if len(rows):
        _extend(lanes, runs, placed)
    return placed


def _extend(lanes: Table, runs: Runs, placed: Placed) -> None:
    begin, end, lane = placed.begin, placed.end, placed.lane
    fresh = np.ones(len(lane), np.bool_)
    fresh[1:] = lane[1:] != lane[:-1]
    head = np.flatnonzero(fresh)
    tail = np.append(head[1:], len(lane)) - 1
    these = lane[head]
    follows = np.ones(len(lane), np.bool_)
    follows[1:] = fresh[1:] | (begin[1:] == end[:-1])
    follows[head] = ~lanes["carried"][these] | (begin[head] == lanes["reach"][these])
    plain = np.logical_and.reduceat(follows, head)
    if runs:
        plain &= ~np.isin(lanes["number"][these], list(runs))
    low = np.where(lanes["carried"][these], lanes["low"][these], begin[head])
    simple = these[plain]
    lanes["low"][simple], lanes["reach"][simple] = low[plain], end[tail[plain]]
    if not plain.all():
        mixed = np.repeat(~plain, np.diff(np.append(head, len(lane))))
        _merge(lanes, runs, begin[mixed], end[mixed], lane[mixed], these[~plain])
    lanes["carried"][these] = True


def _merge(lanes: Table, runs: Runs, begin: Int64, end: Int64, lane: Int64, these: Int64) -> None:
    """Join runs of bytes that touch, in lanes that are not simply in order."""
    known = [
        (int(one), low, reach)
        for one in these[lanes["carried"][these]]
        for low, reach in runs.get(int(lanes["number"][one]), [(lanes["low"][one], lanes["reach"][one])])
    ]
    before = np.array(known, np.int64).reshape(-1, 3)
    lane = np.concatenate((lane, before[:, 0]))
    begin, end = np.concatenate((begin, before[:, 1])), np.concatenate((end, before[:, 2]))
    order = np.lexsort((begin, lane))
    lane, begin, end = lane[order], begin[order], end[order]
    reached = pd.Series(end).groupby(lane).cummax().to_numpy()
    starts = np.ones(len(lane), np.bool_)
    starts[1:] = (lane[1:] != lane[:-1]) | (begin[1:] > reached[:-1])
    place = np.flatnonzero(starts)
    owner, low, high = lane[place], begin[place], reached[np.append(place[1:], len(lane)) - 1]
    bounds = np.searchsorted(owner, these)
    for one, at, until in zip(these.tolist(), bounds.tolist(), np.append(bounds[1:], len(owner)).tolist(), strict=True):
        number = int(lanes["number"][one])
        lanes["low"][one], lanes["reach"][one] = low[at], high[until - 1]
        runs.pop(number, None)
        if until - at > _MOST_RUNS:
            lanes["torn"][one] = True
        elif until - at > 1:
            runs[number] = list(zip(low[at:until].tolist(), high[at:until].tolist(), strict=True))


def holes(lanes: Table, runs: Mapping[int, list[tuple[int, int]]]) -> tuple[Bool, int]:
    """Which lanes miss bytes between their beginning and the last byte seen, and how many large holes there are.

    The beginning is the SYN; in a lane without one it is the first byte seen.
    """
    missed = np.where(lanes["carried"] & lanes["synchronised"], np.maximum(lanes["low"] - lanes["base"], 0), 0)
    missing: Bool = (missed > 0) | lanes["torn"]
    large = int((missed > LARGEST_HOLE_OCTETS).sum())
    if runs:
        for place in np.flatnonzero(lanes["heard"]).tolist():
            kept = runs.get(int(lanes["number"][place]))
            if kept is None:
                continue
            base = int(lanes["base"][place]) if lanes["synchronised"][place] else kept[0][0]
            spans = [span for span in kept if span[1] > base]
            gaps = [later[0] - earlier[1] for earlier, later in pairwise(spans)]
            first = max(spans[0][0] - base, 0) if spans else 0
            missing[place] = bool(gaps) or first > 0
            large += sum(gap > LARGEST_HOLE_OCTETS for gap in [first, *gaps]) - int(missed[place] > LARGEST_HOLE_OCTETS)
    return missing, large


def lane_order(segment: Int64, end: UInt8, begins: Int64) -> Int64:
    """Places ordered by segment, then sending end, then time, for places already ordered by segment and time."""
    greater = np.cumsum(end, dtype=np.int64) - end
    ahead = greater - greater[begins][segment]
    sizes = np.diff(np.append(begins, len(segment)))
    lesser = sizes - np.add.reduceat(end, begins, dtype=np.int64)
    place = np.arange(len(segment))
    goes_to = np.where(end == 1, (begins + lesser)[segment] + ahead, place - ahead)
    order = np.empty(len(segment), np.int64)
    order[goes_to] = place
    return order
