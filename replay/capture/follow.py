"""A folder that captures are written into, as blocks of records in time order. Knows no packet header and no flow.

It is polled: that works on every file system, and costs one look at each file a round. In a round every file is read
as far as its records are whole, and read on from there in the next. A file is known by its first record, so that one
that is renamed or packed (tcpdump -z gzip) is no other; one that is written anew under its name (tcpdump -W) is.
Files are opened only while they are read, and never mapped.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from replay.capture.order import Ahead, merged_ahead
from replay.capture.reader import CaptureReader, opened
from replay.capture.records import Records
from replay.capture.recovery import RecordFormat
from replay.capture.unpacked import source
from replay.errors import InvalidCapture

_PEEK_OCTETS = 1 << 16
_FINGERPRINT_OCTETS = 96

Fingerprint = tuple[int, int, int, bytes]


class Spool:
    """What is known of a folder's captures; `skipped` counts what was left out, files that vanished unread included."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Fingerprint, _Spooled] = {}
        self._at: dict[Path, Fingerprint] = {}
        self._unread: dict[Path, tuple[int, int]] = {}
        self.skipped: Counter[str] = Counter()

    def round(self, block_octets: int) -> Iterator[Records]:
        """The records that came since the last round, merged by time; raises InvalidCapture without the folder."""
        due = self._due()
        with ExitStack() as closing:
            for file in due:
                file.begin(closing)
            yield from merged_ahead(due, block_octets)

    def finish(self) -> None:
        """Count what no further round will complete: records cut off at an end, files that never became captures."""
        for file in self._files.values():
            file.finish()
        self.skipped["other_file"] += len(self._unread)

    def _due(self) -> list[_Spooled]:
        present = self._listed()
        for path in [path for path in self._at if path not in present]:
            self._files[self._at.pop(path)].leave(path)
        for path in [path for path in self._unread if path not in present]:
            del self._unread[path]
            self.skipped["vanished_file"] += 1
        due = []
        for path, size in present.items():
            file = self._file(path, size)
            if file is not None and file.size_of(path) != size:
                file.sizes[path] = size
                due.append(file)
        for gone in [key for key, file in self._files.items() if not file.paths]:
            self._files.pop(gone).finish()
        return list(dict.fromkeys(due))

    def _listed(self) -> dict[Path, tuple[int, int]]:
        try:
            with os.scandir(self._directory) as entries:
                return {Path(entry.path): _size(entry) for entry in entries if entry.is_file()}
        except FileNotFoundError as error:
            if not self._directory.is_dir():
                raise InvalidCapture(self._directory, "no folder", "a folder of captures") from error
            return self._listed()
        except OSError as error:
            problem = (error.strerror or str(error)).lower()
            raise InvalidCapture(self._directory, problem, "a folder of captures") from error

    def _file(self, path: Path, size: tuple[int, int]) -> _Spooled | None:
        """The capture at this path now, known before under this or another name or not; None without a record yet."""
        known = self._at.get(path)
        if known is not None and self._files[known].size_of(path) == size:
            return self._files[known]
        if self._unread.get(path) == size:
            return None
        fingerprint = _fingerprint(path)
        if fingerprint is None:
            if known is None:
                self._unread[path] = size
            return None
        self._unread.pop(path, None)
        if known is not None and known != fingerprint:
            self._files[known].leave(path)
        file = self._files.setdefault(fingerprint, _Spooled(fingerprint[0], self.skipped))
        file.paths.add(path)
        self._at[path] = fingerprint
        return file


def _size(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = entry.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _fingerprint(path: Path) -> Fingerprint | None:
    """The first record's time, lengths and first octets; None as long as there is none that is whole."""
    try:
        with opened(path, Counter(), growing=True) as reader:
            while not reader.ended:
                records = reader.read(_PEEK_OCTETS)
                if len(records):
                    begin, captured = int(records.offset[0]), int(records.captured[0])
                    octets = records.data[begin : begin + min(captured, _FINGERPRINT_OCTETS)].tobytes()
                    return int(records.time_ns[0]), captured, int(records.wire[0]), octets
    except InvalidCapture:
        return None
    return None


class _Spooled(Ahead):
    """One capture of the folder: under which paths it is there, what was read of it, where to read on."""

    def __init__(self, begins_ns: int, skipped: Counter[str]) -> None:
        super().__init__(begins_ns)
        self.paths: set[Path] = set()
        self.sizes: dict[Path, tuple[int, int]] = {}
        self._skipped = skipped
        self._format: RecordFormat | None = None
        self._position = 0
        self._cut = False
        self._reader: CaptureReader | None = None
        self._files = ExitStack()

    def size_of(self, path: Path) -> tuple[int, int]:
        """Size and time of change of the path when it was last read."""
        return self.sizes.get(path, (-1, 0))

    def leave(self, path: Path) -> None:
        """The capture is not at this path any more."""
        self.paths.discard(path)
        self.sizes.pop(path, None)

    def begin(self, closing: ExitStack) -> None:
        """Be read in a further round, from where the last one ended."""
        self._files, self._reader, self.done = closing.enter_context(ExitStack()), None, False

    def finish(self) -> None:
        """Count the record that is cut off at the capture's end, if there is one."""
        if self._cut:
            self._skipped["truncated_record"] += 1
            self._cut = False

    def is_open(self) -> bool:
        return self._reader is not None and not self.done

    def read_block(self, octets: int) -> Records | None:
        if self._reader is None:
            self._reader = self._opened()
        while self._reader is not None and not self._reader.ended:
            records = self._reader.read(octets)
            self._position = self._reader.position
            if len(records):
                return records
        if self._reader is not None:
            self._cut, self._reader = self._reader.has_cut_record(), None
        self._files.close()
        return None

    def _opened(self) -> CaptureReader | None:
        for path in sorted(self.paths):
            try:
                octets = self._files.enter_context(source(path, Counter()))
                if self._format is not None:
                    return CaptureReader.resumed(self._format, self._position, octets, self._skipped)
                reader = CaptureReader(path, octets, self._skipped, growing=True)
            except InvalidCapture:
                continue
            self._format = reader.format
            return reader
        self._skipped["vanished_file"] += 1
        return None
