"""The fidelity bench: the lab it makes for a capture, and a real replay of a part of the shop's own traffic."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_address
from pathlib import Path

import pandas as pd
from click.testing import CliRunner
from scapy.layers import inet
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.utils import wrpcap

from testbed.bench.fidelity import bench_fidelity
from testbed.bench.fidelity_lab import BETWEEN, FAR, NEAR, lab_for, placed
from testbed.cli import commands
from testbed.errors import InvalidInput

SHOP = Path(__file__).parents[2] / "topologies/shop/traffic/internet.pcap"
TCP, UDP, ICMP = 6, 17, 1
FIVE = ("protocol", "source_address", "source_port", "destination_address", "destination_port", "outcome")


def table(*rows: tuple[int, str, int, str, int, str]) -> pd.DataFrame:
    flows = pd.DataFrame(list(rows), columns=list(FIVE))
    return flows.assign(flow_id=[f"f{n}" for n in range(len(rows))], start_ns=range(len(rows)))


def tcp(source: str, target: str, port: int = 80, outcome: str = "accepted", source_port: int = 40_000):
    return (TCP, source, source_port, target, port, outcome)


def test_addresses_take_sides_so_that_every_flow_crosses():
    edge_of, left_out = placed(
        table(tcp("10.0.0.1", "10.0.0.2"), tcp("10.0.0.3", "10.0.0.2"), tcp("10.0.0.2", "10.0.0.4"))
    )
    assert left_out == {}
    assert {a for a, edge in edge_of.items() if edge == NEAR} == {"10.0.0.1", "10.0.0.3", "10.0.0.4"}
    assert edge_of["10.0.0.2"] == FAR


def test_two_groups_of_addresses_that_meet_late_are_turned_to_fit():
    edge_of, left_out = placed(
        table(tcp("10.0.0.1", "10.0.0.2"), tcp("10.0.0.3", "10.0.0.4"), tcp("10.0.0.1", "10.0.0.3"))
    )
    assert left_out == {}
    assert edge_of["10.0.0.1"] != edge_of["10.0.0.3"]


def test_what_does_not_fit_is_left_out_with_the_reason():
    _, left_out = placed(
        table(
            tcp("10.0.0.1", "10.0.0.2"),
            tcp("10.0.0.2", "10.0.0.3"),
            tcp("10.0.0.3", "10.0.0.1"),
            tcp("10.0.0.1", "10.0.0.1"),
            (ICMP, "10.0.0.2", 1, "10.0.0.2", 1, "accepted"),
            (UDP, "10.0.0.1", 5_353, "224.0.0.251", 5_353, "unanswered"),
            tcp("fe80::1", "fe80::2"),
            tcp("10.0.0.1", "10.0.0.2", 81, "reset"),
            tcp("10.0.0.1", "10.0.0.2", 81),
        )
    )
    assert sorted(left_out) == ["f2", "f3", "f4", "f5", "f6", "f7", "f8"]
    assert left_out["f2"] == "both ends are on one side of the two that the lab has"
    assert left_out["f3"] == "both ends have one address"
    assert left_out["f7"] == "the same five-tuple was refused once and accepted once"


def test_refused_flows_are_refused_by_as_few_words_as_will_do(tmp_path):
    scan = [tcp("10.0.0.1", "10.0.0.2", port, "unanswered") for port in range(100, 120)]
    lab = lab_for(
        table(
            *scan,
            tcp("10.0.0.1", "10.0.0.2", 22, "reset"),
            tcp("10.0.0.3", "10.0.0.2", 22),
            tcp("10.0.0.4", "10.0.0.2", 25, "reset", 1),
            tcp("10.0.0.4", "10.0.0.2", 25, source_port=2),
            (UDP, "10.0.0.1", 9, "10.0.0.2", 53, "denied"),
            (UDP, "10.0.0.1", 9, "10.0.0.2", 54, "unanswered"),
            tcp("2001:db8::1", "2001:db8::2", 80, "denied"),
            (ICMP, "10.0.0.1", 5, "10.0.0.2", 5, "unanswered"),
            (ICMP, "10.0.0.3", 5, "10.0.0.2", 5, "unanswered"),
            (ICMP, "10.0.0.3", 6, "10.0.0.2", 6, "accepted"),
        ),
        tmp_path,
    )
    rules = [line for line in (tmp_path / "iptables.rules").read_text().splitlines() if line.startswith("-A")]
    assert rules[0].startswith("-A FORWARD -d 10.0.0.2 -p tcp -m multiport --dports 100,101,")
    assert len(rules) == 6
    assert rules[2:] == [
        "-A FORWARD -s 10.0.0.1 -d 10.0.0.2 -p tcp -m multiport --dports 22 -j REJECT --reject-with tcp-reset",
        "-A FORWARD -s 10.0.0.4 -d 10.0.0.2 -p tcp -m tcp --sport 1 -m multiport --dports 25 "
        "-j REJECT --reject-with tcp-reset",
        "-A FORWARD -d 10.0.0.2 -p udp -m multiport --dports 53 -j REJECT --reject-with icmp-port-unreachable",
        "-A FORWARD -s 10.0.0.1 -d 10.0.0.2 -p icmp --icmp-type 8 -j DROP",
    ]
    assert "icmp6-adm-prohibited" in (tmp_path / "ip6tables.rules").read_text()
    assert set(lab.topology.node(BETWEEN).configs) == {"iptables.rules", "ip6tables.rules"}


def test_the_wires_use_no_address_of_the_capture(tmp_path):
    taken = ["198.18.0.1", "198.18.0.9", "2001:2::2"]
    lab = lab_for(table(tcp(taken[0], taken[1]), tcp(taken[2], "2001:db8::1")), tmp_path)
    own = {a.ip for node in lab.topology.nodes for i in node.interfaces for a in i.addresses}
    assert len(own) == 8
    assert own.isdisjoint(map(ip_address, taken))


def beginning(seconds: float, target: Path) -> Path:
    """The first seconds of the shop's capture; flows that go on are cut."""
    data = SHOP.read_bytes()
    (magic,) = struct.unpack_from("<I", data)
    assert magic == 0xA1B23C4D
    at, first = 24, None
    while at < len(data):
        second, nanosecond, kept, _ = struct.unpack_from("<IIII", data, at)
        now = second + nanosecond / 1e9
        first = first or now
        if now - first > seconds:
            break
        at += 16 + kept
    target.write_bytes(data[:at])
    return target


def test_a_part_of_the_shops_traffic_comes_again_as_it_was(tmp_path):
    capture = beginning(1.5, tmp_path / "part.pcap")
    told = CliRunner().invoke(commands, ["bench", "fidelity", str(capture), "--speed", "2", "--json"])
    document = json.loads(told.stdout)
    assert document["differences"] == []
    assert told.exit_code == 0
    assert document["faithful"]
    figures = document["figures"]
    assert figures["payload_flows_equal"] == figures["payload_flows"] > 20
    assert figures["capture_drops"] == 0
    assert document["references"]["capture_octets"]["ratio"] == 1.0
    assert 0 < figures["gap_error_client_p50_us"] < 10_000
    assert document["explained"]["requests with the shadow header, taken out"] > 0


class Wire:
    """Packets of TCP flows between a client and its server, 2 ms apart unless told."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def flow(self, port: int, *steps: tuple[int, str, bytes, float], start: float = 0.0, initial: int = 1_000) -> None:
        """A handshake, then (direction, flags, payload, seconds before)."""
        ends, at = (("10.1.0.1", port), ("10.1.0.2", 80)), 1_700_000_000.0 + start
        following = [initial, initial + 5_000]
        for direction, flags, payload, wait in (
            (0, "S", b"", 0.0),
            (1, "SA", b"", 0.002),
            (0, "A", b"", 0.002),
            *steps,
        ):
            at += wait
            (source, source_port), (target, target_port) = ends[direction], ends[1 - direction]
            tcp = inet.TCP(
                sport=source_port, dport=target_port, flags=flags,
                seq=following[direction], ack=following[1 - direction],
            )  # fmt: skip
            packet = (
                Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
                / inet.IP(src=source, dst=target)
                / tcp
                / payload
            )
            packet.time = at
            self.packets.append(packet)
            following[direction] += len(payload) + ("S" in flags or "F" in flags)

    def written(self, path: Path) -> Path:
        wrpcap(str(path), sorted(self.packets, key=lambda packet: packet.time))
        return path


REQUEST = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"
UPLOAD = b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\n", b"body"


def test_closes_pauses_and_silence_come_again_too(tmp_path):
    wire, soon = Wire(), 0.002
    asked, answered = (0, "PA", REQUEST, soon), (1, "PA", RESPONSE, soon)
    by_client, by_server = ((0, "FA", b"", soon), (1, "FA", b"", soon)), ((1, "FA", b"", soon), (0, "FA", b"", soon))
    wire.flow(40_000, asked, answered, *by_server)
    wire.flow(40_001, asked, answered, (1, "R", b"", soon))
    wire.flow(40_002, (0, "PA", UPLOAD[0], soon), (0, "PA", UPLOAD[1], 0.25), answered, *by_client)
    wire.flow(40_003, asked, (1, "PA", RESPONSE[:20], soon), (1, "PA", RESPONSE[20:], 0.25), *by_client)
    wire.flow(40_004, *by_server)
    wire.flow(40_005, (1, "R", b"", soon))
    wire.flow(40_006, (0, "PA", b"said", 0.0), *by_server)
    wire.flow(40_007, (0, "PA", b"said", soon), (1, "PA", b"heard", soon))
    wire.flow(40_007, (0, "PA", b"said", soon), (1, "PA", b"heard", soon), *by_client, start=0.3, initial=900_000)
    report = bench_fidelity(wire.written(tmp_path / "closes.pcap"), 1.0, 1.0)
    assert report.fidelity.differences == ()
    assert report.fidelity.of_grade("payload") == (9, 9)
    assert report.fidelity.explained["requests with the shadow header, taken out"] == 4


def test_a_capture_of_which_nothing_can_be_replayed_is_refused(tmp_path):
    nothing = tmp_path / "nothing.pcap"
    nothing.write_bytes(SHOP.read_bytes()[:24])
    told = CliRunner().invoke(commands, ["bench", "fidelity", str(nothing)])
    assert isinstance(told.exception, InvalidInput)
    assert "nothing.pcap" in str(told.exception)
