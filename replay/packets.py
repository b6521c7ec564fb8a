"""Captures in, packet columns out, a chunk at a time: reads files, joins them by time. Knows no flow.

The same packet seen at two capture points of a mirror is two packets here; removing such duplicates is not this
room's yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from replay.columns import Packets, Quotes
from replay.container import Records, read_records
from replay.decode import decode
from replay.errors import InvalidCapture

__all__ = ["PacketStream", "Packets", "Quotes", "packet_chunks", "read_packets"]

CHUNK_OCTETS = 64 << 20


class PacketStream:
    """The packets of captures as tables sorted by time, one chunk after another, each over octets of its own.

    All chunks together are what `read_packets` gives. In a chunk, `datagram` is counted from the chunk's own first
    row: it is negative when the first fragment was in a chunk before. `skipped` counts the records left out so far,
    `late` the packets that came out of order by more than the reorder window and so stand in a later chunk than
    their time asks for. Raises InvalidCapture when a file is not a capture, or when all hold no record.
    """

    def __init__(self, paths: Sequence[Path], *, chunk_octets: int = CHUNK_OCTETS, inner: bool = False) -> None:
        self._paths, self._chunk_octets, self._inner = paths, chunk_octets, inner
        self.skipped: Counter[str] = Counter()
        self.late = 0

    def __iter__(self) -> Iterator[Packets]:
        records = _records(self._paths, self.skipped)
        ends = np.cumsum(records.captured)
        begin = 0
        while begin < len(records):
            until = int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + self._chunk_octets))
            rows = np.arange(begin, min(max(until, begin + 1), len(records)))
            packets, undecoded = decode(records.taken(rows))
            self.skipped.update(undecoded)
            begin = rows[-1] + 1
            yield packets


def packet_chunks(paths: Sequence[Path], *, chunk_octets: int = CHUNK_OCTETS, inner: bool = False) -> Iterator[Packets]:
    """The chunks of a PacketStream, for who does not need to know what was left out."""
    yield from PacketStream(paths, chunk_octets=chunk_octets, inner=inner)


def read_packets(paths: Sequence[Path]) -> tuple[Packets, Counter[str]]:
    """Read captures into one table of packets sorted by time, with the number of records left out by reason.

    A capture may end in the middle of a record, hold garbage between packets or be cut by a snaplen: what could
    not be read is counted, and when that is everything the table is empty. Raises InvalidCapture when a file is
    not a capture, or when all of them together hold no record, readable or not.
    """
    skipped: Counter[str] = Counter()
    packets, undecoded = decode(_records(paths, skipped))
    skipped.update(undecoded)
    return packets, skipped


def _records(paths: Sequence[Path], skipped: Counter[str]) -> Records:
    tables: list[Records] = []
    for path in paths:
        records, left_out = read_records(Path(path))
        tables.append(records)
        skipped.update(left_out)
    if not skipped and not any(len(records) for records in tables):
        place = Path(paths[0]) if paths else Path()
        raise InvalidCapture(place, "a capture without packets" if paths else "no file", "at least one packet")
    records = _joined(tables)
    if np.any(records.time_ns[1:] < records.time_ns[:-1]):
        records = records.taken(np.argsort(records.time_ns, kind="stable"))
    return records


def _joined(tables: list[Records]) -> Records:
    if len(tables) == 1:
        return tables[0]
    begins = np.cumsum([0] + [len(records.data) for records in tables[:-1]])
    return Records(
        data=np.concatenate([records.data for records in tables]),
        offset=np.concatenate([records.offset + begin for records, begin in zip(tables, begins, strict=True)]),
        captured=np.concatenate([records.captured for records in tables]),
        wire=np.concatenate([records.wire for records in tables]),
        time_ns=np.concatenate([records.time_ns for records in tables]),
        link_type=np.concatenate([records.link_type for records in tables]),
    )
