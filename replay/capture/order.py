"""Captures to record tables in one order of time, in bounded memory. Knows no file format and no packet header.

Files are merged by time; a file is opened for reading when its first packet is due. Within what is read, records that
are out of order are put right as long as no more than WINDOW_OCTETS of other packets passed in between; those that
come later still are handed on late, never lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from replay.capture.reader import CaptureReader, opened
from replay.capture.records import Records, empty, joined
from replay.columns import Int64

WINDOW_OCTETS = 4 << 20
_PEEK_OCTETS = 1 << 16
_NEVER = (1 << 63) - 2


class Reordered:
    """Passes records on in time order, holding back the latest WINDOW_OCTETS for those that are still to come.

    Only records that have to be sorted into one another are copied. `late` counts those that were handed on after one
    that passed later.
    """

    def __init__(self, window_octets: int = WINDOW_OCTETS) -> None:
        self._window_octets = window_octets
        self._held: deque[Records] = deque()
        self._held_octets = 0
        self._until_ns = -1
        self.late = 0

    def after(self, block: Records) -> Iterator[Records]:
        """What may be handed on now that this block came."""
        if len(block):
            self._take(block.in_time_order())
        while self._held and self._held_octets - self._held[0].octets >= self._window_octets:
            yield self._handed_on()

    def rest(self) -> Iterator[Records]:
        """What is still held back."""
        while self._held:
            yield self._handed_on()

    def _take(self, block: Records) -> None:
        """Hold the block, sorted into what is held as far back as the window reaches."""
        begins_ns, behind = int(block.time_ns[0]), 0
        overlapping = [block]
        while self._held and self._held[-1].time_ns[-1] > begins_ns and behind < self._window_octets:
            last = self._held.pop()
            due = int(np.searchsorted(last.time_ns, begins_ns, side="right"))
            forced = int(np.searchsorted(-_octets_from(last), behind - self._window_octets))
            ready = max(due, forced)
            overlapping.append(last.taken(slice(ready, None)).alone())
            behind += last.octets
            if ready:
                self._held.append(last.taken(slice(0, ready)))
                break
        self._held.append(joined(overlapping[::-1]).in_time_order())
        self._held_octets += block.octets

    def _handed_on(self) -> Records:
        records = self._held.popleft()
        self._held_octets -= records.octets
        self.late += int(np.searchsorted(records.time_ns, self._until_ns))
        self._until_ns = max(self._until_ns, int(records.time_ns[-1]))
        return records


def _octets_from(records: Records) -> Int64:
    """Captured octets of each record and all after it."""
    return np.cumsum(records.captured[::-1])[::-1]


def merged(paths: Sequence[Path], block_octets: int, skipped: Counter[str]) -> Iterator[Records]:
    """Blocks of the records of several captures, merged by time as far as each file itself is in order.

    Raises InvalidCapture before the first block when any of the files is no capture.
    """
    with ExitStack() as files:
        if len(paths) == 1:
            reader = files.enter_context(opened(paths[0], skipped))
            while not reader.ended:
                yield reader.read(block_octets)
            return
        yield from merged_ahead([_File(path, skipped, files) for path in paths], block_octets)


def first_time_ns(path: Path) -> int:
    """When the first record of a capture passed; a time beyond all others when it has none."""
    with opened(path, Counter()) as reader:
        while not reader.ended:
            records = reader.read(_PEEK_OCTETS)
            if len(records):
                return int(records.time_ns.min())
    return _NEVER


class Ahead(ABC):
    """A capture of a merge: what of it is at hand, sorted by time, and when more is to be expected."""

    def __init__(self, begins_ns: int) -> None:
        self._begins_ns = begins_ns
        self._ahead = empty()
        self.done = False

    @abstractmethod
    def read_block(self, octets: int) -> Records | None:
        """The next records, about so many octets; None when there are no more."""

    @abstractmethod
    def is_open(self) -> bool:
        """Whether it is being read."""

    def frontier_ns(self) -> int:
        """No record that is not at hand is expected before this time."""
        if self.done:
            return _NEVER
        return int(self._ahead.time_ns[-1]) if len(self._ahead) else self._begins_ns

    def read(self, octets: int) -> None:
        """Take a further block, or be done."""
        block = self.read_block(octets)
        if block is None:
            self.done = True
        else:
            self._begins_ns = int(block.time_ns.max())
            self._ahead = joined([self._ahead.alone(), block]).in_time_order()

    def give(self, before_ns: int) -> Records:
        """The records at hand from before this time."""
        count = int(np.searchsorted(self._ahead.time_ns, before_ns))
        given, self._ahead = self._ahead.taken(slice(0, count)), self._ahead.taken(slice(count, None))
        return given


class _File(Ahead):
    """A file that is opened when its first block is read."""

    def __init__(self, path: Path, skipped: Counter[str], closing: ExitStack) -> None:
        super().__init__(first_time_ns(path))
        self._path, self._skipped = path, skipped
        self._files = closing.enter_context(ExitStack())
        self._reader: CaptureReader | None = None

    def is_open(self) -> bool:
        return self._reader is not None and not self.done

    def read_block(self, octets: int) -> Records | None:
        if self._reader is None:
            self._reader = self._files.enter_context(opened(self._path, self._skipped))
        while not self._reader.ended:
            records = self._reader.read(octets)
            if len(records):
                return records
        self._files.close()
        return None


def merged_ahead(files: Sequence[Ahead], block_octets: int) -> Iterator[Records]:
    """Blocks of the records of several captures, merged by time, until all are done.

    A block ends where the next record of some file is still unread. Those of the same time there come in the order of
    the files, so what later files have of it waits for that one.
    """
    while True:
        unfinished = [place for place, file in enumerate(files) if not file.done]
        if not unfinished:
            yield from _given([file.give(_NEVER) for file in files])
            return
        wanted = min(unfinished, key=lambda place: files[place].frontier_ns())
        frontier = files[wanted].frontier_ns()
        yield from _given([file.give(frontier + (place <= wanted)) for place, file in enumerate(files)])
        at_once = sum(file.is_open() for file in files) + (not files[wanted].is_open())
        files[wanted].read(max(block_octets // at_once, 1))


def _given(pieces: Sequence[Records]) -> Iterator[Records]:
    pieces = [piece.alone() for piece in pieces if len(piece)]
    if pieces:
        yield joined(pieces).in_time_order()
