"""Compiled code where a C compiler is at hand, and the numbering of five-tuples by it: as replay.tuples, sooner.

The code is compiled once, into the user's cache, by the name of what is in it. Without a compiler, or where the cache
cannot be written (or there is no home folder), there is none, and what does without it gives the same.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replay.columns import Int64, UInt8
from replay.tuples import WORDS, Ends, Numbered, Numbering, Words

SWITCH = "TESTBED_COMPILED"
"""The environment variable that, set to 0, leaves compiled code out."""
_SOURCES = ("chain.c", "headers.c", "tuples.c")
_FLAGS = ("-O2", "-shared", "-fPIC", "-std=c11", "-D_DEFAULT_SOURCE")
_COMPILE_S = 60
_FEWEST = 1024


def numbering() -> Numbering:
    """The quickest numbering that this machine has."""
    library = compiled()
    return Numbered() if library is None else CompiledNumbering(library)


@cache
def compiled() -> ctypes.CDLL | None:
    """The library, compiled now when it is not in the cache; None where it cannot be had, or is switched off."""
    compiler = shutil.which("cc")
    if os.environ.get(SWITCH) == "0" or compiler is None:
        return None
    static = files("replay").joinpath("static")
    sources = {name: static.joinpath(name).read_bytes() for name in _SOURCES}
    said = " ".join((*_FLAGS, os.uname().machine)).encode()
    try:
        library = _cache() / f"replay-{sha256(said + b''.join(sources.values())).hexdigest()[:16]}.so"
        if not library.exists():
            _compile(compiler, sources, library)
        loaded = ctypes.CDLL(str(library))
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None
    for counts in (loaded.number_tuples, loaded.ordinary_headers):
        counts.restype = ctypes.c_int64
    return loaded


def _cache() -> Path:
    """The user's own cache folder; raises OSError when it is not theirs alone to write."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shadow-testbed"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others")
    return folder


def _compile(compiler: str, sources: Mapping[str, bytes], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as name:
        code, made = [Path(name) / source for source in sources], Path(name) / "made.so"
        for path, octets in zip(code, sources.values(), strict=True):
            path.write_bytes(octets)
        argv = [compiler, *_FLAGS, "-o", str(made), *map(str, code)]
        subprocess.run(argv, check=True, capture_output=True, timeout=_COMPILE_S, stdin=subprocess.DEVNULL)
        made.replace(library)


class CompiledNumbering:
    """A hash table in arrays of its own; the seed of its hash is random, the numbers do not hang on it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._seed = ctypes.c_uint64(int.from_bytes(os.urandom(8), "little"))
        self._count = 0
        self._words: Words = np.zeros((_FEWEST, WORDS), np.uint64)
        self._slots = np.zeros(2 * _FEWEST, np.int32)

    def numbered(self, ends: Ends) -> tuple[Int64, UInt8]:
        """As Numbering says."""
        rows = len(ends.protocol)
        self._make_room(self._count + rows)
        numbers, sources = np.empty(rows, np.int64), np.empty(rows, np.uint8)
        columns = [
            np.ascontiguousarray(column, dtype)
            for column, dtype in (
                (ends.source_address, np.uint8),
                (ends.destination_address, np.uint8),
                (ends.source_port, np.uint16),
                (ends.destination_port, np.uint16),
                (ends.protocol, np.uint8),
                (ends.version, np.uint8),
            )
        ]
        self._count = int(
            self._library.number_tuples(
                ctypes.c_int64(rows),
                *map(address, (*columns, numbers, sources, self._words, self._slots)),
                ctypes.c_uint64(len(self._slots) - 1),
                self._seed,
                ctypes.c_int64(self._count),
            )
        )
        return numbers, sources

    def by_number(self, numbers: Int64) -> Int64:
        """As Numbering says."""
        order, begins = np.empty(len(numbers), np.int64), np.zeros(self._count + 1, np.int64)
        self._library.rows_by_number(
            ctypes.c_int64(len(numbers)),
            address(np.ascontiguousarray(numbers)),
            ctypes.c_int64(self._count),
            address(begins),
            address(order),
        )
        return order

    def count(self) -> int:
        """As Numbering says."""
        return self._count

    def words(self) -> Words:
        """As Numbering says."""
        return self._words[: self._count]

    def keep(self, kept: Int64) -> None:
        """As Numbering says."""
        self._words = np.concatenate((self._words[kept], np.zeros((_FEWEST, WORDS), np.uint64)))
        self._count = len(kept)
        self._place(2 * _FEWEST)

    def _make_room(self, most: int) -> None:
        if most > len(self._words):
            more = max(most, 2 * len(self._words)) - len(self._words)
            self._words = np.concatenate((self._words, np.zeros((more, WORDS), np.uint64)))
        if 2 * most > len(self._slots):
            self._place(2 * most)

    def _place(self, least: int) -> None:
        self._slots = np.zeros(1 << max(least, 2 * self._count, 2 * _FEWEST).bit_length(), np.int32)
        self._library.place_tuples(
            ctypes.c_int64(self._count),
            address(self._words),
            address(self._slots),
            ctypes.c_uint64(len(self._slots) - 1),
            self._seed,
        )


def address(column: npt.NDArray[Any]) -> ctypes.c_void_p:
    """Where a contiguous column begins; the caller keeps it alive for as long as compiled code reads it."""
    return ctypes.c_void_p(column.ctypes.data)
