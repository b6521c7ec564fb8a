"""However a capture is cut into chunks, packed or spread over files, the same packets come out in the same order."""

from __future__ import annotations

import gzip
import lzma
import random
import shutil
import struct
import subprocess
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.all import ICMP, IP, TCP, UDP, Dot1Q, Ether, IPv6, IPv6ExtHdrFragment, Raw, fragment, fragment6

from replay.capture.order import Reordered
from replay.capture.pcap import Pcap
from replay.capture.records import SLACK_OCTETS
from replay.columns import Packets
from replay.errors import InvalidCapture
from replay.packets import PacketStream, concatenated, packet_chunks, read_packets
from tests.replay.capture_files import CAPTURES, MACS, START_S, block, enhanced, interface, pcap, section

ETHER = Ether(**MACS)
START_NS = START_S * 1_000_000_000
DATAGRAM = bytes(n % 251 for n in range(3000))
FRAGMENTS = [
    bytes(ETHER / piece)
    for pieces in (
        fragment(IP(src="10.0.0.1", dst="10.0.0.2", id=77) / UDP(sport=53, dport=9) / Raw(DATAGRAM), fragsize=800),
        fragment6(IPv6(src="::1", dst="::2") / IPv6ExtHdrFragment(id=5) / UDP(sport=53, dport=9) / Raw(DATAGRAM), 1000),
    )
    for piece in pieces
]
FRAMES = [
    *FRAGMENTS,
    bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2, seq=5, flags="PA") / Raw(b"a" * 700)),
    bytes(ETHER / Dot1Q(vlan=3) / IPv6(src="::1", dst="::2") / TCP(sport=1, dport=2) / Raw(b"b" * 90)),
    bytes(ETHER / IP(src="10.0.0.9", dst="10.0.0.1") / ICMP(type=3, code=1) / IP() / UDP(sport=1, dport=2)),
    bytes(Ether(**MACS, type=0x0806) / Raw(b"\0" * 28)),
    bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=3, dport=4)),
]
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(packets: Packets) -> dict[str, list[object]]:
    """Everything that a table says, the payload octets themselves in place of where they lie."""
    table = {
        one.name: getattr(packets, one.name).tolist()
        for one in fields(Packets)
        if one.name not in ("quotes", "data", "payload_offset")
    }
    begin, size = packets.payload_offset.tolist(), packets.captured_octets.tolist()
    table["payload"] = [packets.data[at : at + octets].tobytes() for at, octets in zip(begin, size, strict=True)]
    for one in fields(packets.quotes):
        table[f"quotes.{one.name}"] = getattr(packets.quotes, one.name).tolist()
    return table


def chunked(paths, chunk_octets):
    stream = PacketStream(paths, chunk_octets=chunk_octets)
    chunks = list(stream)
    for chunk in chunks:
        assert np.all(np.diff(chunk.time_ns) >= 0)
        assert np.all(chunk.datagram < len(chunk))
        assert np.all(chunk.payload_offset + chunk.captured_octets <= len(chunk.data))
    return rows(concatenated(chunks)), stream.skipped


SHUFFLED = st.lists(st.tuples(st.sampled_from(FRAMES), st.integers(0, 40)), min_size=1, max_size=40)


@MANY
@given(SHUFFLED, st.integers(1, 5000), st.booleans())
def test_chunks_of_any_size_are_the_whole(tmp_path, frames, chunk_octets, blocks):
    path = tmp_path / "capture"
    if blocks:
        content = section() + interface()
        content += b"".join(enhanced(0, START_S * 10**6 + tick, frame) for frame, tick in frames)
    else:
        content = pcap([(tick / 1000, frame) for frame, tick in frames])
    path.write_bytes(content)
    packets, skipped = read_packets([path])
    assert len(packets) + sum(skipped.values()) == len(frames)
    assert chunked([path], chunk_octets) == (rows(packets), skipped)


@MANY
@given(st.lists(SHUFFLED, min_size=2, max_size=4), st.integers(50, 5000))
def test_chunks_of_several_files_are_their_packets_in_one_order(tmp_path, captures, chunk_octets):
    paths, alone = [], []
    for number, frames in enumerate(captures):
        paths.append(tmp_path / f"{number}")
        timed = sorted((tick / 1000, number, frame) for frame, tick in frames)
        paths[-1].write_bytes(pcap([(moment, frame) for moment, _, frame in timed]))
        alone += timed
    together = tmp_path / "together"
    together.write_bytes(pcap([(moment, frame) for moment, _, frame in sorted(alone, key=lambda one: one[:2])]))
    packets, skipped = read_packets([together])
    assert chunked(paths, chunk_octets) == (rows(packets), skipped)


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.pcap*")), ids=lambda path: path.name)
def test_public_captures_read_the_same_in_chunks(path):
    packets, skipped = read_packets([path])
    whole = rows(packets)
    for chunk_octets in (10_000, 77_777):
        assert chunked([path], chunk_octets) == (whole, skipped)


@pytest.mark.parametrize("pack", ["gzip", "members", "xz", "streams", "zstd"])
def test_packed_captures_are_unpacked_stepwise(tmp_path, pack):
    content = pcap([(n / 1000, FRAMES[n % len(FRAMES)]) for n in range(200)])
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(content)
    half = len(content) // 2
    if pack == "zstd":
        if shutil.which("zstd") is None:
            pytest.skip("no program zstd")
        packed.write_bytes(subprocess.run(["zstd", "-qc", plain], capture_output=True, check=True).stdout)
    else:
        compress = gzip.compress if pack in ("gzip", "members") else lzma.compress
        pieces = [content] if pack in ("gzip", "xz") else [content[:half], content[half:]]
        packed.write_bytes(b"".join(compress(piece) for piece in pieces))
    packets, skipped = read_packets([plain])
    assert chunked([packed], 3000) == (rows(packets), skipped)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_packed_tail_cut_off_gives_what_came_before(tmp_path, compress):
    noise = random.Random(1).randbytes
    content = pcap([(n / 1000, FRAMES[-1] + noise(400)) for n in range(1000)])
    path = tmp_path / "packed"
    path.write_bytes(compress(content)[: len(content) // 4])
    packets, skipped = read_packets([path])
    assert 100 < len(packets) < 1000
    assert skipped["truncated_compression"] == 1


def test_a_packet_beyond_the_reorder_window_comes_late_and_is_counted(tmp_path):
    order = Reordered(window_octets=1000)
    late = [*range(10, 40), 1, *range(40, 60)]
    path = tmp_path / "capture"
    path.write_bytes(pcap([(moment, FRAMES[-1] + b"\0" * 60) for moment in late]))
    data = np.concatenate((np.fromfile(path, np.uint8), np.zeros(SLACK_OCTETS, np.uint8)))
    format_ = Pcap(data[:24].tobytes())
    seen, begin = [], 24
    for end in range(24, len(data) - SLACK_OCTETS + 1, 118):
        records, begin = format_.records(data, begin, end, False, {})
        for table in order.after(records):
            seen += (table.time_ns // 10**9 - START_S).tolist()
    for table in order.rest():
        seen += (table.time_ns // 10**9 - START_S).tolist()
    assert sorted(seen) == sorted(late)
    assert order.late == 1
    assert [one for one in seen if one != 1] == sorted(set(late) - {1})


def test_a_large_capture_is_mapped_and_walked_in_lanes(tmp_path):
    frames = [(n / 10_000, FRAMES[n * 7 % len(FRAMES)]) for n in range(12_000)]
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(pcap(frames))
    small.write_bytes(gzip.compress(large.read_bytes(), 1))
    assert large.stat().st_size > 6 << 20
    mapped, copied = list(packet_chunks([large], chunk_octets=3 << 20)), list(packet_chunks([small], chunk_octets=9000))
    assert not mapped[0].data.flags.writeable
    assert rows(concatenated(mapped)) == rows(concatenated(copied))
    assert sum(len(chunk) for chunk in mapped) == 12_000 - sum(frame == FRAMES[-2] for _, frame in frames)


def test_a_capture_inside_a_capture_misleads_no_lane(tmp_path):
    inside = pcap([(n, FRAMES[-1]) for n in range(12)])[24:]
    carrier = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(inside))
    path = tmp_path / "capture"
    path.write_bytes(pcap([(n / 1000, carrier) for n in range(6000)]))
    packets, skipped = read_packets([path])
    assert len(packets) == 6000
    assert not skipped
    assert set(packets.payload_octets.tolist()) == {len(inside)}


@pytest.mark.parametrize("order", ["<", ">"])
def test_sections_of_either_order_follow_one_another(tmp_path, order):
    other = "<" if order == ">" else ">"
    one = section(order) + interface(1, b"", order) + enhanced(0, START_S * 10**6, FRAMES[-1], order)
    two = section(other) + interface(1, b"", other) + enhanced(0, START_S * 10**6 + 1, FRAMES[-1], other)
    path = tmp_path / "capture"
    path.write_bytes((one + two) * 20)
    packets, skipped = read_packets([path])
    assert len(packets) == 40
    assert not skipped
    assert chunked([path], 100)[0] == rows(packets)


def test_simple_packets_have_the_time_of_the_packet_before_and_the_snaplen_of_the_interface(tmp_path):
    snaplen = 60
    frame = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=3, dport=4) / Raw(b"x" * 100))
    simple = block(3, struct.pack("<I", len(frame)) + frame[:snaplen])
    content = section() + block(1, struct.pack("<HHI", 1, 0, snaplen)) + simple
    content += enhanced(0, START_S * 10**6 + 7, FRAMES[-1]) + simple
    path = tmp_path / "capture"
    path.write_bytes(content)
    packets, skipped = read_packets([path])
    assert skipped == {"no_timestamp": 1}
    assert (packets.time_ns - START_NS).tolist() == [7000, 7000]
    assert packets.payload_octets.tolist() == [0, 100]
    assert packets.captured_octets.tolist() == [0, snaplen - 42]


def test_a_stream_of_no_file_and_a_chunk_of_nothing_are_refused():
    with pytest.raises(InvalidCapture):
        list(PacketStream([]))
    with pytest.raises(ValueError, match="a chunk of 0 octets"):
        PacketStream([], chunk_octets=0)
