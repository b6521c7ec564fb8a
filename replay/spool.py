"""Payload octets outside of memory: a few recent chunks are held, the others lie in unnamed temporary files.

Every octet has an address that only grows. A stretch is let go (memory and disk) when it has been trimmed and nobody
keeps it any more, so a stream that never ends needs room for what is still referred to. Knows no packet.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np

from replay.columns import Int64, UInt8

HELD_OCTETS = 64 << 20
_FILE_OCTETS = 256 << 20


class _File:
    """An unnamed file that goes when its last stretch goes."""

    def __init__(self) -> None:
        self._file = cast("BinaryIO", tempfile.TemporaryFile(prefix="payload-", buffering=0))  # noqa: SIM115
        self._close = weakref.finalize(self, self._file.close)
        self.octets = 0

    def append(self, octets: UInt8) -> int:
        begin, view = self.octets, np.ascontiguousarray(octets).data
        while len(view):
            view = view[os.write(self._file.fileno(), view) :]
        self.octets += len(octets)
        return begin

    def read(self, begin: int, octets: int) -> bytes:
        return os.pread(self._file.fileno(), octets, begin)


@dataclass(slots=True, weakref_slot=True)
class _Stretch:
    """The octets of one chunk: held, or in a file."""

    begin: int
    held: UInt8 | None = None
    file: _File | None = None
    file_begin: int = 0

    def read(self, at: int, octets: int) -> bytes:
        begin = at - self.begin
        if self.held is not None:
            return self.held[begin : begin + octets].tobytes()
        return b"" if self.file is None else self.file.read(self.file_begin + begin, octets)


@dataclass(frozen=True, slots=True)
class Kept:
    """The stretches that some addresses lie in, kept for as long as this is."""

    stretches: Sequence[_Stretch]
    begins: Int64

    @classmethod
    def joined(cls, parts: Sequence[Kept]) -> Kept:
        """All stretches that any part of one spool keeps."""
        every = {one.begin: one for part in parts for one in part.stretches}
        begins = sorted(every)
        return cls([every[begin] for begin in begins], np.array(begins, np.int64))

    def read(self, at: int, octets: int) -> bytes:
        """The octets from an address on, which are all of one chunk."""
        if not octets:
            return b""
        return self.stretches[int(np.searchsorted(self.begins, at, side="right")) - 1].read(at, octets)


class Spool:
    """Where chunks put their octets; what is more than held_octets at a time goes to files."""

    def __init__(self, held_octets: int = HELD_OCTETS) -> None:
        self._limit, self._held = held_octets, 0
        self._stretches: list[_Stretch] = []
        self._file: _File | None = None
        self._end = 0

    def add(self, octets: UInt8) -> int:
        """Keep a copy of these octets; returns the address of the first."""
        begin = self._end
        self._end += len(octets)
        stretch = _Stretch(begin)
        if self._held + len(octets) <= self._limit:
            stretch.held = octets.copy()
            self._held += len(octets)
            weakref.finalize(stretch, self._released, len(octets))
        else:
            if self._file is None or self._file.octets > _FILE_OCTETS:
                self._file = _File()
            stretch.file, stretch.file_begin = self._file, self._file.append(octets)
        self._stretches.append(stretch)
        return begin

    def kept(self, at: Int64) -> Kept:
        """The stretches of these addresses, to be read later."""
        begins = np.array([one.begin for one in self._stretches], np.int64)
        used = np.unique(np.searchsorted(begins, at, side="right") - 1)
        used = used[used >= 0]
        return Kept([self._stretches[one] for one in used.tolist()], begins[used])

    def trim(self, begin: int) -> None:
        """Let go of what lies wholly before an address."""
        if not self._stretches:
            return
        ends = [one.begin for one in self._stretches[1:]] + [self._end]
        self._stretches = [one for one, end in zip(self._stretches, ends, strict=True) if end > begin]

    def end(self) -> int:
        """The address after the last octet."""
        return self._end

    def _released(self, octets: int) -> None:
        self._held -= octets
