"""Following records that each say where the next begins, many at once. Knows of a format only where its lengths lie.

Walking such a chain is one dependent read after another, which an interpreter does slowly. So starts are guessed at
even distances, all stretches are walked together, and a stretch counts only when the one before it ends exactly where
it begins; where it does not, that part is walked one by one. A wrong guess costs time, never a record. Where
compiled code can be had (replay.compiled), that takes the steps, in fewer and longer stretches.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replay.columns import Bool, Int64, UInt8, UInt32
from replay.compiled import address, compiled

_MOST_LANES, _LEAST_LANES, _LANE_OCTETS = 256, 8, 1 << 18
_COMPILED_LANE_OCTETS = 1 << 19
_GUESS_OCTETS = 2048
_STEPS_A_LOOK, _MOST_STEPS = 16, 1 << 13
_FIRST_SEARCH_OCTETS, _MOST_SEARCH_OCTETS = 1 << 12, 1 << 20


@dataclass(frozen=True, slots=True)
class Links:
    """Where a record's length lies, what it leaves out, the least a record takes, and what a record looks like.

    `looks` judges the first word alone, cheaply, at very many positions; `plausible` judges positions thoroughly.
    """

    order: str
    length_at: int
    added: int
    least: int
    looks: Callable[[UInt32], Bool]
    plausible: Callable[[Int64], Bool]


def overlapping(data: UInt8, width: int) -> npt.NDArray[Any]:
    """The stretch of that many octets that begins at each position, as a view from which whole ones are copied."""
    return np.ndarray((max(len(data) - width + 1, 0),), f"V{width}", data, strides=(1,))


def overlapping_words(data: UInt8, order: str) -> UInt32:
    """The word of four octets that begins at each position, as a view."""
    return np.ndarray((max(len(data) - 3, 0),), f"{order}u4", data, strides=(1,))


def followed(data: UInt8, begin: int, end: int, links: Links) -> Int64:
    """The positions from begin that follow from one another, before end; data goes on for a slack of 64 octets.

    They are records only as far as every one of them is whole and right: that is the caller's to check.
    """
    library = compiled()
    words = overlapping_words(data, links.order)
    starts = _guesses(words, begin, end, links, _LANE_OCTETS if library is None else _COMPILED_LANE_OCTETS)
    if library is not None and begin < end:
        starts = starts if len(starts) else np.array([begin])
        runs, reached = _walked_by(library, data, starts, end, links)
    elif len(starts):
        runs, reached = _walked_together(words, starts, end, links)
    else:
        runs, reached = [], []
    lane_of = {start: lane for lane, start in enumerate(starts.tolist())}
    parts: list[Int64] = []
    at = begin
    while at < end:
        lane = lane_of.get(at)
        if lane is not None:
            parts.append(runs[lane])
            at = reached[lane]
        else:
            part, at = _walked(data, at, end, links, lane_of)
            parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def next_plausible(data: UInt8, begin: int, end: int, links: Links) -> int | None:
    """The first position from begin where a record plausibly starts, before end."""
    words = overlapping_words(data, links.order)
    size = _FIRST_SEARCH_OCTETS
    while begin < end:
        until = min(begin + size, end)
        places = begin + np.flatnonzero(links.looks(words[begin:until]))
        places = places[links.plausible(places)] if len(places) else places
        if len(places):
            return int(places[0])
        begin, size = until, min(size * 2, _MOST_SEARCH_OCTETS)
    return None


def _walked(data: UInt8, at: int, end: int, links: Links, known: dict[int, int]) -> tuple[Int64, int]:
    length = struct.Struct(f"{links.order}{links.length_at}xI").unpack_from
    view, added, least = memoryview(data.data), links.added, links.least
    positions: list[int] = []
    while at < end and (not positions or at not in known):
        positions.append(at)
        octets = added + length(view, at)[0]
        at += octets if octets > least else least
    return np.array(positions, np.int64), at


def _guesses(words: UInt32, begin: int, end: int, links: Links, least_octets: int) -> Int64:
    lanes = min((end - begin) // least_octets, _MOST_LANES)
    if lanes < _LEAST_LANES:
        return np.zeros(0, np.int64)
    lane_octets = (end - begin) // lanes
    windows = np.lib.stride_tricks.as_strided(words[begin:], (lanes, _GUESS_OCTETS), (lane_octets, 1), writeable=False)
    lane, place = np.nonzero(links.looks(windows))
    at = begin + lane * lane_octets + place
    at = at[links.plausible(at)]
    _, first = np.unique((at - begin) // lane_octets, return_index=True)
    starts = at[first]
    if len(starts) < _LEAST_LANES:
        return np.zeros(0, np.int64)
    return starts if len(starts) and starts[0] == begin else np.concatenate(([begin], starts[starts > begin]))


def _walked_together(words: UInt32, starts: Int64, end: int, links: Links) -> tuple[list[Int64], list[int]]:
    """Every lane's positions up to the next lane's start, and the first position that is not among them."""
    stops = np.append(starts[1:], end)
    last = len(words) - links.length_at - 1
    at, steps = starts, [starts]
    while len(steps) < _MOST_STEPS and (at < stops).any():
        for _ in range(_STEPS_A_LOOK):
            octets = words[at + links.length_at].astype(np.int64) + links.added
            at = np.minimum(at + np.maximum(octets, links.least), last)
            steps.append(at)
    table = np.array(steps)
    counts = np.minimum((table < stops).sum(axis=0), len(table) - 1)
    lanes = np.ascontiguousarray(table.T)
    runs = [lane[:count] for lane, count in zip(lanes, counts.tolist(), strict=True)]
    return runs, table[counts, np.arange(len(starts))].tolist()


def _walked_by(
    library: ctypes.CDLL, data: UInt8, starts: Int64, end: int, links: Links
) -> tuple[list[Int64], list[int]]:
    """As `_walked_together`, with a step of one lane after a step of another."""
    if end + links.length_at + 4 > len(data):
        raise ValueError(f"{len(data)} octets to follow records up to {end}")
    stops, reached, counts = np.append(starts[1:], end), starts.copy(), np.zeros(len(starts), np.int64)
    room = int((stops - starts).max()) // links.least + 1
    positions = np.empty((len(starts), room), np.int64)
    library.follow_lanes(
        address(data),
        ctypes.c_int64(len(starts)),
        address(reached),
        address(stops),
        *map(ctypes.c_int64, (links.length_at, links.added, links.least)),
        ctypes.c_int((links.order == "<") != (sys.byteorder == "little")),
        address(positions),
        ctypes.c_int64(room),
        address(counts),
    )
    return [lane[:count] for lane, count in zip(positions, counts.tolist(), strict=True)], reached.tolist()
