"""What the first words of every lane say: recognised while the bytes pass, so that no payload is kept for it.

A lane is one direction of one flow, by number (the flow's number * 2 + the sending end). Knows where payload lies and
the ports, not which end is the initiator: both meanings are kept until the flow ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from replay.biflow import Ordered, Segments, Table
from replay.columns import TCP, UDP, Bool, Int64, Packets, UInt8
from replay.coverage import Placed
from replay.payload import (
    DATAGRAM_PORTS,
    SPOKEN_PORTS,
    Recognition,
    said_by_initiator,
    said_by_responder,
    unfinished,
)

Saying = tuple[Recognition | None, Recognition | None]
"""What words mean when their sender is the initiator, and when it is the responder."""
UNHEARD, COLLECTED, HEARD = 0, 1, 2
LONGEST_HEAD_OCTETS = 16_384
LARGEST_GAP_OCTETS = 65_536
_STASH = 16


@dataclass(slots=True)
class _Head:
    """The words of one lane so far, and the segments that came before their turn."""

    protocol: int
    source_port: int
    destination_port: int
    expected: int
    words: bytearray = field(default_factory=bytearray)
    early: dict[int, bytes] = field(default_factory=dict)
    cut_short: bool = False

    def take(self, position: int, octets: int, captured: bytes) -> bool:
        """Add a segment of this many octets; False when no more is wanted."""
        if position > self.expected:
            if position > self.expected + LARGEST_GAP_OCTETS:
                self.cut_short = True
                return False
            if len(self.early) < _STASH and len(captured) == octets:
                self.early.setdefault(position, captured)
            return True
        if position + octets <= self.expected:
            return True
        skip = self.expected - position
        self.words += captured[skip : skip + LONGEST_HEAD_OCTETS]
        self.expected = position + octets
        self.cut_short = len(captured) < octets
        if self.cut_short or len(self.words) >= LONGEST_HEAD_OCTETS:
            return False
        if self.expected in self.early:
            following = self.early.pop(self.expected)
            return self.take(self.expected, len(following), following)
        return unfinished(self.protocol, self.destination_port, self.words)


class FirstWords:
    """The lanes whose words are still being collected, and what the others said."""

    def __init__(self) -> None:
        self._heads: dict[int, _Head] = {}
        self._said: dict[int, Saying] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def begin(self, lane: int, protocol: int, ports: tuple[int, int], position: int) -> None:
        """Collect the words of a lane from this position of its stream on; `ports` are the source's and the other."""
        self._heads[lane] = _Head(protocol, *ports, position)

    def open_lanes(self) -> Iterator[int]:
        """The lanes that want more words."""
        return iter(self._heads)

    def take(self, lane: int, position: int, octets: int, captured: bytes) -> bool:
        """Add a segment's payload to a lane that is being collected; False when its words are complete."""
        head = self._heads[lane]
        if head.take(position, octets, captured):
            return True
        self._settle(lane, self._heads.pop(lane))
        return False

    def hear(self, lane: int, protocol: int, ports: tuple[int, int], words: bytes, *, cut_short: bool = False) -> None:
        """All the words of a lane at once."""
        asks = said_by_initiator(protocol, ports[1], words)
        answers = asks if protocol == UDP else said_by_responder(protocol, ports[0], words)
        if words and (asks or answers or not cut_short):
            self._said[lane] = (asks, answers)

    def pop(self, lane: int) -> Saying | None:
        """What an ended lane said, forgetting it; None when it never said a word that was captured."""
        if (head := self._heads.pop(lane, None)) is not None:
            self._settle(lane, head)
        return self._said.pop(lane, None)

    def _settle(self, lane: int, head: _Head) -> None:
        ports = head.source_port, head.destination_port
        self.hear(lane, head.protocol, ports, bytes(head.words), cut_short=head.cut_short)


@dataclass(frozen=True, slots=True)
class Listener:
    """Hands the payload of one chunk to the lanes that want words; `words` beside the lanes says how each stands."""

    packets: Packets
    chunk: Ordered
    heard: FirstWords

    def stream(self, lanes: Table, words: UInt8, placed: Placed, place: Int64) -> None:
        """Listen to TCP lanes: `placed` says where payload lies in its lane, `place` which place of the chunk it is."""
        lane, row = placed.lane, self.chunk.row[place]
        fresh = np.ones(len(lane), np.bool_)
        fresh[1:] = lane[1:] != lane[:-1]
        head = np.flatnonzero(fresh)
        until = np.append(head[1:], len(lane))
        state = words[lane[head]]
        begins = np.flatnonzero(state == UNHEARD)
        telling = self._telling(row[head[begins]])
        words[lane[head[begins]]] = np.where(telling, COLLECTED, HEARD)
        slow = self._begun(lanes, placed, row, head[begins[telling]])
        if still := np.flatnonzero(state == COLLECTED).tolist():
            wanted = set(self.heard.open_lanes())
            slow += [int(head[one]) for one in still if int(lanes["number"][lane[head[one]]]) in wanted]
        for first in slow:
            number = int(lanes["number"][lane[first]])
            for at in range(first, int(until[np.searchsorted(head, first)])):
                octets = int(placed.end[at] - placed.begin[at])
                if not self.heard.take(number, int(placed.begin[at]), octets, self._payload(int(row[at]))):
                    break

    def _begun(self, lanes: Table, placed: Placed, row: Int64, head: Int64) -> list[int]:
        """Hear the first segments of these lanes; returns those (by place in head) that want more."""
        lane, packets = placed.lane[head], self.packets
        begin, row = placed.begin[head], row[head]
        base = np.where(lanes["synchronised"][lane] & ~lanes["late"][lane], lanes["base"][lane], begin)
        captured = packets.captured_octets[row]
        whole = (begin == base) & (captured == packets.payload_octets[row])
        at = packets.payload_offset[row]
        until = at + np.minimum(captured, LONGEST_HEAD_OCTETS)
        columns = (lanes["number"][lane], packets.source_port[row], packets.destination_port[row], base, at, until)
        more = []
        for place, is_whole, number, source, destination, position, first, end in zip(
            head.tolist(), whole.tolist(), *(column.tolist() for column in columns), strict=True
        ):
            words = packets.data[first:end].tobytes() if is_whole else b""
            if is_whole and not unfinished(TCP, destination, words):
                self.heard.hear(number, TCP, (source, destination), words)
            else:
                self.heard.begin(number, TCP, (source, destination), position)
                more.append(place)
        return more

    def datagrams(self, segments: Segments, part: Table) -> None:
        """Listen to the first datagram of every lane to or from a port whose datagrams are understood."""
        packets, row = self.packets, self.chunk.row
        place = np.flatnonzero(self.chunk.protocol == UDP)
        at = row[place]
        known = np.isin(packets.source_port[at], DATAGRAM_PORTS) | np.isin(packets.destination_port[at], DATAGRAM_PORTS)
        known &= (packets.payload_octets[at] > 0) & (packets.fragment_octets[at] == 0)
        place = place[known]
        lane = segments.of_row[place] * 2 + self.chunk.end[place]
        which, first = np.unique(lane, return_index=True)
        fresh = part["words"][which >> 1, which & 1] == UNHEARD
        which, at = which[fresh], row[place[first[fresh]]]
        part["words"][which >> 1, which & 1] = COLLECTED
        numbers, begin = part["number"][which >> 1] * 2 + (which & 1), packets.payload_offset[at]
        captured = packets.captured_octets[at]
        columns = (
            numbers, packets.source_port[at], packets.destination_port[at], begin, begin + captured,
            captured < packets.payload_octets[at],
        )  # fmt: skip
        for number, source, destination, begins, ends, is_short in zip(*(one.tolist() for one in columns), strict=True):
            words = packets.data[begins:ends].tobytes()
            self.heard.hear(number, UDP, (source, destination), words, cut_short=is_short)

    def _telling(self, row: Int64) -> Bool:
        """Which of these packets' payloads begin with words that could mean something, or were not captured."""
        packets = self.packets
        captured = packets.captured_octets[row]
        begins = packets.payload_offset[row]
        reachable = np.minimum(begins[:, None] + np.arange(8), max(len(packets.data) - 1, 0))
        octets = packets.data[reachable] if len(packets.data) else np.zeros((len(row), 8), np.uint8)
        first = octets[:, 0]
        letter = ((first | 0x20) >= 0x61) & ((first | 0x20) <= 0x7A)
        answer = (octets[:, :4] == np.frombuffer(b"HTTP", np.uint8)).all(axis=1)
        telling = (letter & ~answer) | (first == 0x2A) | ((first == 0) & (octets[:, 1] == 0))
        telling |= (first == 22) & (octets[:, 1] == 3) & (octets[:, 5] == 1)
        telling |= np.isin(packets.destination_port[row], SPOKEN_PORTS)
        doubtful: Bool = telling | (captured < 8) | (captured < packets.payload_octets[row])
        return doubtful

    def _payload(self, row: int) -> bytes:
        begin = int(self.packets.payload_offset[row])
        kept = min(int(self.packets.captured_octets[row]), LONGEST_HEAD_OCTETS)
        return self.packets.data[begin : begin + kept].tobytes()
