"""Header decoding agrees with scapy, the oracle, on every layer it promises; hostile frames end in a reason."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.all import (
    ICMP,
    IP,
    LLC,
    PPP,
    SNAP,
    TCP,
    UDP,
    CookedLinux,
    CookedLinuxV2,
    Dot1AD,
    Dot1Q,
    Dot3,
    Ether,
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPOption_RR,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Loopback,
    PadN,
    PPPoE,
    Raw,
    fragment,
    fragment6,
)  # fmt: skip
from scapy.contrib.mpls import MPLS

from replay.meter import meter
from replay.packets import read_packets
from tests.replay.capture_files import MACS, pcap

ETHER = Ether(**MACS)
FOUR = IP(src="10.0.0.1", dst="10.0.0.2", ttl=61)
SIX = IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=61)
TALK = TCP(sport=40000, dport=443, seq=7, ack=9, flags="PA") / Raw(b"payload")


def read(tmp_path, frames, link_type=1, **options):
    path = tmp_path / "capture"
    timed = [(n / 1000, *one) if isinstance(one, tuple) else (n / 1000, bytes(one)) for n, one in enumerate(frames)]
    path.write_bytes(pcap(timed, link_type=link_type, **options))
    return read_packets([path])


def payload(packets, row):
    at, size = int(packets.payload_offset[row]), int(packets.captured_octets[row])
    return packets.data[at : at + size].tobytes()


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (1, ETHER / FOUR / TALK),
        (1, ETHER / SIX / TALK),
        (1, ETHER / Dot1Q(vlan=5) / FOUR / TALK),
        (1, ETHER / Dot1AD(vlan=5) / Dot1Q(vlan=6) / SIX / TALK),
        (113, CookedLinux(proto=0x0800) / FOUR / TALK),
        (276, CookedLinuxV2(proto=0x86DD) / SIX / TALK),
        (101, FOUR / TALK),
        (101, SIX / TALK),
        (228, FOUR / TALK),
        (229, SIX / TALK),
        (0, Loopback(type=2) / FOUR / TALK),
        (0, b"\0\0\0\x02" + bytes(FOUR / TALK)),
        (0, b"\x1e\0\0\0" + bytes(SIX / TALK)),
        (108, b"\0\0\0\x1e" + bytes(SIX / TALK)),
        (12, FOUR / TALK),
        (14, SIX / TALK),
        (1, Dot3(**MACS) / LLC() / SNAP(code=0x0800) / FOUR / TALK),
        (1, Dot3(**MACS) / Raw(b"\x06\x06\x03") / FOUR / TALK),
        (1, ETHER / Dot1Q(vlan=5, type=40) / LLC() / SNAP(code=0x86DD) / SIX / TALK),
        (1, ETHER / MPLS(label=16, s=0) / MPLS(label=17, s=1) / FOUR / TALK),
        (1, ETHER / Dot1Q(vlan=5) / MPLS(label=17, s=1) / SIX / TALK),
        (1, ETHER / MPLS(label=17, s=1) / Raw(b"\0\0\0\1") / ETHER / FOUR / TALK),
        (219, MPLS(label=17, s=1) / FOUR / TALK),
        (1, ETHER / PPPoE(sessionid=3) / PPP(proto=0x0021) / FOUR / TALK),
        (1, ETHER / Dot1Q(vlan=5) / PPPoE(sessionid=3) / PPP(proto=0x0057) / SIX / TALK),
        (51, PPPoE(sessionid=3) / PPP(proto=0x0021) / FOUR / TALK),
        (9, b"\xff\x03\x00\x21" + bytes(FOUR / TALK)),
        (9, b"\x00\x57" + bytes(SIX / TALK)),
        (50, b"\xff\x03\x21" + bytes(FOUR / TALK)),
        (104, b"\x0f\x00\x08\x00" + bytes(FOUR / TALK)),
        (
            1,
            ETHER / IP(src="10.0.0.1", dst="10.0.0.2", ttl=61, options=[IPOption_RR(routers=["0.0.0.0"])]) / TALK,
        ),
        (1, ETHER / SIX / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / TALK),
    ],
)
def test_every_link_and_ip_header_leads_to_the_same_segment(tmp_path, link_type, frame):
    packets, skipped = read(tmp_path, [frame], link_type)
    assert not skipped
    assert (packets.source_port[0], packets.destination_port[0]) == (40000, 443)
    assert (packets.sequence[0], packets.acknowledgement[0], packets.tcp_flags[0]) == (7, 9, 0x18)
    assert packets.hop_limit[0] == 61
    assert payload(packets, 0) == b"payload"
    family, tail = (socket.AF_INET, 12) if packets.version[0] == 4 else (socket.AF_INET6, 0)
    assert socket.inet_ntop(family, packets.source_address[0, tail:].tobytes()) in ("10.0.0.1", "2001:db8::1")


def test_ethernet_padding_is_no_payload(tmp_path):
    frame = bytes(ETHER / FOUR / TCP(sport=1, dport=2, flags="A")) + b"\0" * 6
    packets, _ = read(tmp_path, [frame])
    assert packets.payload_octets.tolist() == [0]


def test_super_frames_with_length_zero_count_by_the_wire(tmp_path):
    four = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2", len=0) / TCP(sport=1, dport=2) / Raw(b"x" * 3000))
    six = bytes(ETHER / IPv6(src="::1", dst="::2", plen=0) / TCP(sport=1, dport=2) / Raw(b"x" * 3000))
    packets, _ = read(tmp_path, [four, six])
    assert packets.payload_octets.tolist() == [3000, 3000]
    assert packets.ip_octets.tolist() == [3040, 3060]


def test_packets_cut_by_a_snaplen_count_by_their_ip_length(tmp_path):
    packets, skipped = read(tmp_path, [ETHER / FOUR / TCP(sport=1, dport=2) / Raw(b"x" * 1000)], snaplen=96)
    assert not skipped
    assert packets.payload_octets.tolist() == [1000]
    assert packets.captured_octets.tolist() == [96 - 54]


@pytest.mark.parametrize("reverse", [False, True])
def test_later_fragments_are_attributed_to_the_first_in_either_order(tmp_path, reverse):
    datagram = b"".join(bytes([n % 251]) for n in range(3000))
    four = fragment(IP(src="10.0.0.1", dst="10.0.0.2", id=77) / UDP(sport=53, dport=9) / Raw(datagram), fragsize=800)
    whole = IPv6(src="::1", dst="::2") / IPv6ExtHdrFragment(id=5) / UDP(sport=53, dport=9) / Raw(datagram)
    six = fragment6(whole, 1000)
    for pieces in (four, six):
        frames = [ETHER / piece for piece in (reversed(pieces) if reverse else pieces)]
        packets, skipped = read(tmp_path, frames)
        assert not skipped
        assert set(packets.source_port.tolist()) == {53}
        assert packets.payload_octets.sum() == 3000
        metered = meter(packets)
        assert metered.messages["octets"].tolist() == [3000]
        assert metered.payloads[0] == datagram


def test_a_later_fragment_alone_is_an_orphan(tmp_path):
    pieces = fragment(IP(src="10.0.0.1", dst="10.0.0.2", id=77) / UDP(sport=53, dport=9) / Raw(b"x" * 2000), 800)
    packets, skipped = read(tmp_path, [ETHER / pieces[1]])
    assert len(packets) == 0
    assert skipped == {"orphan_fragment": 1}


def test_icmp_errors_keep_the_five_tuple_they_quote(tmp_path):
    quoted4 = IP(src="10.0.0.1", dst="10.9.9.9") / UDP(sport=5000, dport=53) / Raw(b"query")
    quoted6 = IPv6(src="2001:db8::1", dst="2001:db8::9") / TCP(sport=5000, dport=80, flags="S")
    frames = [
        ETHER / IP(src="10.0.0.254", dst="10.0.0.1") / ICMP(type=3, code=13) / quoted4,
        ETHER / IPv6(src="2001:db8::fe", dst="2001:db8::1") / ICMPv6DestUnreach(code=1) / quoted6,
    ]
    packets, _ = read(tmp_path, frames)
    quotes = packets.quotes
    assert quotes.packet.tolist() == [0, 1]
    assert quotes.protocol.tolist() == [17, 6]
    assert quotes.destination_port.tolist() == [53, 80]
    assert quotes.source_address[0, 12:].tolist() == [10, 0, 0, 1]


def test_icmp_echo_has_its_identifier_in_both_ports(tmp_path):
    frames = [
        ETHER / FOUR / ICMP(type=8, id=321, seq=4),
        ETHER / SIX / ICMPv6EchoRequest(id=321, seq=4),
    ]
    packets, _ = read(tmp_path, frames)
    assert packets.source_port.tolist() == packets.destination_port.tolist() == [321, 321]
    assert packets.sequence.tolist() == [4, 4]


def test_what_is_not_metered_is_counted_by_reason(tmp_path):
    frames = [
        Ether(**MACS, type=0x0806) / Raw(b"\0" * 28),
        Ether(**MACS, type=0x88CC) / Raw(b"\0" * 28),
        ETHER / IP(src="10.0.0.1", dst="10.0.0.2", proto=89) / Raw(b"\0" * 20),
        ETHER / SIX / ICMPv6ND_NS(tgt="2001:db8::2"),
        bytes(ETHER / FOUR / TALK)[:30],
        bytes(ETHER / FOUR / TALK)[:40],
        bytes(ETHER / FOUR / TALK)[:10],
        ETHER / IP(src="10.0.0.1", dst="10.0.0.2", len=30) / TALK,
    ]
    packets, skipped = read(tmp_path, frames)
    assert len(packets) == 0
    assert skipped == {
        "arp": 1, "not_ip": 1, "protocol_89": 1, "icmpv6_link_control": 1, "truncated_ip_header": 1,
        "truncated_transport_header": 1, "truncated_link_header": 1, "bad_transport_length": 1,
    }  # fmt: skip


LAYERS = st.sampled_from(
    [
        bytes(ETHER / FOUR / TALK),
        bytes(ETHER / Dot1Q() / SIX / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / TALK),
        bytes(ETHER / SIX / IPv6ExtHdrFragment(id=1, m=1) / UDP(sport=1, dport=2) / Raw(b"x" * 16)),
        bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF", id=3) / UDP(sport=1, dport=2) / Raw(b"x" * 16)),
        bytes(ETHER / FOUR / ICMP(type=3, code=1) / FOUR / UDP(sport=1, dport=2)),
    ]
)
DAMAGE = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6)


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(LAYERS, DAMAGE, st.integers(0, 200)), min_size=1, max_size=12))
def test_damaged_frames_never_crash_and_never_claim_bytes_that_are_not_there(tmp_path, frames):
    damaged = []
    for frame, damage, length in frames:
        octets = bytearray(frame)
        for at, value in damage:
            octets[at % len(octets)] = value
        damaged.append(bytes(octets[: length or None]))
    packets, skipped = read(tmp_path, damaged)
    assert len(packets) + sum(skipped.values()) == len(frames)
    assert np.all(packets.captured_octets >= 0)
    assert np.all(packets.captured_octets <= packets.payload_octets)
    assert np.all(packets.payload_offset + packets.captured_octets <= len(packets.data))
    metered = meter(packets)
    assert metered.flows["flow_id"].is_unique
    for payload_octets in metered.payloads:
        assert isinstance(payload_octets, bytes)
