"""The text or octets of a record file, unpacked by content (gzip, xz, zstd). Knows no record format.

zstd is unpacked by the program of that name, as Python before 3.14 has none of its own. A tail that was cut off is
counted and ends the reading.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from replay.errors import InvalidCapture

EXPECTED = "a file of flow records (plain, gzip, xz or zstd)"
HEAD_OCTETS = 1 << 16
LONGEST_LINE_OCTETS = 1 << 20
_LARGEST_UNPACKED_OCTETS = 4 << 30
_STEP_OCTETS = 1 << 18
_GZIP, _XZ, _ZSTD = b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"


def head(path: Path) -> bytes:
    """The first octets, unpacked; raises InvalidCapture for a file that is empty or cannot be read."""
    first = next(octets(path, Counter()), b"")
    if not first:
        raise InvalidCapture(path, "an empty file", EXPECTED)
    return first[:HEAD_OCTETS]


def is_packed(path: Path) -> bool:
    """Whether the file has to be unpacked before another program can read it."""
    with _opened(path) as file:
        return file.read(6).startswith((_GZIP, _XZ, _ZSTD))


def octets(path: Path, skipped: Counter[str]) -> Iterator[bytes]:
    """The unpacked content in steps; raises InvalidCapture when it cannot be read or holds more than 4 GiB."""
    total = 0
    with _opened(path) as file, _unpacking(path, file, file.read(6)) as unpacked:
        while True:
            try:
                step = unpacked.read(_STEP_OCTETS)
            except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
                if not total:
                    problem = f"data that cannot be read or unpacked ({error})"
                    raise InvalidCapture(path, problem, EXPECTED) from error
                skipped["truncated_compression"] += 1
                return
            if not step:
                return
            total += len(step)
            if total > _LARGEST_UNPACKED_OCTETS:
                raise InvalidCapture(path, f"more than {_LARGEST_UNPACKED_OCTETS} octets inside", EXPECTED)
            yield step


def lines(path: Path, skipped: Counter[str]) -> Iterator[tuple[int, str]]:
    """Each line with its number from 1, blank ones left out; a line beyond 1 MiB is counted, not kept."""
    number, rest, overlong = 0, b"", False
    for step in octets(path, skipped):
        *whole, rest = (rest + step).split(b"\n")
        for line in whole:
            number += 1
            if not overlong and len(line) <= LONGEST_LINE_OCTETS:
                if line.strip():
                    yield number, _decoded(line)
            else:
                skipped["overlong_line"] += 1
            overlong = False
        if len(rest) > LONGEST_LINE_OCTETS:
            rest, overlong = b"", True
    if overlong:
        skipped["overlong_line"] += 1
    elif rest.strip():
        yield number + 1, _decoded(rest)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidCapture(path, (error.strerror or str(error)).lower(), EXPECTED) from error
    with file:
        yield file


@contextmanager
def _unpacking(path: Path, file: IO[bytes], magic: bytes) -> Iterator[IO[bytes]]:
    file.seek(0)
    if magic.startswith(_GZIP):
        with gzip.open(file) as unpacked:
            yield unpacked  # type: ignore[misc]
    elif magic == _XZ:
        with lzma.open(file) as plain:
            yield plain
    elif magic.startswith(_ZSTD):
        with _zstd(path) as piped:
            yield piped
    else:
        yield file


@contextmanager
def _zstd(path: Path) -> Iterator[IO[bytes]]:
    program = shutil.which("zstd")
    if program is None:
        raise InvalidCapture(path, "zstd data, and no program zstd to unpack it", "the Debian package zstd installed")
    argv = (program, "-dcq", "--memory=256MB", "--", str(path.absolute()))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield _Piped(process, process.stdout)  # type: ignore[misc]
        finally:
            process.kill()


class _Piped:
    """A program's output that ends in an error when the program does."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self._process, self._output = process, output

    def read(self, count: int) -> bytes:
        """Up to `count` octets; raises EOFError when the program ended badly."""
        step = self._output.read(count)
        if len(step) < count and self._process.wait() and not step:
            assert self._process.stderr is not None
            raise EOFError(self._process.stderr.read(500).decode("utf-8", "replace").strip() or "zstd failed")
        return step
