"""Five-tuples numbered as they are first seen, both directions alike. Knows no time, no flag and no flow.

The numbering is exact: by a dictionary of the whole tuple, or by the compiled table of replay.compiled, which gives
the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from replay.columns import Bool, Int64, UInt8, UInt16

Words = npt.NDArray[np.uint64]
WORDS = 5
_NO_WORDS: Words = np.zeros((0, WORDS), np.uint64)


class Ends(Protocol):
    """What has the two ends of packets as columns: Packets, and the Quotes of ICMP errors."""

    # fmt: off
    @property
    def source_address(self) -> UInt8: ...  # noqa: D102
    @property
    def destination_address(self) -> UInt8: ...  # noqa: D102
    @property
    def source_port(self) -> UInt16: ...  # noqa: D102
    @property
    def destination_port(self) -> UInt16: ...  # noqa: D102
    @property
    def protocol(self) -> UInt8: ...  # noqa: D102
    @property
    def version(self) -> UInt8: ...  # noqa: D102
    # fmt: on


class Numbering(Protocol):
    """Gives five-tuples numbers from 0, in the order in which they are first seen."""

    def numbered(self, ends: Ends) -> tuple[Int64, UInt8]:
        """The number of each row's tuple, and which of its ends (0 the lesser, 1 the greater) is the source."""
        ...

    def by_number(self, numbers: Int64) -> Int64:
        """The rows ordered by these numbers of theirs, those of one number in their order."""
        ...

    def count(self) -> int:
        """How many numbers have been given."""
        ...

    def words(self) -> Words:
        """The tuple of every number, as `endpoint_words` packs it."""
        ...

    def keep(self, kept: Int64) -> None:
        """Forget all tuples but these (ascending), which are numbered anew from 0 in this order."""
        ...


class Numbered:
    """The numbering by a dictionary: exact, and with a loop only over the tuples that are different."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._words = [_NO_WORDS]

    def numbered(self, ends: Ends) -> tuple[Int64, UInt8]:
        """As Numbering says."""
        words, greater = endpoint_words(ends)
        if not len(words):
            return np.zeros(0, np.int64), np.zeros(0, np.uint8)
        first, group = _distinct(words)
        numbers, added = np.empty(len(first), np.int64), []
        for place, key in enumerate(_keys(words[first])):
            known = self._numbers.get(key)
            if known is None:
                known = self._numbers[key] = len(self._numbers)
                added.append(first[place])
            numbers[place] = known
        if added:
            self._words.append(words[added])
        return numbers[group], greater.view(np.uint8)

    def by_number(self, numbers: Int64) -> Int64:
        """As Numbering says."""
        return np.argsort(numbers, kind="stable")

    def count(self) -> int:
        """As Numbering says."""
        return len(self._numbers)

    def words(self) -> Words:
        """As Numbering says."""
        if len(self._words) > 1:
            self._words = [np.concatenate(self._words)]
        return self._words[0]

    def keep(self, kept: Int64) -> None:
        """As Numbering says."""
        self._words = [self.words()[kept]]
        self._numbers = {key: number for number, key in enumerate(_keys(self._words[0]))}


@dataclass(frozen=True, slots=True)
class EndPoints:
    """Tuples by column: the ends of each as (rows, 2) for ports and (rows, 2, 16) for addresses, lesser end first."""

    address: UInt8
    port: UInt16
    protocol: UInt8
    version: UInt8


def end_points(words: Words) -> EndPoints:
    """What `endpoint_words` packed."""
    address = np.ascontiguousarray(words[:, :4]).astype(">u8").view(np.uint8).reshape(-1, 2, 16)
    last = words[:, 4]
    ports = np.stack((last >> np.uint64(32), last >> np.uint64(16)), axis=1).astype(np.uint16)
    return EndPoints(address, ports, (last >> np.uint64(8)).astype(np.uint8), last.astype(np.uint8))


def endpoint_words(ends: Ends) -> tuple[Words, Bool]:
    """A five-tuple as five 64-bit words, equal for both directions, and whether the source is the greater end."""
    s = np.ascontiguousarray(ends.source_address).view(">u8").astype(np.uint64).reshape(-1, 2)
    d = np.ascontiguousarray(ends.destination_address).view(">u8").astype(np.uint64).reshape(-1, 2)
    same_high, same_low = s[:, 0] == d[:, 0], s[:, 1] == d[:, 1]
    greater = (s[:, 0] > d[:, 0]) | (same_high & (s[:, 1] > d[:, 1]))
    greater |= same_high & same_low & (ends.source_port > ends.destination_port)
    words = np.empty((len(greater), WORDS), np.uint64)
    words[:, 0:2] = np.where(greater[:, None], d, s)
    words[:, 2:4] = np.where(greater[:, None], s, d)
    small_port = np.where(greater, ends.destination_port, ends.source_port).astype(np.uint64)
    large_port = np.where(greater, ends.source_port, ends.destination_port).astype(np.uint64)
    words[:, 4] = small_port << np.uint64(32) | large_port << np.uint64(16)
    words[:, 4] |= ends.protocol.astype(np.uint64) << np.uint64(8) | ends.version.astype(np.uint64)
    return words, greater


def _keys(words: Words) -> list[bytes]:
    raw, step = words.tobytes(), 8 * WORDS
    return [raw[at : at + step] for at in range(0, len(raw), step)]


def _distinct(words: Words) -> tuple[Int64, Int64]:
    """The first row of every different tuple, in row order, and which of them each row is."""
    key = np.zeros(len(words), np.uint64)
    for column in range(WORDS):
        key = (key ^ words[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    order = np.argsort(key, kind="stable")
    changed = np.ones(len(order), np.bool_)
    hashed, ordered = key[order], words[order]
    changed[1:] = hashed[1:] != hashed[:-1]
    if ((ordered[1:] != ordered[:-1]).any(axis=1) & ~changed[1:]).any():  # two tuples with one hash
        order = np.lexsort(words.T)
        ordered = words[order]
        changed[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    begins = order[np.flatnonzero(changed)]
    by_row = np.argsort(begins, kind="stable")
    rank = np.empty(len(begins), np.int64)
    rank[by_row] = np.arange(len(begins))
    group = np.empty(len(words), np.int64)
    group[order] = rank[np.cumsum(changed) - 1]
    return begins[by_row], group
