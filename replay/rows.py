"""The packets of flows that have ended, kept until then: what messages and segments are made of. Knows no header."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from replay.columns import Int32, Int64, Packets, UInt8, UInt32
from replay.flow_table import Assigned


@dataclass(frozen=True, slots=True)
class Rows:
    """Packets ordered by flow, then time. `flow` is the flow's number, `packet` the packet's in the whole stream.

    `end` is the sending end, `at` where the payload begins in the payload spool, `datagram` the number of the packet
    that carried the first fragment. `captured_octets` of the payload are in the spool.
    """

    packet: Int64
    flow: Int64
    end: UInt8
    protocol: UInt8
    time_ns: Int64
    sequence: UInt32
    tcp_flags: UInt8
    hop_limit: UInt8
    payload_octets: Int32
    captured_octets: Int32
    at: Int64
    datagram: Int64
    fragment_octets: Int32

    def __len__(self) -> int:
        return len(self.flow)

    def taken(self, chosen: Int64 | npt.NDArray[np.bool_]) -> Rows:
        """The chosen rows in the chosen order."""
        return Rows(*(getattr(self, one.name)[chosen] for one in fields(self)))

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        """One table of all."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))

    @classmethod
    def of(cls, packets: Packets, assigned: Assigned, first_packet: int, spooled_at: int) -> Rows:
        """A chunk's packets, whose number in the stream begins at first_packet and whose data lie at spooled_at."""
        row = assigned.row
        return cls(
            packet=first_packet + row,
            flow=assigned.flow,
            end=assigned.end,
            protocol=packets.protocol[row],
            time_ns=packets.time_ns[row],
            sequence=packets.sequence[row],
            tcp_flags=packets.tcp_flags[row],
            hop_limit=packets.hop_limit[row],
            payload_octets=packets.payload_octets[row],
            captured_octets=packets.captured_octets[row],
            at=spooled_at + packets.payload_offset[row],
            datagram=first_packet + packets.datagram[row],
            fragment_octets=packets.fragment_octets[row],
        )


@dataclass(slots=True)
class Waiting:
    """The packets of the flows that are still open."""

    _parts: list[Rows] = field(default_factory=list)

    def add(self, rows: Rows) -> None:
        """Keep packets that are later than all before."""
        if len(rows):
            self._parts.append(rows)

    def first_at(self, otherwise: int) -> int:
        """The least address of a payload that is waited with."""
        return min((int(part.at.min()) for part in self._parts), default=otherwise)

    def pop(self, numbers: Int64) -> Rows:
        """Give up the packets of these flows (numbers ascending), by flow, then time."""
        if not len(numbers) or not self._parts:
            return Rows.joined([_NONE])
        chosen: list[Rows] = [_NONE]
        left: list[Rows] = []
        for part in self._parts:
            place = np.minimum(np.searchsorted(numbers, part.flow), len(numbers) - 1)
            gone = numbers[place] == part.flow
            if gone.all():
                chosen.append(part)
            elif gone.any():
                chosen.append(part.taken(gone))
                left.append(part.taken(~gone))
            else:
                left.append(part)
        self._parts = left if len(left) < _MOST_PARTS else [Rows.joined(left)]
        rows = Rows.joined(chosen)
        return rows.taken(np.lexsort((rows.packet, rows.flow)))


@dataclass(frozen=True, slots=True)
class Biflows:
    """Rows whose flows are numbered from 0: flow i spans start[i]:start[i + 1]; `direction` 0 is the initiator's."""

    rows: Rows
    flow: Int64
    direction: UInt8
    start: Int64

    def __len__(self) -> int:
        return len(self.start) - 1

    @classmethod
    def of(cls, rows: Rows, numbers: Int64, forward: UInt8) -> Biflows:
        """The packets of the flows of these numbers (ascending), `forward` the initiator's end of each."""
        flow = np.searchsorted(numbers, rows.flow)
        start = np.searchsorted(rows.flow, np.append(numbers, np.iinfo(np.int64).max))
        return cls(rows, flow, (rows.end != forward[flow]).astype(np.uint8), start)


_MOST_PARTS = 64


_WIDE, _SHORT, _OCTET = np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint8)
_NONE = Rows(
    packet=_WIDE,
    flow=_WIDE,
    end=_OCTET,
    protocol=_OCTET,
    time_ns=_WIDE,
    sequence=np.zeros(0, np.uint32),
    tcp_flags=_OCTET,
    hop_limit=_OCTET,
    payload_octets=_SHORT,
    captured_octets=_SHORT,
    at=_WIDE,
    datagram=_WIDE,
    fragment_octets=_SHORT,
)
