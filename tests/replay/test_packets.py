"""The reader takes every container it promises, by content, and never ends on damage."""

from __future__ import annotations

import gzip
import lzma
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.all import IP, UDP, Ether, IPv6, Raw

from replay.errors import InvalidCapture
from replay.meter import meter
from replay.packets import read_packets
from tests.replay.capture_files import MACS, START_S, block, enhanced, interface, option, pcap, section

ETHER = Ether(**MACS)
FRAME = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=2000) / Raw(b"hello"))
RAW6 = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1000, dport=2000) / Raw(b"hello"))
START_NS = START_S * 1_000_000_000


def read(tmp_path, content, name="anything.txt"):
    path = tmp_path / name
    path.write_bytes(content)
    return read_packets([path])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap_times_are_exact_in_both_byte_orders_and_resolutions(tmp_path, order, nanoseconds):
    packets, skipped = read(tmp_path, pcap([(0.25, FRAME), (1.000001, FRAME)], order, nanoseconds))
    assert (packets.time_ns - START_NS).tolist() == [250_000_000, 1_000_001_000]
    assert bytes(packets.data[packets.payload_offset[0] :][:5]) == b"hello"
    assert not skipped


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_variant_with_longer_record_headers_is_read(tmp_path, order):
    header = struct.pack(f"{order}IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    record = struct.pack(f"{order}IIIIIHBB", START_S, 7, len(FRAME), len(FRAME), 1, 0, 0, 0) + FRAME
    packets, skipped = read(tmp_path, header + record * 3)
    assert (packets.time_ns - START_NS).tolist() == [7000] * 3
    assert not skipped


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_compressed_captures_are_read_under_any_name(tmp_path, pack):
    packets, _ = read(tmp_path, pack(pcap([(0, FRAME)])), "capture.pcap")
    assert len(packets) == 1


def test_a_cut_off_gzip_gives_what_came_before_the_cut(tmp_path):
    whole = gzip.compress(pcap([(n, FRAME + bytes([n])) for n in range(100)]), compresslevel=0)
    packets, skipped = read(tmp_path, whole[: len(whole) // 2])
    assert 30 < len(packets) < 60
    assert skipped["truncated_compression"] == 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_interfaces_keep_their_own_resolution_offset_and_link_type(tmp_path, order):
    offset = struct.pack(f"{order}q", START_S)
    content = section(order)
    content += interface(1, b"", order)
    content += interface(101, option(9, bytes([9]), order) + option(14, offset, order) + option(0, b"", order), order)
    content += interface(1, option(9, bytes([0x80 | 10]), order), order)
    content += enhanced(0, START_S * 1_000_000 + 1, FRAME, order)
    content += enhanced(1, 2_500, RAW6, order)
    content += enhanced(2, (START_S << 10) + 512, FRAME, order)
    packets, skipped = read(tmp_path, content)
    assert (packets.time_ns - START_NS).tolist() == [1_000, 2_500, 500_000_000]
    assert packets.version.tolist() == [4, 6, 4]
    assert not skipped


def test_a_new_pcapng_section_forgets_the_interfaces_before_it(tmp_path):
    content = section() + interface() + enhanced(0, START_S * 10**6, FRAME)
    content += section(">") + enhanced(0, START_S * 10**6, FRAME, ">")
    packets, skipped = read(tmp_path, content)
    assert len(packets) == 1
    assert skipped == {"unknown_interface": 1}


def test_blocks_without_a_time_and_unknown_blocks_are_counted_or_passed_over(tmp_path):
    simple = block(3, struct.pack("<I", len(FRAME)) + FRAME)
    content = section() + interface() + block(0xBAD, b"1234") + simple + enhanced(0, START_S * 10**6, FRAME)
    packets, skipped = read(tmp_path, content)
    assert len(packets) == 1
    assert skipped == {"no_timestamp": 1}


def test_a_truncated_tail_is_counted_and_the_rest_is_read(tmp_path):
    packets, skipped = read(tmp_path, pcap([(0, FRAME), (1, FRAME)])[:-3])
    assert len(packets) == 1
    assert skipped == {"truncated_record": 1}


def test_a_pcapng_tail_cut_off_is_counted_too(tmp_path):
    whole = section() + interface() + enhanced(0, START_S * 10**6, FRAME) * 2
    packets, skipped = read(tmp_path, whole[:-5])
    assert len(packets) == 1
    assert skipped == {"truncated_record": 1}


def test_several_captures_become_one_table_in_time_order(tmp_path):
    late, early = tmp_path / "a", tmp_path / "b"
    late.write_bytes(pcap([(5, FRAME), (3, FRAME)]))
    early.write_bytes(section() + interface(101) + enhanced(0, (START_S + 4) * 10**6, RAW6))
    packets, _ = read_packets([late, early])
    assert ((packets.time_ns - START_NS) // 10**9).tolist() == [3, 4, 5]
    assert packets.version.tolist() == [4, 6, 4]
    texts = [bytes(packets.data[at : at + 5]) for at in packets.payload_offset]
    assert texts == [b"hello"] * 3


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"#!/bin/sh\necho this is no capture\n", "begins with b'#!/bin/s'"),
        (pcap([]), "a capture without packets"),
        (section() + interface(), "a capture without packets"),
        (pcap([(0, FRAME)])[:20], "a file header cut off after 20 octets"),
        (gzip.compress(b"not a capture either"), "begins with b'not a ca'"),
        (b"\x1f\x8b\x08broken", "cannot be unpacked"),
    ],
)
def test_what_is_no_capture_is_named_with_what_was_found(tmp_path, content, found):
    with pytest.raises(InvalidCapture, match="expected") as caught:
        read(tmp_path, content)
    assert found in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/anything.txt: found ")


def test_a_missing_file_and_a_folder_are_invalid_captures(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pcap"):
        with pytest.raises(InvalidCapture):
            read_packets([path])


HOSTILE = settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@HOSTILE
@given(st.one_of(st.binary(max_size=600), st.binary(max_size=300).map(lambda tail: section() + interface() + tail)))
def test_hostile_files_either_read_or_are_refused(tmp_path, content):
    try:
        packets, _ = read(tmp_path, content)
    except InvalidCapture:
        return
    meter(packets)


@HOSTILE
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=120)), min_size=1, max_size=8),
    st.integers(0, 255),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 101, 113, 276]),
)
def test_hostile_blocks_keep_times_possible_and_lose_no_packet(tmp_path, frames, resolution, offset, link_type):
    options = option(9, bytes([resolution])) + option(14, struct.pack("<q", offset))
    content = section() + interface(link_type, options) + b"".join(enhanced(0, *one) for one in frames)
    packets, skipped = read(tmp_path, content)
    assert len(packets) + sum(skipped.values()) == len(frames)
    assert np.all(packets.time_ns >= 0)
    meter(packets)
