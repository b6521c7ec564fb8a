"""The latest numbers of a series, in order of size: where a new one would stand among them.  Knows numbers only."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort


class Ranked:
    """At most `memory` numbers; the oldest leaves first. Two machine numbers an entry, no object."""

    __slots__ = ("_came", "_next", "_sorted", "memory")

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._came = array("d")
        self._sorted = array("d")
        self._next = 0

    def __len__(self) -> int:
        return len(self._sorted)

    def push(self, value: float) -> None:
        """Take one in; with the memory full the oldest goes."""
        if len(self._came) < self.memory:
            self._came.append(value)
        else:
            del self._sorted[bisect_left(self._sorted, self._came[self._next])]
            self._came[self._next] = value
            self._next = (self._next + 1) % self.memory
        insort(self._sorted, value)

    def at_least(self, value: float) -> int:
        """How many are as large or larger."""
        return len(self._sorted) - bisect_left(self._sorted, value)

    def median(self) -> float | None:
        """The upper middle one; None of nothing."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else None
