"""Payload beyond what is held lies in files, is read back whole, and goes when nobody keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from replay.meter import StreamMeter, Timeouts, metered
from replay.spool import Spool
from tests.replay.packet_columns import MS, cut, packets_of

SEND = (17, (0, 1), (40000, 9000), False, 0, 0, 8, 0, 1, 0)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_more_than_may_be_held_is_read_back_from_files_that_go_with_it():
    before = open_files()
    spool = Spool(held_octets=10)
    chunks = [np.arange(size, dtype=np.uint8) for size in (8, 8, 0, 9)]
    begins = [spool.add(chunk) for chunk in chunks]
    assert begins == [0, 8, 16, 16]
    kept = spool.kept(np.array([1, 12, 17]))
    assert open_files() == before + 1
    spool.trim(spool.end())
    assert [kept.read(at, size) for at, size in ((1, 3), (8, 8), (16, 9))] == [
        b"\1\2\3",
        bytes(range(8)),
        bytes(range(9)),
    ]
    del kept, spool
    assert open_files() == before


def test_a_stream_that_never_ends_keeps_what_is_open_and_nothing_else():
    stream = StreamMeter(Timeouts(idle_ns=20 * MS, forget_ns=100 * MS))
    flows = 0
    for number in range(300):
        ports = (1024 + number % 200, 9000)
        rows = [(*SEND[:2], ports, *SEND[3:8], 30, 0), (*SEND[:2], ports, *SEND[3:])]
        packets = packets_of(rows)
        packets.time_ns[:] += number * 31 * MS
        piece = stream.feed(packets)
        flows += len(piece.flows)
        assert len(piece.payloads) == 2 * len(piece.flows)
        assert [len(payload) for payload in piece.payloads] == [8] * len(piece.payloads)
    assert 296 <= flows <= 300
    assert stream._table._known["is_open"].sum() <= 2
    assert len(stream._spool._stretches) <= 4
    assert len(stream._waiting._parts) <= 4


def test_a_stream_forgets_the_five_tuples_that_are_long_silent(monkeypatch):
    monkeypatch.setattr("replay.flow_table._FEW", 8)
    timeouts = Timeouts(idle_ns=2 * MS, forget_ns=10 * MS)
    stream = StreamMeter(timeouts, flows_only=True)
    names = []
    for number in range(200):
        packets = packets_of([(*SEND[:2], (1024 + number % 50, 9000), *SEND[3:])])
        packets.time_ns[:] += number * 3 * MS
        names += stream.feed(packets).flows["flow_id"].tolist()
    names += stream.finish().flows["flow_id"].tolist()
    assert len(names) == len(set(names)) == 200
    assert stream._table.numbering.count() < 20


def test_pieces_of_a_stream_are_told_when_their_flows_end():
    packets = packets_of([SEND, (*SEND[:8], 250, 0), (*SEND[:8], 250, 0)])
    pieces = [len(piece.flows) for piece in metered(cut(packets, [1, 2]), Timeouts(idle_ns=100 * MS))]
    assert pieces == [0, 1, 1, 1]
