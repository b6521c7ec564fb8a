"""One capture file as blocks of records, each over a buffer of its own. Knows formats by their first octets only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from replay.capture.pcap import HEADER_OCTETS, MAGICS, Pcap
from replay.capture.pcapng import SECTION_HEADER, Pcapng
from replay.capture.records import SLACK_OCTETS, Records
from replay.capture.recovery import RecordFormat
from replay.capture.unpacked import EXPECTED, Source, source
from replay.columns import UInt8
from replay.errors import InvalidCapture

_LEAST_SECTION_OCTETS = 12


class CaptureReader:
    """Reads a capture step by step; what is left over of a step is kept for the next one.

    `position` counts the octets that are read and done with. A `growing` capture may go on after its end: a record
    that is not whole there is left for a reader that is `resumed` at the position with the same format.
    """

    def __init__(self, path: Path, octets: Source, skipped: Counter[str], growing: bool = False) -> None:
        first = np.zeros(HEADER_OCTETS, np.uint8)
        filled = octets.readinto(memoryview(first.data))
        self.format, self.position = recognised(path, first[:filled].tobytes())
        self._begin(octets, skipped, growing, first[self.position : filled])
        self.ended = filled < HEADER_OCTETS

    @classmethod
    def resumed(cls, format_: RecordFormat, position: int, octets: Source, skipped: Counter[str]) -> CaptureReader:
        """A reader of a growing capture from a position on, to which its octets are first read once more."""
        reader = cls.__new__(cls)
        reader.format, reader.position = format_, position
        octets.skip(position)
        reader._begin(octets, skipped, True, np.zeros(0, np.uint8))
        return reader

    def _begin(self, octets: Source, skipped: Counter[str], growing: bool, rest: UInt8) -> None:
        self._octets, self._skipped, self._growing, self._rest = octets, skipped, growing, rest
        self.ended = False

    def read(self, octets: int) -> Records:
        """The records that are whole after that many further octets, maybe none; `ended` says that no more come."""
        data, end = self._further(octets)
        records, rest = self.format.records(data, 0, end, self.ended and not self._growing, self._skipped)
        self._rest, self.position = data[rest:end], self.position + rest
        if len(records) and end + SLACK_OCTETS < len(data):
            records = Records(data[: end + SLACK_OCTETS], *records.columns())
        return records

    def has_cut_record(self) -> bool:
        """Whether octets are left over that may be the begin of a record."""
        return len(self._rest) > 0 and not self.format.lost

    def _further(self, octets: int) -> tuple[UInt8, int]:
        """A buffer of what is left over and further octets, and where they end in it; a slack follows."""
        kept = len(self._rest)
        mapped = None if self._growing else self._octets.mapped(kept, octets, SLACK_OCTETS)
        if mapped is not None:
            return mapped, kept + octets
        data = np.empty(kept + octets + SLACK_OCTETS, np.uint8)
        data[:kept] = self._rest
        got = 0 if self.ended else self._octets.readinto(memoryview(data.data)[kept : kept + octets])
        self.ended = self.ended or got < octets
        end = kept + got
        data[end : end + SLACK_OCTETS] = 0
        return data, end


@contextmanager
def opened(path: Path, skipped: Counter[str], growing: bool = False) -> Iterator[CaptureReader]:
    """A reader of a file; raises InvalidCapture when it cannot be read or is neither pcap nor pcapng."""
    with source(path, skipped) as octets:
        yield CaptureReader(path, octets, skipped, growing)


def recognised(path: Path, head: bytes) -> tuple[RecordFormat, int]:
    """The format that a file's first octets tell, and how many of them it needs no more."""
    magic = int.from_bytes(head[:4], "big")
    if magic == SECTION_HEADER and len(head) >= _LEAST_SECTION_OCTETS:
        return Pcapng(), 0
    if magic in MAGICS and len(head) >= HEADER_OCTETS:
        return Pcap(head), HEADER_OCTETS
    if not head:
        raise InvalidCapture(path, "an empty file", EXPECTED)
    if magic in MAGICS or magic == SECTION_HEADER:
        raise InvalidCapture(path, f"a file header cut off after {len(head)} octets", EXPECTED)
    raise InvalidCapture(path, f"a file that begins with {head[:8]!r}", EXPECTED)
