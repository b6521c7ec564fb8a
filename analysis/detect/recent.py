"""The latest numbers, or rows of numbers, in the order they came, as one contiguous array.  Knows numbers only."""

from __future__ import annotations

import numpy as np

from analysis.detect.port import Floats


class Recent:
    """At most `width` of them; each is written twice, so that the latest are always one slice and never copied."""

    __slots__ = ("_store", "count", "width")

    def __init__(self, width: int, columns: int | None = None) -> None:
        self.width = width
        self.count = 0
        self._store = np.zeros(2 * width if columns is None else (2 * width, columns))

    @property
    def full(self) -> bool:
        """Whether `width` have come."""
        return self.count >= self.width

    def push(self, value: float | Floats) -> None:
        """Take one in; when full the oldest goes."""
        place = self.count % self.width
        self._store[place] = self._store[place + self.width] = value
        self.count += 1

    def latest(self, many: int | None = None) -> Floats:
        """A view of the latest `many`, all where not said, oldest first; fewer where fewer have come."""
        kept = min(self.count, self.width)
        many = kept if many is None else min(many, kept)
        end = self.count % self.width + self.width if self.full else self.count
        return self._store[end - many : end]
