"""`testbed infer`: what is inferred of wires that are known, that every flow finds its places, and a real replay."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.window import Role
from replay.session import Player
from replay.tap import Tap, Taps
from testbed.cli.infer import infer_command
from testbed.devices.registry import known_devices
from testbed.errors import InvalidInput
from testbed.infer.lab import infer
from testbed.measure import Gauge
from testbed.placement import END_POINTS, listeners
from testbed.prepare import open_lab, prepared
from testbed.sandbox import Sandbox
from testbed.shadow import built
from testbed.store import RunDirectory
from tests.replay.link_frames import Talk, arp, ethernet, ip, lease, neighbour, udp
from tests.testbed.forwarding import way

ROOT = Path(__file__).resolve().parents[2]
TRAFFIC = ROOT / "topologies" / "shop" / "traffic"
RECORDS = ROOT / "tests" / "replay" / "records"
A, B, C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
GATEWAY, ALL = "02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"
CLIENT = (A, "192.168.7.20", 64)
FAR = (GATEWAY, "198.51.100.7", 55)


def inferred(talk, folder, name="lab"):
    return infer([talk.written(folder / "seen.pcap")], folder / name, name)


def replayable(folder):
    """How many flows of the lab's own capture are placed; what is left out is told apart."""
    devices = known_devices()
    case = prepared(open_lab(str(folder), folder, devices).lab, folder / "changes" / "none", devices)
    return len(case.flows), dict(case.placed.left_out)


def kinds(found):
    return {node.name: node.kind for node in found.lab.topology.nodes}


def said(found, node):
    return " | ".join(found.plan.remarks[node])


def test_a_client_and_a_server_far_behind_a_gateway(tmp_path):
    found = inferred(Talk().asks(CLIENT, FAR, 443), tmp_path)
    assert kinds(found) == {"gw1": "router", "host1": "host", "server1": "host"}
    assert "9 away" in said(found, "gw1")
    assert found.plan.owner == {"192.168.7.20": "host1", "198.51.100.7": "server1"}
    network = found.plan.networks[0][1]
    assert (str(network.network), network.sureness) == ("192.168.7.0/24", "guess")
    assert replayable(tmp_path / "lab") == (1, {})


def test_two_on_a_wire_need_no_gateway_and_three_a_bridge(tmp_path):
    one = inferred(Talk().asks(CLIENT, (B, "192.168.7.21", 64), 22), tmp_path, "two")
    assert kinds(one) == {"host1": "host", "server1": "host"}
    talk = Talk().asks(CLIENT, (B, "192.168.7.21", 64), 22).asks((C, "192.168.7.22", 128), (B, "192.168.7.21", 64), 22)
    assert sorted(kinds(inferred(talk, tmp_path, "three")).values()) == ["bridge", "host", "host", "host"]


def test_dhcp_names_the_network_and_beats_a_guess(tmp_path):
    talk = Talk().add(lease(GATEWAY, "192.168.7.1", A, "192.168.7.20", "255.255.252.0", "192.168.7.1"))
    found = inferred(talk.asks(CLIENT, FAR, 443), tmp_path)
    network = found.plan.networks[0][1]
    assert (str(network.network), network.sureness, network.evidence) == (
        "192.168.4.0/22",
        "sure",
        "announced by DHCP",
    )


def test_a_broadcast_address_ends_a_network(tmp_path):
    shout = ethernet(A, ALL, 0x0800, ip("192.168.7.20", "192.168.7.127", 17, udp(137, 137, b"x")))
    found = inferred(Talk().add(shout).asks(CLIENT, FAR, 443), tmp_path)
    network = found.plan.networks[0][1]
    assert (network.network.prefixlen, network.sureness) == (25, "sure")
    flows, left_out = replayable(tmp_path / "lab")
    assert flows == 1
    assert list(left_out.values()) == ["multicast, broadcast or link-local"]


def test_a_virtual_address_is_told_and_its_service_stands_behind_the_gateway(tmp_path):
    virtual = (GATEWAY, "203.0.113.10", 61)
    talk = Talk().add(
        arp(2, GATEWAY, "203.0.113.2", A, "203.0.113.1"), arp(2, GATEWAY, "203.0.113.10", A, "203.0.113.1")
    )
    talk.add(arp(2, A, "203.0.113.1", GATEWAY, "203.0.113.2"))
    talk.asks((A, "203.0.113.1", 64), virtual, 443).asks((A, "203.0.113.1", 64), (GATEWAY, "203.0.113.2", 64), 22)
    found = inferred(talk, tmp_path)
    assert any("203.0.113.10" in doubt and "virtual address" in doubt for doubt in found.plan.doubts)
    node = found.lab.topology.node(found.plan.owner["203.0.113.10"])
    assert node.kind == "host"
    client = found.lab.topology.node(found.plan.owner["203.0.113.1"])
    assert any(str(route.to) == "203.0.113.10/32" for route in client.routes)
    assert replayable(tmp_path / "lab") == (2, {})


def test_a_load_balancer_is_seen_by_whom_it_asks(tmp_path):
    balancer = (B, "10.0.0.5", 64)
    talk = Talk().asks((A, "10.0.0.1", 64), balancer, 80)
    talk.asks(balancer, (C, "10.0.0.6", 64), 8080).asks(balancer, (GATEWAY, "10.0.0.7", 64), 8080)
    found = inferred(talk, tmp_path)
    assert any("10.0.0.5" in doubt and "load balancer" in doubt for doubt in found.plan.doubts)


def test_what_was_refused_becomes_a_rule_at_the_gateway(tmp_path):
    talk = Talk().asks(CLIENT, FAR, 443).asks(CLIENT, FAR, 25, answered=False)
    found = inferred(talk, tmp_path)
    assert kinds(found)["gw1"] == "firewall"
    rules = (tmp_path / "lab" / "configs" / "gw1" / "iptables.rules").read_text()
    assert "-d 198.51.100.7/32 -p tcp --dport 25" in rules
    assert rules.count("-j DROP") == 1


def test_ipv6_alone(tmp_path):
    talk = Talk().asks((A, "2001:db8:1::20", 64), (GATEWAY, "2001:db8:9::5", 57), 443)
    found = inferred(talk, tmp_path)
    assert str(found.plan.networks[0][1].network) == "2001:db8:1::/64"
    assert replayable(tmp_path / "lab") == (1, {})


@pytest.mark.parametrize("name", ["conn.log", "vpc_v2.log"])
def test_flow_records_hang_on_one_router(tmp_path, name):
    found = infer([RECORDS / name], tmp_path / "lab", "lab")
    assert found.from_records
    assert not found.plan.networks
    assert "core" in kinds(found)
    assert not found.lab.captures
    assert "Lay a capture" in (tmp_path / "lab" / "README.md").read_text()


def test_both_captures_of_the_shop_are_one_network(tmp_path):
    found = infer([TRAFFIC / "internet.pcap", TRAFFIC / "servers.pcap"], tmp_path / "lab", "lab")
    assert replayable(tmp_path / "lab") == (546, {})
    for source, target in found.flows[["source_address", "destination_address"]].drop_duplicates().to_numpy().tolist():
        assert way(found.lab.topology, source, target)[::-1] == way(found.lab.topology, target, source)
    assert way(found.lab.topology, "10.2.0.11", "192.0.2.80")[1:-1] == ["gw2", "core", "gw1"]
    networks = {str(one.network) for _, one in found.plan.networks}
    assert {"203.0.113.0/26", "10.2.0.0/24", "2001:db8:f::/64"} <= networks
    text = (tmp_path / "lab" / "lab.yaml").read_text()
    assert "# 1e:71:d6:17:b8:8b on lan1: a gateway" in text
    assert [path.name for path in found.lab.captures] == ["internet.pcap.gz", "servers.pcap.gz"]
    assert found.lab.policy is not None


def test_the_command_for_people_and_programs(tmp_path):
    told = CliRunner().invoke(infer_command, [str(TRAFFIC / "internet.pcap"), "-o", str(tmp_path / "a"), "--json"])
    document = json.loads(told.output)
    assert {node["name"] for node in document["nodes"]} >= {"gw1", "outside1"}
    assert all(node["evidence"] for node in document["nodes"])
    shown = CliRunner().invoke(infer_command, [str(TRAFFIC / "internet.pcap"), "-o", str(tmp_path / "b")])
    assert "README.md says how sure" in shown.output
    with pytest.raises(InvalidInput, match="expected an empty folder"):
        infer([TRAFFIC / "internet.pcap"], tmp_path / "a", "a")


def test_a_capture_without_flows_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="expected flows of machines"):
        inferred(Talk().add(arp(1, A, "10.0.0.1", ALL, "10.0.0.2")), tmp_path)
    assert not (tmp_path / "lab").exists()


ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.1.9", "192.0.2.5", "203.0.113.77", "172.16.9.9"]
ADDRESSES += ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:77::9", "2001:db8:78::1"]
PLACES = st.tuples(
    st.sampled_from([A, B, C, GATEWAY]), st.sampled_from(ADDRESSES), st.sampled_from([64, 63, 60, 128, 120, 255])
)


@settings(max_examples=12, deadline=None)
@given(talks=st.lists(st.tuples(PLACES, PLACES, st.booleans()), min_size=1, max_size=8), data=st.data())
def test_whatever_was_seen_the_lab_loads_and_every_flow_has_its_places(tmp_path_factory, talks, data):
    talk = Talk()
    talks = [one for one in talks if one[0][1] != one[1][1] and (":" in one[0][1]) == (":" in one[1][1])]
    for client, server, answered in talks:
        talk.asks(client, server, 443, answered=answered)
    for one, address, _ in data.draw(st.lists(PLACES, max_size=3)):
        claim = neighbour(136, one, "fe80::1", address) if ":" in address else arp(2, one, address, A, "10.0.0.1")
        talk.add(claim)
    if not talks:
        return
    folder = tmp_path_factory.mktemp("any")
    found = inferred(talk, folder)
    flows, left_out = replayable(folder / "lab")
    assert not left_out
    assert flows == len(found.flows)
    for source, target in found.flows[["source_address", "destination_address"]].drop_duplicates().to_numpy().tolist():
        way(found.lab.topology, source, target)
        way(found.lab.topology, target, source)


def test_the_shops_own_flows_are_replayed_as_captured_on_what_was_inferred_from_them(tmp_path):
    infer([TRAFFIC / "internet.pcap"], tmp_path / "lab", "lab")
    (tmp_path / "quick.yaml").write_text("replay: {speed: 20}\n")
    devices = known_devices()
    lab = open_lab(str(tmp_path / "lab"), tmp_path, devices).lab
    change = tmp_path / "lab" / "changes" / "none"
    case = prepared(lab, change, devices, policy=tmp_path / "quick.yaml")
    directory = RunDirectory.created(tmp_path / "runs", "once")

    def job():
        ends = tuple(node.name for node in lab.topology.nodes if node.kind in END_POINTS)
        with ExitStack() as world:
            shadow = world.enter_context(built(lab.topology, devices, directory.path / "logs", seed=0))
            spaces = {name: shadow.namespaces()[name] for name in ends}
            answering = listeners(lab, case.flows, case.configs)
            player = world.enter_context(Player(case.schedule, spaces, answering))
            taps = world.enter_context(Taps([Tap(name, spaces[name]) for name in ends]))
            shadow.wait_ready(30, lambda _: None)
            Gauge(shadow, player, taps, ends, directory, case.schedule.duration_ns / 1e9).window(Role.BASELINE)

    Sandbox("infer", (tmp_path,)).call(job)
    kpis = directory.read_table("kpis")
    assert len(kpis) == 321
    unlike = kpis[~kpis["as_expected"]].merge(case.flows, on="flow_id")
    assert unlike[["source_address", "destination_address", "destination_port", "outcome", "error"]].empty
