"""The octets of a file a step at a time, unpacked by content (gzip, xz, zstd). Knows no capture format.

zstd is unpacked by the program of that name, as Python before 3.14 has none of its own. A packed tail that was cut off
is counted and ends the reading.
"""

from __future__ import annotations

import gzip
import lzma
import mmap
import os
import shutil
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from typing import IO, Protocol

import numpy as np

from replay.columns import UInt8
from replay.errors import InvalidCapture

EXPECTED = "a pcap or pcapng capture (plain, gzip, xz or zstd)"
_GZIP, _XZ, _ZSTD = b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_STEP_OCTETS, _PACKED_OCTETS = 1 << 20, 1 << 18
_MOST_XZ_OCTETS = 256 << 20


class Source(Protocol):
    """Octets in order."""

    def readinto(self, room: memoryview, /) -> int:
        """Fill the room from its begin; fewer octets than it holds only at the end."""

    def skip(self, octets: int, /) -> None:
        """Pass over the next octets."""

    def mapped(self, kept: int, octets: int, further: int, /) -> UInt8 | None:
        """The next octets, after as many of those before and with as many further ones, without a copy.

        None where that cannot be had: of packed data, and towards the end of a file, so that a small file is always
        copied. A file that is cut short while it is mapped would end the process: what is being written is to be
        followed (replay.capture.follow), which maps nothing.
        """


@contextmanager
def source(path: Path, skipped: Counter[str]) -> Iterator[Source]:
    """The unpacked octets of a file; raises InvalidCapture when it cannot be read or unpacked at all."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidCapture(path, (error.strerror or str(error)).lower(), EXPECTED) from error
    with file:
        plain = _Plain(path, file)
        magic = plain.peek()
        if magic.startswith(_GZIP):
            with gzip.open(file) as unzipped:
                yield _Packed(path, unzipped, skipped)
        elif magic.startswith(_XZ):
            yield _Packed(path, _Xz(file), skipped)
        elif magic.startswith(_ZSTD):
            with _zstd(path) as piped:
                yield _Packed(path, piped, skipped)
        else:
            yield plain


class _Plain:
    """The file as it is."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self._path, self._file = path, file
        self._regular = S_ISREG(os.fstat(file.fileno()).st_mode)

    def peek(self) -> bytes:
        """The next few octets, which stay there to be read."""
        with self._told():
            return self._file.peek(6)

    def readinto(self, room: memoryview, /) -> int:
        filled = 0
        with self._told():
            while filled < len(room) and (got := self._file.readinto(room[filled:])):
                filled += got
        return filled

    def skip(self, octets: int, /) -> None:
        with self._told():
            self._file.seek(octets, os.SEEK_CUR)

    def mapped(self, kept: int, octets: int, further: int, /) -> UInt8 | None:
        with self._told():
            if not self._regular:
                return None
            at = self._file.tell()
            if at + octets + further > os.fstat(self._file.fileno()).st_size:
                return None
            first = (at - kept) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            window = mmap.mmap(
                self._file.fileno(), at + octets + further - first, offset=first, access=mmap.ACCESS_READ
            )
            self._file.seek(at + octets)
        return np.frombuffer(window, np.uint8)[at - kept - first :]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidCapture(self._path, (error.strerror or str(error)).lower(), EXPECTED) from error


class _Unpacker(Protocol):
    def read1(self, count: int, /) -> bytes: ...


class _Packed:
    """What an unpacker gives; an error ends it, and is counted unless nothing came before it."""

    def __init__(self, path: Path, unpacker: _Unpacker, skipped: Counter[str]) -> None:
        self._path, self._unpacker, self._skipped = path, unpacker, skipped
        self._begun, self._ended = False, False

    def readinto(self, room: memoryview, /) -> int:
        filled = 0
        while filled < len(room) and not self._ended:
            step = self._step(min(len(room) - filled, _STEP_OCTETS))
            room[filled : filled + len(step)] = step
            filled += len(step)
        return filled

    def skip(self, octets: int, /) -> None:
        while octets and not self._ended:
            octets -= len(self._step(min(octets, _STEP_OCTETS)))

    def mapped(self, _kept: int, _octets: int, _further: int, /) -> None:
        return None

    def _step(self, count: int) -> bytes:
        try:
            step = self._unpacker.read1(count)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            self._ended = True
            if not self._begun:
                raise InvalidCapture(self._path, f"data that cannot be unpacked ({error})", EXPECTED) from error
            self._skipped["truncated_compression"] += 1
            return b""
        self._begun, self._ended = True, not step
        return step


class _Xz:
    """xz streams one after another, unpacked with a bound on the memory that their headers may ask for."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._stream = self._fresh()

    def read1(self, count: int, /) -> bytes:
        """Some of what comes next; raises EOFError when a stream is cut off, LZMAError when it is damaged."""
        while True:
            packed = b""
            if self._stream.eof:
                packed = self._stream.unused_data.lstrip(b"\0") or self._file.read(_PACKED_OCTETS).lstrip(b"\0")
                if not packed:
                    return b""
                self._stream = self._fresh()
            elif self._stream.needs_input:
                packed = self._file.read(_PACKED_OCTETS)
                if not packed:
                    raise EOFError("the data end in the middle")
            unpacked = self._stream.decompress(packed, count)
            if unpacked:
                return unpacked

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ_OCTETS)


@contextmanager
def _zstd(path: Path) -> Iterator[_Unpacker]:
    program = shutil.which("zstd")
    if program is None:
        raise InvalidCapture(path, "zstd data, and no program zstd to unpack it", "the Debian package zstd installed")
    argv = (program, "-dcq", "--memory=256MB", "--", str(path.absolute()))
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=_STEP_OCTETS
    ) as process:
        assert process.stdout is not None
        try:
            yield _Piped(process, process.stdout)
        finally:
            process.kill()


class _Piped:
    """A program's output that ends in an error when the program does."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self._process, self._output = process, output

    def read1(self, count: int, /) -> bytes:
        """Some of what comes next; raises EOFError when the program ended badly."""
        step: bytes = self._output.read1(count)  # type: ignore[attr-defined]
        if not step and self._process.wait():
            assert self._process.stderr is not None
            raise EOFError(self._process.stderr.read(500).decode("utf-8", "replace").strip() or "zstd failed")
        return step
