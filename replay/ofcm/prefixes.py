"""The fewest prefixes under which what happened to their addresses is one thing. Knows no flow and no port.

A service's addresses are the leaves of a binary trie. Every leaf has a disposition (an epoch's most frequent outcome);
the cover is made of the largest subtrees whose leaves agree, and each is named by the longest prefix that holds them,
so that no prefix claims more than was seen. Subtrees nest or are disjoint, so those largest ones are unique and no
smaller disjoint cover that agrees exists. (Routing tables are made minimal in the same trie with prefixes that may
overlap: R. Draves, C. King, S. Venkatachary, B. Zill, "Constructing Optimal IP Routing Tables", INFOCOM 1999. Ours
are disjoint, so that a flow is in one class.) Where more remain than are allowed, siblings are joined, the pair first
whose joining misjudges the fewest flows, as hierarchical heavy hitters give a parent what its children are too small
for (G. Cormode, F. Korn, S. Muthukrishnan, D. Srivastava, "Finding Hierarchical Heavy Hitters in Data Streams",
VLDB 2003). The same addresses give the same prefixes in whatever order they came.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.ofcm.addresses import BITS, Addresses, Bool, Int64, common_bits

Float = npt.NDArray[np.float64]

_APART = -1


@dataclass(frozen=True, slots=True)
class Cover:
    """Which prefix every row fell in, and the prefixes: base addresses and lengths in bits, by group and address."""

    of_row: Int64
    base: Addresses
    length: Int64

    def texts(self) -> list[str]:
        """Each prefix as text; a single address without its length."""
        whole = np.where(self.base.family == 4, BITS[4], BITS[6])
        return [
            text if length == full else f"{text}/{length}"
            for text, length, full in zip(self.base.texts(), self.length.tolist(), whole.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Limits:
    """How far addresses are joined.

    `most` prefixes a group and family at the end; groups of at most `alone` addresses are left as they are; while
    their number allows it, no prefix is wider than `widest_ipv4` and `widest_ipv6` bits.
    """

    most: int
    alone: int
    widest_ipv4: int
    widest_ipv6: int


def cover(group: Int64, addresses: Addresses, outcomes: Float, grain: tuple[int, int], limits: Limits) -> Cover:
    """Cover every group's addresses; `outcomes` is rows × epochs × outcomes, `grain` the bits of one IPv4, IPv6 leaf.

    An epoch in which a leaf has no flow is agreed with by anything.
    """
    if not len(group):
        return Cover(np.zeros(0, np.int64), addresses, np.zeros(0, np.int64))
    order = np.lexsort((addresses.low, addresses.high, addresses.family, group))
    owner, placed = group[order], addresses[order]
    lcp = np.full(len(order), _APART, np.int64)
    together = (owner[1:] == owner[:-1]) & (placed.family[1:] == placed.family[:-1])
    lcp[1:] = np.where(together, common_bits(placed[slice(1, None)], placed[slice(0, -1)]), _APART)
    leaf_starts = np.flatnonzero(lcp < 128)
    counts = np.add.reduceat(outcomes[order], leaf_starts, axis=0)
    leaves, gaps = placed[leaf_starts], lcp[leaf_starts]

    starts = _agreeing(_masks(counts), _joinable(gaps, leaves.family, limits))
    starts = _at_most(starts, counts, gaps, limits)
    ends = np.append(starts[1:], len(gaps)) - 1
    bits = np.where(leaves.family[starts] == 4, grain[0], grain[1])
    length = np.minimum(common_bits(leaves[starts], leaves[ends]), bits)
    of_leaf = np.repeat(np.arange(len(starts)), ends - starts + 1)
    of_row = np.empty(len(order), np.int64)
    of_row[order] = of_leaf[np.cumsum(lcp < 128) - 1]
    return Cover(of_row, leaves[starts].cut(length), length)


def _masks(counts: Float) -> Int64:
    """A bit for the dominant outcome in each epoch, epochs beside each other."""
    outcomes = counts.shape[2]
    dominant = 1 << np.argmax(counts, axis=2)
    seen = np.where(counts.sum(axis=2) > 0, dominant, 0)
    shifts = outcomes * np.arange(counts.shape[1])
    return np.asarray(np.bitwise_or.reduce(seen << shifts, axis=1), np.int64)


def _agree(masks: Int64) -> Bool:
    """Whether no epoch has two outcomes; epochs have four bits each."""
    agreed = np.ones(len(masks), np.bool_)
    for shift in (0, 4):
        epoch = (masks >> shift) & 0xF
        agreed &= (epoch & (epoch - 1)) == 0
    return agreed


def _joinable(gaps: Int64, family: Int64, limits: Limits) -> Int64:
    """The gaps with those made impassable that are too wide, or in a group of few addresses."""
    widest = np.where(family == 4, limits.widest_ipv4, limits.widest_ipv6)
    first = gaps == _APART
    size = np.diff(np.append(np.flatnonzero(first), len(gaps)))
    few = np.repeat(size <= limits.alone, size)
    return np.where((gaps < widest) | few, _APART, gaps)


def _agreeing(masks: Int64, gaps: Int64) -> Int64:
    """Where the largest agreeing subtrees start; one pass over what is left for every depth that occurs."""
    starts = np.arange(len(masks))
    for depth in np.unique(gaps[gaps > _APART])[::-1]:
        run_starts = np.flatnonzero(gaps < depth)
        joined = np.bitwise_or.reduceat(masks, run_starts)
        sizes = np.diff(np.append(run_starts, len(masks)))
        agreed = _agree(joined)
        kept = ~np.repeat(agreed, sizes)
        kept[run_starts] = True
        masks[run_starts] = np.where(agreed, joined, masks[run_starts])
        starts, masks, gaps = starts[kept], masks[kept], gaps[kept]
    return starts


def _at_most(starts: Int64, counts: Float, gaps: Int64, limits: Limits) -> Int64:
    between = gaps[starts]
    first = np.flatnonzero(between == _APART)
    size = np.diff(np.append(first, len(starts)))
    allowed = max(limits.most, limits.alone)
    over = np.flatnonzero(size > allowed)
    if not len(over):
        return starts
    totals = np.add.reduceat(counts, starts, axis=0)
    kept = np.ones(len(starts), np.bool_)
    for at, count in zip(first[over].tolist(), size[over].tolist(), strict=True):
        rows = slice(at, at + count)
        kept[rows] = _siblings_joined(totals[rows], between[rows].tolist(), limits.most)
    return starts[kept]


def _siblings_joined(totals: Float, gaps: list[int], most: int) -> Bool:
    """Which of neighbouring blocks still start one after joining siblings down to `most`; `gaps[i]` is before i."""
    count = len(gaps)
    kept = np.ones(count, np.bool_)
    blocks = [totals[i] for i in range(count)]
    before = list(range(-1, count - 1))
    after = [*range(1, count), -1]

    def gap(at: int) -> int:
        return gaps[at] if at > 0 else _APART

    def offered(right: int) -> None:
        """A pair is offered when the gap inside is deeper than both around it: then both are whole siblings."""
        if right <= 0 or not kept[right]:
            return
        left, beyond = before[right], after[right]
        if gaps[right] > gap(left) and gaps[right] > gap(beyond):
            added = _misjudged(blocks[left] + blocks[right]) - _misjudged(blocks[left]) - _misjudged(blocks[right])
            heapq.heappush(heap, (added, -gaps[right], left, right))

    heap: list[tuple[float, int, int, int]] = []
    for right in range(1, count):
        offered(right)
    left_over = count
    while left_over > most:
        _, _, left, right = heapq.heappop(heap)
        blocks[left] = blocks[left] + blocks[right]
        kept[right] = False
        after[left] = after[right]
        if after[right] > 0:
            before[after[right]] = left
        left_over -= 1
        offered(left)
        offered(after[left])
    return kept


def _misjudged(block: Float) -> float:
    """Flows of a block that did not end as most of its epoch did."""
    return float((block.sum(axis=1) - block.max(axis=1)).sum())
