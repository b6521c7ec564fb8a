"""The latest numbers, or vectors, in the order they came.  Knows numbers only."""

from __future__ import annotations

import numpy as np

from analysis.detect.port import Floats


class Recent:
    """At most `width` of them; each is written twice, so that the latest are always one slice and never copied."""

    __slots__ = ("_store", "count", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0
        self._store = np.zeros(2 * width)

    @property
    def full(self) -> bool:
        """Whether `width` have come."""
        return self.count >= self.width

    def push(self, value: float) -> None:
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


class RecentVectors:
    """At most `width` vectors of one length: written often, read seldom."""

    __slots__ = ("_store", "count", "width")

    def __init__(self, width: int, length: int) -> None:
        self.width = width
        self.count = 0
        self._store = np.zeros((width, length))

    def push(self, vector: Floats) -> None:
        """Take one in; when full the oldest goes."""
        self._store[self.count % self.width] = vector
        self.count += 1

    def latest(self) -> Floats:
        """All of them, a row each, oldest first: a copy."""
        oldest = self.count % self.width if self.count > self.width else 0
        return np.concatenate([self._store[oldest : self.count], self._store[:oldest]])
