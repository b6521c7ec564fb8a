"""Captures in, packet columns out: reads files, joins them, orders them by time. Knows no flow.

The same packet seen at two capture points of a mirror is two packets here; removing such duplicates is not this
room's yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from replay.columns import Packets, Quotes
from replay.container import Records, read_records
from replay.decode import decode
from replay.errors import InvalidCapture

__all__ = ["Packets", "Quotes", "read_packets"]


def read_packets(paths: Sequence[Path]) -> tuple[Packets, Counter[str]]:
    """Read captures into one table of packets sorted by time, with the number of records left out by reason.

    A capture may end in the middle of a record, hold garbage between packets or be cut by a snaplen: what could
    not be read is counted, and when that is everything the table is empty. Raises InvalidCapture when a file is
    not a capture, or when all of them together hold no record, readable or not.
    """
    skipped: Counter[str] = Counter()
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
    packets, undecoded = decode(records)
    skipped.update(undecoded)
    return packets, skipped


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
