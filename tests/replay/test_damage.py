"""Damage inside a capture costs what was damaged, not what follows; reading goes on at the next plausible record."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.all import IP, UDP, Ether, Raw

from replay.packets import read_packets
from tests.replay.capture_files import MACS, START_S, enhanced, interface, pcap, section
from tests.replay.test_packet_stream import chunked, rows

FRAMES = [
    bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=n + 1, dport=9) / Raw(bytes(range(200))))
    for n in range(40)
]
RECORD = 16 + len(FRAMES[0])
BLOCKS = [enhanced(0, START_S * 10**6 + n, frame) for n, frame in enumerate(FRAMES)]


def capture(order="<", nanoseconds=False):
    return bytearray(pcap([(n, frame) for n, frame in enumerate(FRAMES)], order, nanoseconds))


def ports(tmp_path, content):
    path = tmp_path / "capture"
    path.write_bytes(content)
    packets, skipped = read_packets([path])
    assert chunked([path], 700) == (rows(packets), skipped)
    return packets.source_port.tolist(), skipped


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("damage", [b"\xff" * 16, b"\x00" * 16, b"\x55" * 24])
def test_a_damaged_record_header_costs_one_packet(tmp_path, order, nanoseconds, damage):
    content = capture(order, nanoseconds)
    at = 24 + 7 * RECORD
    content[at : at + len(damage)] = damage
    assert ports(tmp_path, content) == ([n for n in range(1, 41) if n != 8], {"damaged_record": 1})


def test_octets_that_are_missing_or_too_many_cost_the_packets_they_are_in(tmp_path):
    content, at = capture(), 24 + 20 * RECORD + 100
    fewer, skipped = ports(tmp_path, content[:at] + content[at + 37 :])
    assert fewer == [*range(1, 22), *range(23, 41)]
    assert skipped == {"damaged_record": 1}
    more, skipped = ports(tmp_path, content[:at] + b"\xaa" * 1000 + content[at:])
    assert more == list(range(1, 41))
    assert skipped == {"damaged_record": 1}


def test_the_first_header_may_be_damaged_and_zeros_may_end_a_file(tmp_path):
    content = capture()
    content[24:40] = b"\xee" * 16
    assert ports(tmp_path, content + b"\0" * 5000) == (list(range(2, 41)), {"damaged_record": 2})


def test_a_length_beyond_the_end_loses_no_packet_after_it(tmp_path):
    content, at = capture(), 24 + 30 * RECORD
    content[at + 8 : at + 12] = struct.pack("<I", 200_000)
    assert ports(tmp_path, content) == ([n for n in range(1, 41) if n != 31], {"damaged_record": 1})


@pytest.mark.parametrize("damage", [b"\xff" * 12, b"\0" * 12, b"\x07\0\0\0\x0d\0\0\0"])
def test_a_damaged_block_costs_one_packet(tmp_path, damage):
    content = bytearray(section() + interface() + b"".join(BLOCKS))
    at = len(section() + interface()) + 7 * len(BLOCKS[0])
    content[at : at + len(damage)] = damage
    assert ports(tmp_path, content) == ([n for n in range(1, 41) if n != 8], {"damaged_record": 1})


def test_a_block_length_beyond_the_end_loses_no_packet_after_it(tmp_path):
    content = bytearray(section() + interface() + b"".join(BLOCKS))
    at = len(section() + interface()) + 7 * len(BLOCKS[0])
    content[at + 4 : at + 8] = struct.pack("<I", 1 << 20)
    assert ports(tmp_path, content) == ([n for n in range(1, 41) if n != 8], {"damaged_record": 1})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 40 * RECORD - 1), st.binary(min_size=1, max_size=60), st.booleans())
def test_any_damage_leaves_the_packets_before_it_and_nearly_all_after(tmp_path, at, damage, blocks):
    content = bytearray(section() + interface() + b"".join(BLOCKS)) if blocks else capture()
    begin = len(section() + interface()) if blocks else 24
    size = len(BLOCKS[0]) if blocks else RECORD
    at = begin + at % (40 * size - len(damage))
    content[at : at + len(damage)] = damage
    path = tmp_path / "capture"
    path.write_bytes(content)
    packets, _ = read_packets([path])
    found = packets.source_port.tolist()
    hit = range((at - begin) // size, (at + len(damage) - 1 - begin) // size + 1)
    assert set(range(1, hit.start + 1)) <= set(found)
    lost = {n + 1 for n in range(40) if n not in hit} - set(found)
    assert len(lost) <= 2
