"""Captures in, packet columns out, a chunk at a time: reads files, joins them by time. Knows no flow.

The same packet seen at two capture points of a mirror is two packets here; removing such duplicates is not this
room's yet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from replay.capture.follow import Spool
from replay.capture.order import Reordered, merged
from replay.capture.records import Records, empty, joined
from replay.columns import Packets, Quotes
from replay.errors import InvalidCapture
from replay.headers.decode import Decoder

__all__ = ["CHUNK_OCTETS", "PacketStream", "Packets", "Quotes", "packet_chunks", "read_packets"]

CHUNK_OCTETS = 64 << 20
FRAGMENT_WINDOW_OCTETS = 1 << 20
"""How many octets of later packets a later fragment waits for the first one of its datagram."""


class PacketStream:
    """The packets of captures as tables sorted by time, one chunk after another, each over octets of its own.

    All chunks together are what `read_packets` gives. In a chunk, `datagram` is counted from the chunk's own first
    row: it is negative when the first fragment was in a chunk before. `skipped` counts the records left out so far,
    `late` the packets that were out of order by more than the reorder window (replay.capture.order) and so stand in
    a later chunk than their time asks for. With `inner`, a tunnel's packet is replaced by the one inside.
    """

    def __init__(self, paths: Sequence[Path], *, chunk_octets: int = CHUNK_OCTETS, inner: bool = False) -> None:
        if chunk_octets < 1:
            raise ValueError(f"a chunk of {chunk_octets} octets")
        self._paths, self._chunk_octets = [Path(path) for path in paths], chunk_octets
        self._decoder = Decoder(inner)
        self._order = Reordered()
        self._waiting = empty()
        self._read: Counter[str] = Counter()

    @property
    def skipped(self) -> Counter[str]:
        """How many records were left out so far, by reason."""
        return self._read + self._decoder.skipped

    @property
    def late(self) -> int:
        """How many records were handed on after one that passed later."""
        return self._order.late

    def __iter__(self) -> Iterator[Packets]:
        """The chunks, once; raises InvalidCapture when a file is not a capture, or when all of them hold no record."""
        if not self._paths:
            raise InvalidCapture(Path(), "no file", "at least one packet")
        for block in merged(self._paths, self._chunk_octets, self._read):
            yield from self._passed_on(self._order.after(block))
        yield from self._passed_on(self._order.rest(), final=True)
        if not self._decoder.rows and not self.skipped:
            raise InvalidCapture(self._paths[0], "a capture without packets", "at least one packet")

    def _passed_on(self, tables: Iterator[Records], final: bool = False) -> Iterator[Packets]:
        for records in tables:
            yield from self._decoded(records, False)
        if final:
            yield from self._decoded(empty(), True)

    def _decoded(self, records: Records, final: bool) -> Iterator[Packets]:
        """The packets of further records, or none as long as all of them wait for first fragments."""
        records = joined([self._waiting.alone(), records]).in_time_order()
        if not len(records):
            return
        beyond = np.cumsum(records.captured[::-1])[::-1]
        awaited_from = len(records) if final else int(np.searchsorted(-beyond, -FRAGMENT_WINDOW_OCTETS))
        packets, used = self._decoder.decode(records, awaited_from)
        self._waiting = records.taken(slice(used, None))
        if len(packets):
            yield packets


class FollowedPackets(PacketStream):
    """The packets of a folder that captures are written into, for as long as `ended` is false.

    Chunks come as packets do: those of a round may wait for the next one, which tells whether earlier ones follow.
    Between rounds `pause` is given the seconds of `interval_s`; when `ended`, one last round is read.
    """

    def __init__(
        self,
        directory: Path,
        ended: Callable[[], bool],
        *,
        pause: Callable[[float], None] = time.sleep,
        interval_s: float = 0.5,
        chunk_octets: int = CHUNK_OCTETS,
        inner: bool = False,
    ) -> None:
        super().__init__([directory], chunk_octets=chunk_octets, inner=inner)
        self._spool = Spool(Path(directory))
        self._read = self._spool.skipped
        self._ended, self._pause, self._interval_s = ended, pause, interval_s

    def __iter__(self) -> Iterator[Packets]:
        """The chunks, once; raises InvalidCapture when the folder cannot be read."""
        last = False
        while True:
            came = False
            for block in self._spool.round(self._chunk_octets):
                came = True
                yield from self._passed_on(self._order.after(block))
            if not came:
                yield from self._passed_on(self._order.rest(), final=True)
            if last:
                break
            last = self._ended()
            if not last:
                self._pause(self._interval_s)
        self._spool.finish()
        yield from self._passed_on(self._order.rest(), final=True)


def follow(
    directory: Path,
    ended: Callable[[], bool],
    *,
    pause: Callable[[float], None] = time.sleep,
    interval_s: float = 0.5,
    chunk_octets: int = CHUNK_OCTETS,
    inner: bool = False,
) -> FollowedPackets:
    """The packets of a folder that captures are written into, as a stream that never delivers one twice."""
    return FollowedPackets(directory, ended, pause=pause, interval_s=interval_s, chunk_octets=chunk_octets, inner=inner)


def packet_chunks(paths: Sequence[Path], *, chunk_octets: int = CHUNK_OCTETS, inner: bool = False) -> Iterator[Packets]:
    """The chunks of a PacketStream, for who does not need to know what was left out."""
    yield from PacketStream(paths, chunk_octets=chunk_octets, inner=inner)


def read_packets(paths: Sequence[Path], *, inner: bool = False) -> tuple[Packets, Counter[str]]:
    """Read captures into one table of packets sorted by time, with the number of records left out by reason.

    A capture may end in the middle of a record, hold garbage between packets or be cut by a snaplen: what could
    not be read is counted, and when that is everything the table is empty. Raises InvalidCapture when a file is
    not a capture, or when all of them together hold no record, readable or not.
    """
    stream = PacketStream(paths, inner=inner)
    chunks = list(stream)
    return concatenated(chunks), stream.skipped


def concatenated(chunks: Sequence[Packets]) -> Packets:
    """The chunks of a stream from its first on as one table, over a copy of their octets."""
    if not chunks:
        chunks = [Decoder().decode(empty(), 0)[0]]
    if len(chunks) == 1:
        return chunks[0]
    rows = np.cumsum([0] + [len(chunk) for chunk in chunks[:-1]]).tolist()
    begins = np.cumsum([0] + [len(chunk.data) for chunk in chunks[:-1]]).tolist()
    moved = [
        replace(
            chunk,
            payload_offset=chunk.payload_offset + begin,
            datagram=chunk.datagram + row,
            quotes=replace(chunk.quotes, packet=chunk.quotes.packet + row),
        )
        for chunk, row, begin in zip(chunks, rows, begins, strict=True)
    ]
    quotes = Quotes(*(np.concatenate([getattr(one.quotes, f.name) for one in moved]) for f in fields(Quotes)))
    columns = (f.name for f in fields(Packets) if f.name != "quotes")
    table = {name: np.concatenate([getattr(one, name) for one in moved]) for name in columns}
    return Packets(quotes=quotes, **table)
