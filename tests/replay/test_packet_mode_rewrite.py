"""What becomes of captured octets before they are sent again, held against an independent builder of packets."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Packet, Raw

from replay.packet_mode.checksums import internet_checksum, updated
from replay.packet_mode.rewrite import (
    DoesNotFit,
    Shape,
    divided,
    initial_hop_limit,
    whole,
    with_hop_limit,
    with_right_checksums,
)

IPV4 = {"src": "10.1.2.3", "dst": "192.0.2.7"}
IPV6 = {"src": "2001:db8::1", "dst": "2001:db8:9::7"}
PACKETS = [
    IP(**IPV4) / UDP(sport=5, dport=53) / Raw(b"odd"),
    IP(**IPV4) / TCP(sport=5, dport=80, flags="PA", seq=7) / Raw(b"hello"),
    IP(**IPV4) / ICMP(type=8, id=3, seq=4) / Raw(b"ping"),
    IP(**IPV4) / SCTP(sport=9, dport=10, tag=1) / SCTPChunkData(data=b"chunk"),
    IPv6(**IPV6) / UDP(sport=5, dport=53) / Raw(b"six"),
    IPv6(**IPV6) / TCP(sport=5, dport=80, flags="S"),
    IPv6(**IPV6) / ICMPv6EchoRequest(id=3, seq=4, data=b"ping"),
    IP(**IPV4, proto=50) / Raw(b"\0\0\0\1\0\0\0\2secret"),
]


def shape_of(packet: Packet) -> Shape:
    version = packet.version
    return Shape(version, 20 if version == 4 else 40, packet.proto if version == 4 else packet.nh, False)


def wrong(packet: Packet) -> bytes:
    """The packet as a tap before an offloading card sees it."""
    octets = bytearray(bytes(packet))
    shape = shape_of(packet)
    if shape.version == 4:
        octets[10:12] = b"\xde\xad"
    place = {6: 16, 17: 6, 1: 2, 58: 2, 132: 8}.get(shape.protocol)
    if place is not None:
        octets[shape.header_octets + place] ^= 0x5A
    return bytes(octets)


@pytest.mark.parametrize("packet", PACKETS, ids=lambda packet: packet.summary())
def test_every_checksum_that_a_card_fills_in_is_made_right(packet):
    assert with_right_checksums(wrong(packet), shape_of(packet)) == bytes(packet)


def test_udp_without_a_checksum_keeps_none():
    packet = IP(**IPV4) / UDP(sport=5, dport=53, chksum=0) / Raw(b"x")
    assert with_right_checksums(bytes(packet), shape_of(packet)) == bytes(packet)


def test_a_fragment_keeps_the_checksum_of_its_whole_datagram():
    packet = IP(**IPV4, flags="MF") / UDP(sport=5, dport=53, len=900) / Raw(b"x" * 64)
    shape = Shape(4, 20, 17, fragment=True)
    assert with_right_checksums(bytes(packet), shape)[20:] == bytes(packet)[20:]


@given(st.binary(min_size=2, max_size=80), st.integers(0, 38), st.integers(0, 0xFFFF))
@settings(max_examples=100, deadline=None)
def test_an_update_is_the_same_as_a_sum_anew(octets, word, after):
    octets = octets + bytes(len(octets) % 2)
    place = word * 2 % len(octets)
    before = struct.unpack_from("!H", octets, place)[0]
    changed = octets[:place] + struct.pack("!H", after) + octets[place + 2 :]
    if any(octets) and any(changed):
        assert updated(internet_checksum(octets), before, after) == internet_checksum(changed)


@pytest.mark.parametrize(("seen", "began"), [(1, 64), (64, 64), (65, 128), (127, 128), (129, 255), (255, 255)])
def test_hop_limits_go_back_to_where_senders_begin(seen, began):
    assert initial_hop_limit(seen) == began


def test_a_new_hop_limit_keeps_a_right_header_right_and_a_wrong_one_wrong():
    right = bytes(IP(**IPV4, ttl=61) / UDP() / Raw(b"x"))
    assert with_hop_limit(right, 4, 64) == bytes(IP(**IPV4, ttl=64) / UDP() / Raw(b"x"))
    bad = right[:10] + b"\x12\x34" + right[12:]
    assert IP(with_hop_limit(bad, 4, 64)).chksum != IP(bytes(IP(**IPV4, ttl=64) / UDP() / Raw(b"x"))).chksum
    six = bytes(IPv6(**IPV6, hlim=61) / UDP())
    assert IPv6(with_hop_limit(six, 6, 64)).hlim == 64


@pytest.mark.parametrize("header", [IP(**IPV4, id=0xFFFE, flags="DF"), IPv6(**IPV6)], ids=["IPv4", "IPv6"])
def test_a_super_frame_is_cut_as_a_card_cuts_it(header):
    payload = bytes(range(256)) * 20
    packet = (
        header / TCP(sport=1, dport=2, seq=0xFFFF_FFF0, flags="PAF", options=[("Timestamp", (1, 2))]) / Raw(payload)
    )
    shape = shape_of(IP(bytes(packet)) if header.version == 4 else IPv6(bytes(packet)))
    pieces = [with_right_checksums(piece, shape) for piece in divided(bytes(packet), shape, 1_500)]
    kind = IP if header.version == 4 else IPv6
    read = [kind(piece) for piece in pieces]
    assert all(len(piece) <= 1_500 for piece in pieces)
    assert b"".join(bytes(one[TCP].payload) for one in read) == payload
    assert [one[TCP].flags for one in read] == ["A"] * (len(read) - 1) + ["FPA"]
    assert [(one[TCP].seq - 0xFFFF_FFF0) % 2**32 for one in read] == [
        sum(len(other[TCP].payload) for other in read[:number]) for number in range(len(read))
    ]
    for one, piece in zip(read, pieces, strict=True):
        del one[TCP].chksum
        assert bytes(one) == piece


def test_a_large_datagram_is_fragmented_as_its_sender_would():
    packet = bytes(IP(**IPV4, id=7) / UDP(sport=1, dport=2) / Raw(bytes(range(256)) * 12))
    pieces = divided(packet, Shape(4, 20, 17, False), 1_500)
    read = [IP(piece) for piece in pieces]
    assert b"".join(bytes(one.payload) for one in read) == packet[20:]
    assert [one.frag * 8 for one in read] == [0, 1_480, 2_960]
    assert [bool(one.flags.MF) for one in read] == [True, True, False]
    for piece in pieces:
        assert internet_checksum(piece[:20]) == 0


def test_what_no_sender_could_divide_is_refused():
    for header in (IP(**IPV4, flags="DF"), IPv6(**IPV6)):
        packet = header / UDP(sport=1, dport=2) / Raw(bytes(3_000))
        with pytest.raises(DoesNotFit, match="1500"):
            divided(bytes(packet), shape_of(packet), 1_500)


def test_a_packet_gets_its_whole_length_again_and_loses_padding():
    packet = bytes(IP(**IPV4) / UDP() / Raw(b"12345678"))
    assert whole(packet[:30], len(packet)) == packet[:30] + bytes(len(packet) - 30)
    assert whole(packet + b"padding", len(packet)) == packet
