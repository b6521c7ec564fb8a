"""Compiled code reads the packets that the plain code reads, from good captures, hostile ones and any header at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.capture import chain
from replay.capture.records import SLACK_OCTETS, Records
from replay.columns import Packets
from replay.compiled import SWITCH, compiled
from replay.errors import InvalidCapture
from replay.headers.decode import Decoder
from replay.headers.ordinary import ordinary_packets
from replay.meter import read_traffic
from replay.packets import PacketStream, concatenated
from tests.replay.capture_files import CAPTURES, pcap
from tests.replay.test_hostile import CHANGES, ETHERNET, HOSTILE, LINK_TYPES, RAW, changed
from tests.replay.test_packet_stream import FRAMES, rows

pytestmark = pytest.mark.skipif(compiled() is None, reason="no C compiler")
MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def plain():
    """Compiled code is left out inside."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    compiled.cache_clear()
    try:
        yield
    finally:
        os.environ.pop(SWITCH) if before is None else os.environ.update({SWITCH: before})
        compiled.cache_clear()


def told(path, chunk_octets):
    """Everything that a capture's stream says."""
    stream = PacketStream([path], chunk_octets=chunk_octets)
    try:
        chunks = list(stream)
    except InvalidCapture as refused:
        return str(refused)
    types = [getattr(chunks[0], one.name).dtype for one in fields(Packets) if one.name != "quotes"] if chunks else []
    return [rows(chunk) for chunk in chunks], rows(concatenated(chunks)), types, stream.skipped, stream.late


@MANY
@given(HOSTILE, st.sampled_from([40, 300, 1 << 20]))
def test_a_hostile_capture_says_the_same_either_way(tmp_path, hostile, chunk_octets):
    content, pack, changes = hostile
    path = tmp_path / "hostile"
    path.write_bytes(changed(pack(content), changes) if pack else content)
    quick = told(path, chunk_octets)
    with plain():
        assert told(path, chunk_octets) == quick


@pytest.mark.parametrize("chunk_octets", [5000, 1 << 20])
def test_public_captures_say_the_same_either_way(chunk_octets):
    paths = sorted(path for path in CAPTURES.glob("*.pcap*") if path.stat().st_size < 1 << 20)
    for path in paths:
        quick = told(path, chunk_octets)
        with plain():
            assert told(path, chunk_octets) == quick


LAYERS = st.tuples(
    st.sampled_from([*FRAMES, *ETHERNET, *RAW]),
    CHANGES,
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=3),
    st.sampled_from([1, 1, 1, *LINK_TYPES, 113]),
    st.integers(0, 200) | st.none(),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=8), st.integers(0, 8))
def test_any_header_reads_the_same_either_way(frames, awaited_from):
    records = records_of(frames)
    plainly, quickly = Decoder(library=None), Decoder(library=compiled())
    assert_same(plainly, quickly, records, awaited_from)
    assert_same(plainly, quickly, records, len(records))  # what the chunk before has told is known here


def records_of(frames):
    """One record after another over one buffer, which ends where the last one does."""
    kept, links = [], []
    for frame, changes, octets, link_type, snaplen in frames:
        one = bytearray(changed(frame, changes))
        for at, octet in octets:
            if at < len(one):
                one[at] = octet
        kept.append(bytes(one[:snaplen]))
        links.append(link_type)
    captured = np.array([len(one) for one in kept], np.int64)
    data = np.frombuffer(b"".join(kept) + bytes(SLACK_OCTETS), np.uint8)
    times = np.arange(len(kept), dtype=np.int64)
    return Records(data, np.cumsum(captured) - captured, captured, captured + 3, times, np.array(links, np.int64))


def assert_same(plainly, quickly, records, awaited_from):
    (one, used), (other, quick_used) = (way.decode(records, awaited_from) for way in (plainly, quickly))
    assert used == quick_used
    assert rows(one) == rows(other)
    assert one.payload_offset.tolist() == other.payload_offset.tolist()
    assert plainly.skipped == quickly.skipped
    assert plainly.rows == quickly.rows


@MANY
@given(
    st.lists(st.binary(max_size=90), min_size=4, max_size=60),
    st.sampled_from("<>"),
    st.lists(st.tuples(st.just("write"), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6))),
)
def test_stretches_side_by_side_are_followed_like_one(tmp_path, frames, order, changes):
    path = tmp_path / "capture"
    path.write_bytes(changed(pcap([(n / 7, frame) for n, frame in enumerate(frames)], order), changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "_COMPILED_LANE_OCTETS", 64)
        patch.setattr(chain, "_LEAST_LANES", 1)
        quick = told(path, 1 << 16)
    with plain():
        assert told(path, 1 << 16) == quick


def test_the_tables_are_the_same_either_way():
    path = CAPTURES / "http.cap"
    paths = [path] if path.exists() else sorted(CAPTURES.glob("*.pcap"))[:3]
    quick = read_traffic(paths)
    with plain():
        slow = read_traffic(paths)
    assert quick.flows.equals(slow.flows)
    assert quick.messages.equals(slow.messages)
    assert quick.segments.equals(slow.segments)
    assert quick.skipped == slow.skipped


def test_records_outside_of_their_buffer_are_left_to_the_plain_code():
    records = records_of([(FRAMES[-1], [], [], 1, None)] * 3)
    astray = Records(
        records.data,
        np.array([-5, 1 << 40, 10]),
        np.array([60, 60, 1 << 62]),
        records.wire,
        records.time_ns,
        records.link_type,
    )
    assert ordinary_packets(compiled(), astray)[1].tolist() == [0, 1, 2]
    assert not len(ordinary_packets(compiled(), records)[1])
