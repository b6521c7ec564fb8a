"""Who stands on the wire, out of frames written by hand, and out of rubbish."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import InvalidCapture
from replay.stations import ASKS, Network, Wire, hops, is_virtual_router, read_stations
from tests.replay.capture_files import pcap
from tests.replay.link_frames import (
    Talk,
    arp,
    ethernet,
    ip,
    lease,
    mac,
    neighbour,
    router_advertisement,
    tcp,
)

A, B, C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
NOBODY, ALL = "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"
SHOP = Path(__file__).resolve().parents[2] / "topologies" / "shop" / "traffic"
WIRE = Wire(0)


def test_hops_are_counted_from_the_nearest_usual_initial_value():
    assert [hops(limit) for limit in (64, 61, 128, 117, 255, 250)] == [0, 3, 0, 11, 0, 5]
    assert hops(0) is None
    assert hops(140) is None


def test_senders_and_receivers_are_counted_with_their_ttl(tmp_path):
    talk = Talk().asks((A, "10.0.0.1", 64), (B, "192.0.2.9", 55), 443)
    seen = read_stations([talk.written(tmp_path / "a.pcap")])
    assert seen.heard == {(WIRE, A, "10.0.0.1", 64): 4, (WIRE, B, "192.0.2.9", 55): 3}
    assert seen.sent_to == {(WIRE, B, "192.0.2.9"): 4, (WIRE, A, "10.0.0.1"): 3}


def test_an_answer_claims_an_address_and_a_question_only_has_it(tmp_path):
    talk = Talk().add(arp(1, A, "10.0.0.1", NOBODY, "10.0.0.2"), arp(2, B, "10.0.0.2", A, "10.0.0.1"))
    talk.add(arp(1, C, "0.0.0.0", NOBODY, "10.0.0.3"))
    seen = read_stations([talk.written(tmp_path / "a.pcap")])
    assert seen.claimed == {
        (WIRE, A, "10.0.0.1"): ASKS,
        (WIRE, B, "10.0.0.2"): "arp",
        (WIRE, C, "10.0.0.3"): "arp",
    }


def test_neighbour_discovery_and_router_advertisements(tmp_path):
    target_option = b"\2\1" + mac(B)
    talk = Talk().add(
        neighbour(135, A, "2001:db8::1", "2001:db8::2"),
        neighbour(136, C, "fe80::c", "2001:db8::2", target_option),
        neighbour(135, C, "::", "2001:db8::3"),
        router_advertisement(A, "fe80::a", "2001:db8:5::", 64),
    )
    seen = read_stations([talk.written(tmp_path / "a.pcap")])
    assert seen.claimed == {
        (WIRE, A, "2001:db8::1"): ASKS,
        (WIRE, B, "2001:db8::2"): "nd",
        (WIRE, C, "2001:db8::3"): "nd",
    }
    assert seen.networks == {Network(WIRE, "2001:db8:5::/64", "", "ra")}


def test_a_lease_tells_the_network_and_its_router(tmp_path):
    talk = Talk().add(lease(A, "10.1.0.1", B, "10.1.0.77", "255.255.254.0", "10.1.0.1"))
    seen = read_stations([talk.written(tmp_path / "a.pcap")])
    assert seen.networks == {Network(WIRE, "10.1.0.0/23", "10.1.0.1", "dhcp")}
    assert seen.claimed == {(WIRE, B, "10.1.0.77"): "dhcp"}


def test_vlans_are_wires_of_their_own_and_a_shared_station_joins_files(tmp_path):
    one = Talk().asks((A, "10.0.0.1", 64), (B, "10.0.0.2", 64), 80, vlan=7)
    other = Talk().asks((A, "10.0.0.1", 64), (C, "10.0.0.3", 64), 80, vlan=7)
    other.asks((A, "10.9.0.1", 64), (C, "10.9.0.3", 64), 80)
    seen = read_stations([one.written(tmp_path / "a.pcap"), other.written(tmp_path / "b.pcap")])
    assert {wire for wire, *_ in seen.heard} == {Wire(0, 7), Wire(1, 0)}


def test_a_virtual_router_joins_nothing(tmp_path):
    virtual = "00:00:5e:00:01:2a"
    assert is_virtual_router(virtual)
    one = Talk().asks((A, "10.0.0.1", 64), (virtual, "192.0.2.1", 60), 80)
    other = Talk().asks((B, "10.1.0.1", 64), (virtual, "192.0.2.1", 60), 80)
    seen = read_stations([one.written(tmp_path / "a.pcap"), other.written(tmp_path / "b.pcap")])
    assert {wire.number for wire, *_ in seen.heard} == {0, 1}


def test_cooked_captures_have_the_sender_alone(tmp_path):
    body = ip("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 2), ttl=63)
    cooked = struct.pack(">HHH", 0, 1, 6) + mac(A) + b"\0\0" + b"\x08\0" + body
    cooked_2 = b"\x08\0\0\0" + struct.pack(">IHBB", 3, 1, 0, 6) + mac(A) + b"\0\0" + body
    for link_type, frame in ((113, cooked), (276, cooked_2)):
        path = tmp_path / f"{link_type}.pcap"
        path.write_bytes(pcap([(0, frame)], link_type=link_type))
        seen = read_stations([path])
        assert seen.heard == {(WIRE, A, "10.0.0.1", 63): 1}
        assert not seen.sent_to


def test_no_link_layer_tells_nothing(tmp_path):
    path = tmp_path / "raw.pcap"
    path.write_bytes(pcap([(0, ip("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 2)))], link_type=101))
    assert not read_stations([path])


def test_groups_are_no_address_and_broadcasts_are_told(tmp_path):
    sent = ethernet(A, ALL, 0x0800, ip("10.0.0.1", "10.0.0.255", 17, b"\0" * 8))
    group = ethernet(A, "01:00:5e:00:00:fb", 0x0800, ip("10.0.0.1", "224.0.0.251", 17, b"\0" * 8, ttl=1))
    seen = read_stations([Talk().add(sent, group).written(tmp_path / "a.pcap")])
    assert seen.sent_to == {(WIRE, ALL, "10.0.0.255"): 1}
    assert not seen.heard


def test_the_shop_has_two_stations_at_its_edge():
    seen = read_stations([SHOP / "internet.pcap"])
    assert len({mac_address for _, mac_address, *_ in seen.heard}) == 2
    assert (WIRE, "1e:71:d6:17:b8:8b", "203.0.113.10") in seen.claimed


GOOD = [
    arp(2, B, "10.0.0.2", A, "10.0.0.1"),
    neighbour(136, C, "fe80::c", "2001:db8::2", b"\2\1" + mac(B)),
    router_advertisement(A, "fe80::a", "2001:db8:5::", 64),
    lease(A, "10.1.0.1", B, "10.1.0.77", "255.255.254.0", "10.1.0.1"),
    ethernet(A, B, 0x0800, ip("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 2)), vlan=3),
]


@st.composite
def damaged(draw):
    """A good frame with octets changed, cut or extended."""
    frame = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 6))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))]) + draw(st.binary(max_size=8))


@settings(max_examples=120, deadline=None)
@given(
    frames=st.lists(st.one_of(damaged(), st.binary(max_size=80)), min_size=1, max_size=8),
    link=st.sampled_from([1, 113, 276]),
)
def test_no_frame_ends_the_reading(tmp_path_factory, frames, link):
    path = tmp_path_factory.mktemp("fuzz") / "a.pcap"
    path.write_bytes(pcap([(0, frame) for frame in frames], link_type=link))
    seen = read_stations([path])
    assert sum(seen.heard.values()) <= len(frames)


def test_what_is_no_capture_is_refused(tmp_path):
    path = tmp_path / "a.pcap"
    path.write_bytes(b"no capture at all, just words")
    with pytest.raises(InvalidCapture):
        read_stations([path])
