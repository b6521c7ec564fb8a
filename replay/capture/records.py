"""The record table: which octets of a buffer each captured packet is. Knows no file format and no packet header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from replay.columns import Int64, UInt8

SLACK_OCTETS = 64


@dataclass(frozen=True, slots=True)
class Records:
    """Where each captured packet lies in `data`, how much was kept, its length on the wire, when it passed.

    At least SLACK_OCTETS of `data` follow the last packet, so that headers are read there without a look at the end.
    """

    data: UInt8
    offset: Int64
    captured: Int64
    wire: Int64
    time_ns: Int64
    link_type: Int64

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def octets(self) -> int:
        """Captured octets of all records."""
        return int(self.captured.sum())

    def columns(self) -> tuple[Int64, Int64, Int64, Int64, Int64]:
        """All but the data."""
        return self.offset, self.captured, self.wire, self.time_ns, self.link_type

    def taken(self, chosen: Int64 | slice) -> Records:
        """The chosen records in the chosen order, over the same data."""
        return Records(
            self.data,
            self.offset[chosen],
            self.captured[chosen],
            self.wire[chosen],
            self.time_ns[chosen],
            self.link_type[chosen],
        )

    def in_time_order(self) -> Records:
        """The same records sorted by time, those of one time in the order they have."""
        if np.any(self.time_ns[1:] < self.time_ns[:-1]):
            return self.taken(np.argsort(self.time_ns, kind="stable"))
        return self

    def alone(self) -> Records:
        """The same records over only the stretch of the data that they lie in."""
        if not len(self):
            return empty()
        begin, end = int(self.offset.min()), int((self.offset + self.captured).max())
        return Records(
            self.data[begin : end + SLACK_OCTETS],
            self.offset - begin,
            self.captured,
            self.wire,
            self.time_ns,
            self.link_type,
        )


def empty() -> Records:
    """No record."""
    none = np.zeros(0, np.int64)
    return Records(np.zeros(SLACK_OCTETS, np.uint8), none, none, none, none, none)


def joined(tables: Sequence[Records]) -> Records:
    """One table of all records in the order of the tables, over a copy of their data when there are several."""
    tables = [table for table in tables if len(table)]
    if not tables:
        return empty()
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
