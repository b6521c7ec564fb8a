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
    """Reads a capture step by step; what is left over of a step is kept for the next one."""

    def __init__(self, path: Path, octets: Source, skipped: Counter[str]) -> None:
        self._octets, self._skipped = octets, skipped
        first = np.zeros(HEADER_OCTETS, np.uint8)
        filled = octets.readinto(memoryview(first.data))
        self._format, consumed = recognised(path, first[:filled].tobytes())
        self._rest = first[consumed:filled]
        self.ended = filled < HEADER_OCTETS

    def read(self, octets: int) -> Records:
        """The records that are whole after that many further octets, maybe none; `ended` says that no more come."""
        data, end = self._further(octets)
        records, rest = self._format.records(data, 0, end, self.ended, self._skipped)
        self._rest = data[rest:end]
        if len(records) and end + SLACK_OCTETS < len(data):
            records = Records(data[: end + SLACK_OCTETS], *records.columns())
        return records

    def _further(self, octets: int) -> tuple[UInt8, int]:
        """A buffer of what is left over and further octets, and where they end in it; a slack follows."""
        kept = len(self._rest)
        mapped = self._octets.mapped(kept, octets, SLACK_OCTETS)
        if mapped is not None:
            return mapped, kept + octets
        data = np.empty(kept + octets + SLACK_OCTETS, np.uint8)
        data[:kept] = self._rest
        got = 0 if self.ended else self._octets.readinto(memoryview(data.data)[kept : kept + octets])
        self.ended = self.ended or got < octets
        end = kept + got
        data[end:] = 0
        return data, end


@contextmanager
def opened(path: Path, skipped: Counter[str]) -> Iterator[CaptureReader]:
    """A reader of a file; raises InvalidCapture when it cannot be read or is neither pcap nor pcapng."""
    with source(path, skipped) as octets:
        yield CaptureReader(path, octets, skipped)


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
