"""Reading a chain of records past what is damaged in it. Knows neither pcap nor pcapng, which are kinds of it.

Where a record cannot be right, one `damaged_record` is counted and reading goes on at the next plausible one; a last
record that is cut off is a `truncated_record`. Damage that leaves a record possible (a wrong length that is not absurd)
shows at the next one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from enum import Enum

import numpy as np

from replay.capture.chain import Links, next_plausible
from replay.capture.records import Records, empty
from replay.columns import UInt8

_FIRST_SPAN_OCTETS = 1 << 12
_KEPT_WHEN_LOST_OCTETS = 1 << 19


class Stop(Enum):
    """Why a run of records ended where it did."""

    WALKED = "as far as was asked"
    CUT = "the next record is not whole yet"
    WRONG = "the next record cannot be right"
    TURNED = "what follows may be in another order of octets"


class RecordFormat(ABC):
    """A capture format as a reader of octets that come in pieces; what it has to remember is in the object."""

    lost = False

    @abstractmethod
    def links(self, data: UInt8, begin: int, end: int, final: bool) -> Links:
        """How records follow one another in this buffer."""

    @abstractmethod
    def run(
        self, data: UInt8, begin: int, until: int, end: int, links: Links, skipped: Counter[str]
    ) -> tuple[Records, int, Stop]:
        """Records that begin before until and are whole before end; where the rest begins, and why there."""

    def records(self, data: UInt8, begin: int, end: int, final: bool, skipped: Counter[str]) -> tuple[Records, int]:
        """The whole records between begin and end, and where the rest begins; `final` says that nothing follows.

        The data go on for SLACK_OCTETS beyond end.
        """
        links = self.links(data, begin, end, final)
        parts: list[Records] = []
        span = end - begin
        while begin < end:
            if self.lost:
                found = next_plausible(data, begin, end, links)
                if found is None:
                    begin = end if final else max(begin, end - _KEPT_WHEN_LOST_OCTETS)
                    break
                begin, self.lost, span = found, False, _FIRST_SPAN_OCTETS
                links = self.links(data, begin, end, final)
            until = min(begin + span, end)
            part, begin, stop = self.run(data, begin, until, end, links, skipped)
            parts.append(part)
            if stop is Stop.WRONG:
                skipped["damaged_record"] += 1
                self.lost = True
                begin += 1
                links = self.links(data, begin, end, final)
            elif stop is Stop.CUT:
                if not final:
                    break
                found = next_plausible(data, begin + 1, end, links)
                skipped["truncated_record" if found is None else "damaged_record"] += 1
                begin, span = end if found is None else found, _FIRST_SPAN_OCTETS
            else:
                span = _FIRST_SPAN_OCTETS if stop is Stop.TURNED else span * 4
                links = self.links(data, begin, end, final)
        return _together(parts, data), begin


def _together(parts: Sequence[Records], data: UInt8) -> Records:
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else empty()
    columns = ("offset", "captured", "wire", "time_ns", "link_type")
    return Records(data, *(np.concatenate([getattr(part, name) for part in parts]) for name in columns))
