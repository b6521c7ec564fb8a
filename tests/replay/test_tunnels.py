"""With `inner`, the packet inside a tunnel replaces the one outside, however it is wrapped; scapy is the oracle."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from scapy.all import GRE, ICMP, IP, TCP, UDP, VXLAN, Dot1Q, Ether, IPv6, Raw, fragment
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS

from replay.meter import read_traffic
from replay.packets import PacketStream, read_packets
from tests.replay.capture_files import MACS, pcap, stored
from tests.replay.test_packet_stream import chunked, rows

GOLDEN = json.loads((Path(__file__).parent / "golden_conversations.json").read_text())
ETHER = Ether(**MACS)
OUTER, OUTER_6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
TALK = TCP(sport=40000, dport=443, seq=7, flags="PA") / Raw(b"payload")
INSIDE, INSIDE_6 = IP(src="10.0.0.1", dst="10.0.0.2", ttl=33) / TALK, IPv6(src="fd00::1", dst="fd00::2", hlim=33) / TALK
FULL_GRE = GRE(chksum_present=1, key_present=1, seqnum_present=1, key=4, sequence_number=2)


def read(tmp_path, frames, inner=True):
    path = tmp_path / "capture"
    path.write_bytes(pcap([(n / 1000, bytes(frame)) for n, frame in enumerate(frames)]))
    return read_packets([path], inner=inner)


def vxlan(inside, port=4789):
    return UDP(sport=50000, dport=port) / VXLAN(vni=5, flags="Instance") / ETHER / inside


TUNNELS = {
    "vxlan": OUTER / vxlan(INSIDE),
    "vxlan of the kernel": OUTER_6 / vxlan(INSIDE_6, 8472),
    "vxlan with a tag inside": OUTER / vxlan(Dot1Q(vlan=9) / INSIDE),
    "geneve": OUTER / UDP(sport=50000, dport=6081) / GENEVE(vni=5) / ETHER / INSIDE,
    "geneve with options": OUTER
    / UDP(sport=50000, dport=6081)
    / GENEVE(vni=5, optionlen=2, options=[], proto=0x0800)
    / Raw(struct.pack(">HBBI", 1, 2, 1, 9) + bytes(INSIDE)),
    "gtp-u": OUTER / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=1) / INSIDE,
    "gtp-u with an extension": OUTER
    / UDP(sport=2152, dport=2152)
    / GTP_U_Header(teid=1, E=1, next_ex=0x85)
    / GTPPDUSessionContainer(type=0, QFI=3)
    / INSIDE_6,
    "gre": OUTER / GRE() / INSIDE,
    "gre of IPv6": OUTER_6 / GRE() / INSIDE_6,
    "gre with all options": OUTER / FULL_GRE / INSIDE,
    "gre of pptp": OUTER / Raw(struct.pack(">HHHHI", 0x3001, 0x880B, 100, 7, 1) + b"\xff\x03\0\x21" + bytes(INSIDE)),
    "gre bridging": OUTER / GRE(proto=0x6558) / ETHER / INSIDE,
    "gre of mpls": OUTER / GRE(proto=0x8847) / MPLS(label=3, s=1) / INSIDE,
    "erspan I": OUTER / GRE(proto=0x88BE) / Raw(bytes(ETHER / INSIDE)),
    "erspan II": OUTER / GRE(proto=0x88BE, seqnum_present=1, sequence_number=1) / ERSPAN_II() / ETHER / INSIDE,
    "erspan III": OUTER / GRE(proto=0x22EB, seqnum_present=1, sequence_number=1) / ERSPAN_III() / ETHER / INSIDE,
    "IPv4 in IPv4": OUTER / INSIDE,
    "IPv6 in IPv4": OUTER / INSIDE_6,
    "IPv4 in IPv6": OUTER_6 / INSIDE,
    "three deep": OUTER / vxlan(OUTER_6 / GRE() / OUTER / INSIDE_6),
}
TUNNELS["gre of pptp"][IP].proto = 47


@pytest.mark.parametrize("name", TUNNELS)
def test_the_packet_inside_replaces_the_one_outside(tmp_path, name):
    packets, skipped = read(tmp_path, [ETHER / TUNNELS[name], ETHER / TUNNELS[name]])
    assert not skipped
    assert len(packets) == 2
    assert (packets.source_port[1], packets.destination_port[1], packets.sequence[1]) == (40000, 443, 7)
    assert packets.hop_limit.tolist() == [33, 33]
    assert packets.payload_octets.tolist() == packets.captured_octets.tolist() == [7, 7]
    assert packets.ip_octets[0] == len(INSIDE if packets.version[0] == 4 else INSIDE_6)
    at = packets.payload_offset[1]
    assert packets.data[at : at + 7].tobytes() == b"payload"


@pytest.mark.parametrize("name", [name for name, golden in GOLDEN.items() if "inner" in golden])
def test_the_flows_inside_of_public_captures_are_the_conversations_that_tshark_counts_there(name):
    traffic = read_traffic([stored(name)], inner=True)
    protocols = traffic.flows["protocol"].tolist()
    assert {"tcp": protocols.count(6), "udp": protocols.count(17)} == GOLDEN[name]["inner"]


def test_without_the_option_the_outer_packet_is_told(tmp_path):
    packets, skipped = read(tmp_path, [ETHER / TUNNELS["vxlan"], ETHER / TUNNELS["gre"]], inner=False)
    assert packets.destination_port.tolist() == [4789]
    assert skipped == {"protocol_47": 1}


def test_other_packets_are_told_as_without_the_option(tmp_path):
    frames = [
        ETHER / OUTER / UDP(sport=1, dport=4789) / Raw(b"\0" * 40),
        ETHER / INSIDE,
        ETHER / OUTER / ICMP(),
    ]
    plain, wrapped = read(tmp_path, frames, inner=False), read(tmp_path, frames)
    assert rows(plain[0]) == rows(wrapped[0])
    assert plain[1] == wrapped[1]


def test_what_is_inside_and_not_metered_is_counted_by_its_own_reason(tmp_path):
    endless = INSIDE
    for _ in range(10):
        endless = OUTER / endless
    frames = [
        OUTER / UDP(sport=1, dport=4789) / VXLAN(flags="Instance") / Ether(**MACS, type=0x0806) / Raw(b"\0" * 28),
        OUTER / GRE(proto=0x1234) / Raw(b"\0" * 40),
        OUTER / GRE(proto=0x0800),
        OUTER / UDP(sport=1, dport=6081) / Raw(b"\x3f\0\x08\0" + b"\0" * 40),
        endless,
    ]
    packets, skipped = read(tmp_path, [ETHER / frame for frame in frames])
    assert len(packets) == 0
    assert skipped == {
        "arp": 1, "not_ip": 1, "truncated_ip_header": 1, "truncated_tunnel_header": 1, "too_many_tunnels": 1,
    }  # fmt: skip


@pytest.mark.parametrize("chunk_octets", [64 << 20, 700])
def test_an_outer_packet_in_fragments_is_one_inner_packet(tmp_path, chunk_octets):
    large = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(b"x" * 1400)
    pieces = fragment(IP(src="192.0.2.1", dst="192.0.2.2", id=9) / vxlan(large), 800)
    path = tmp_path / "capture"
    path.write_bytes(pcap([(n / 1000, bytes(ETHER / piece)) for n, piece in enumerate(pieces)]))
    stream = PacketStream([path], chunk_octets=chunk_octets, inner=True)
    chunks = list(stream)
    assert [chunk.payload_octets.tolist() for chunk in chunks] == [[1400]]
    assert chunks[0].captured_octets[0] < 800
    assert stream.skipped == {"tunnel_fragment": len(pieces) - 1}


def test_fragments_inside_a_tunnel_belong_together(tmp_path):
    pieces = fragment(IP(src="10.0.0.1", dst="10.0.0.2", id=9) / UDP(sport=1, dport=2) / Raw(b"x" * 2000), 800)
    packets, skipped = read(tmp_path, [ETHER / OUTER / vxlan(piece) for piece in pieces])
    assert not skipped
    assert packets.datagram.tolist() == [0] * len(pieces)
    assert packets.payload_octets.sum() == 2000
    assert chunked([tmp_path / "capture"], 500)[0] != {}
