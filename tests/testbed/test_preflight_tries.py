"""Which ways are tried for a changed line: what its rule matches, from every side, and no more than its limit."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.change.model import Change, Line
from testbed.devices.packet_filter import Rule
from testbed.flow_rules import flow_rule
from testbed.policy import ClassRule
from testbed.preflight.opened import MOST_A_LINE, exposures
from testbed.preflight.places import (
    Places,
    binds,
    networks,
    places,
    port_ranges,
    protocols,
    split_target,
    translated_by,
)
from testbed.preflight.probe import Kind, Probe
from testbed.preflight.tries import Sampler, spread
from tests.testbed.labs import node, topology
from tests.testbed.shop_scene import SHOP, edited, shop
from topologies.model import Service

CONFIGS = {
    node.name: {file: path.read_bytes() for file, path in node.configs.items()} for node in shop().topology.nodes
}
NO_FLOWS = pd.DataFrame(
    {
        "source_address": pd.Series(dtype="str"),
        "destination_address": pd.Series(dtype="str"),
        "protocol": pd.Series(dtype="int64"),
        "destination_port": pd.Series(dtype="int64"),
        "outcome": pd.Series(dtype="str"),
    }
)
FIRST_RULE = "-A FORWARD -m conntrack --ctstate INVALID -j DROP"


def here() -> Places:
    return places(shop().topology, CONFIGS, NO_FLOWS)


def tried(change: Change) -> list[Probe]:
    """The probes that are made of the change's lines."""
    after = {node: dict(files) for node, files in CONFIGS.items()}
    for (name, file), content in change.after.items():
        after[name][file] = content
    probes, _ = exposures(change, CONFIGS, after, places(shop().topology, after, NO_FLOWS), NO_FLOWS, ())
    return [probe for probe in probes if probe.kind is Kind.RULE]


def with_rule(folder, rule: str, file: str = "fw1/iptables.rules") -> list[Probe]:
    return tried(edited(folder, {file: [(FIRST_RULE, f"{rule}\n{FIRST_RULE}")]}))


def ways(probes: list[Probe]) -> set[tuple[str, str, int]]:
    return {(p.script.source[0], p.script.target[0], p.script.target[1]) for p in probes}


def test_an_accept_rule_is_tried_from_every_side_to_the_ports_that_it_names(tmp_path):
    probes = with_rule(tmp_path, "-A FORWARD -d 10.3.0.20/32 -p tcp -m multiport --dports 22,9000:9010 -j ACCEPT")
    assert {p.script.target for p in probes} == {("10.3.0.20", port) for port in (22, 9000, 9005, 9010)}
    assert {p.script.source[0].rsplit(".", 1)[0] for p in probes} == {"198.51.100", "192.0.2", "203.0.113", "10.2.0"}
    assert {p.stands for p in probes} == {(("db1", 6, port),) for port in (22, 9000, 9005, 9010)}
    assert {p.origin.line for p in probes} == {22}
    assert {p.origin.file for p in probes} == {"configs/fw1/iptables.rules"}


def test_a_rule_that_names_its_source_is_tried_from_there_alone(tmp_path):
    probes = with_rule(tmp_path, "-A FORWARD -s 192.0.2.128/25 -d 10.3.0.20/32 -p udp --dport 161 -j ACCEPT")
    assert {ip_address(p.script.source[0]) >= ip_address("192.0.2.128") for p in probes} == {True}
    assert {(p.script.protocol, p.service) for p in probes} == {(17, "udp/161")}
    assert all(p.script.messages[0].payload.startswith(b"testbed ") for p in probes)


def test_a_rule_without_ports_is_tried_at_the_known_ones_and_at_one_where_nobody_listens(tmp_path):
    probes = with_rule(tmp_path, "-A FORWARD -d 10.3.0.20/32 -j ACCEPT")
    assert {(p.script.protocol, p.script.target[1]) for p in probes} == {(6, 6379), (6, 4242), (17, 4242)}


def test_a_translation_is_tried_at_the_address_that_it_takes(tmp_path):
    rule = "-A PREROUTING -d 203.0.113.10/32 -i ens3 -p tcp -m tcp --dport 2222 -j DNAT --to-destination 10.2.0.11:22"
    change = edited(tmp_path, {"fw1/iptables.rules": [("-A POSTROUTING", f"{rule}\n-A POSTROUTING")]})
    probes = tried(change)
    assert {p.script.target for p in probes} == {("203.0.113.10", 2222)}
    assert all(("web1", 6, 22) in p.stands for p in probes)


def test_an_accept_behind_a_translation_is_tried_where_the_sender_sends(tmp_path):
    probes = with_rule(tmp_path, "-A FORWARD -d 10.2.0.53/32 -p tcp --dport 53 -m mark --mark 7 -j ACCEPT")
    assert ("203.0.113.53", 53) in {p.script.target for p in probes}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("fw1/iptables.rules", FIRST_RULE, f"-A FORWARD -p tcp --dport 443 -j DROP\n{FIRST_RULE}"),
        ("fw1/iptables.rules", "-A INPUT -i ens4 -p tcp -m tcp --dport 22 -j ACCEPT\n", ""),
        ("fw1/iptables.rules", "# the shop", "# the shop and more"),
    ],
)
def test_what_can_only_close_is_not_tried(tmp_path, file, old, new):
    assert tried(edited(tmp_path, {file: [(old, new)]})) == []


def test_a_drop_that_goes_is_tried_and_so_is_a_policy_that_turns(tmp_path):
    gone = edited(tmp_path / "gone", {"fw1/iptables.rules": [(f"{REJECT}\n", "")]})
    assert {p.script.target for p in tried(gone)} == {
        (str(a.ip), 8443) for i in shop().topology.node("fw1").interfaces for a in i.addresses if a.version == 4
    }
    policy = tried(edited(tmp_path / "policy", {"fw1/iptables.rules": [(":FORWARD DROP", ":FORWARD ACCEPT")]}))
    assert sum(p.origin.text == ":FORWARD ACCEPT [0:0]" for p in policy) == MOST_A_LINE


REJECT = "-A INPUT -i ens3 -p tcp -m tcp --dport 8443 -j REJECT --reject-with tcp-reset"


def test_an_nftables_rule_is_tried_in_its_own_words(tmp_path):
    text = "table inet filter {\n chain forward {\n  type filter hook forward priority 0;\n" + (
        "  ip6 daddr 2001:db8:1:3::20 tcp dport { 22, 8000-8002 } accept\n }\n}\n"
    )
    probes = tried(edited(tmp_path, {"fw1/nftables.conf": [("", text)]}))
    assert {p.script.target for p in probes} == {("2001:db8:1:3::20", port) for port in (22, 8000, 8001, 8002)}
    assert {":" in p.script.source[0] for p in probes} == {True}
    assert {p.origin.line for p in probes} == {4}


def test_a_bind_that_a_proxy_gains_is_tried_at_its_addresses(tmp_path):
    more = "listen admin\n    bind 10.2.0.10:9999\n    mode http\n"
    text = (SHOP / "configs" / "lb1" / "haproxy.cfg").read_text()
    probes = tried(edited(tmp_path, {"lb1/haproxy.cfg": [(text, text + more)]}))
    assert {p.script.target for p in probes} == {("10.2.0.10", 9999)}


def test_a_route_is_tried_to_the_services_of_its_prefix(tmp_path):
    text = (SHOP / "configs" / "r1" / "frr.conf").read_text()
    probes = tried(edited(tmp_path, {"r1/frr.conf": [(text, text + "ip route 10.3.0.0/24 10.0.1.2\n")]}))
    assert {p.script.target for p in probes} == {("10.3.0.20", 6379)}


def test_a_command_of_iptables_is_tried_like_a_rule(tmp_path):
    words = "iptables, -I, FORWARD, '1', -p, tcp, -d, 10.3.0.20, --dport, '6379', -j, ACCEPT"
    yaml = f"commands:\n  - node: fw1\n    run: [{words}]\n    rollback: [iptables, -D, FORWARD, '1']\n"
    probes = tried(edited(tmp_path, {}, yaml))
    assert {p.script.target for p in probes} == {("10.3.0.20", 6379)}


def test_refused_flows_and_known_services_are_tried_too():
    flows = pd.DataFrame(
        {
            "source_address": ["198.51.100.9", "198.51.100.9"],
            "destination_address": ["203.0.113.10", "203.0.113.10"],
            "protocol": [6, 6],
            "destination_port": [22, 443],
            "outcome": ["unanswered", "accepted"],
        }
    )
    rules = [flow_rule(ClassRule("ssh", "low", 6, 22))]
    shop_now = places(shop().topology, CONFIGS, flows)
    probes, left_out = exposures(Change("none", SHOP), CONFIGS, CONFIGS, shop_now, flows, rules)
    refused = [p for p in probes if p.kind is Kind.REFUSED]
    assert [(p.script.target, p.expected, p.flow_class, p.priority) for p in refused] == [
        (("203.0.113.10", 22), "unanswered", "ssh", "low")
    ]
    assert ("203.0.113.10", 443) in {p.script.target for p in probes if p.kind is Kind.SERVICE}
    assert left_out == 0
    assert len({(p.script.source[0], p.script.target, p.script.protocol) for p in probes}) == len(probes)


@given(st.integers(0, 5000), st.integers(1, 200))
def test_what_is_picked_is_spread_over_all_of_it(count, most):
    picks = spread(count, most)
    assert len(set(picks)) == len(picks) == min(count, most)
    assert picks == sorted(picks)
    assert not picks or 0 <= picks[0] <= picks[-1] < count


def test_every_zone_and_every_service_is_among_a_choice():
    services, zones = [(ip_address("10.0.0.1"), 6, port) for port in range(40)], here().zones[:6]
    ways = list(Sampler(48).ways(services, zones))
    assert len(ways) == 48
    assert {zone for _, zone in ways} == set(zones)
    assert len({port for (_, _, port), _ in ways}) > 30


def test_a_large_network_is_no_trouble():
    nodes = [
        node(f"h{n}", {"e": [f"10.{n // 250}.{n % 250}.2/24"]}, routes={"0.0.0.0/0": f"10.{n // 250}.{n % 250}.1"})
        for n in range(1_000)
    ]
    nodes = [replace(one, listen=(Service("tcp", 80),)) for one in nodes]
    wires = {f"e{n}": [f"10.{n // 250}.{n % 250}.1/24"] for n in range(1_000)}
    net = topology([*nodes, node("fw1", wires, "firewall")], [])
    rules = "*filter\n" + "".join(f"-A FORWARD -p tcp --dport {port} -j ACCEPT\n" for port in range(1, 101))
    lines = [
        Line("fw1", "configs/fw1/iptables.rules", port + 1, "+", f"-A FORWARD -p tcp --dport {port} -j ACCEPT")
        for port in range(1, 101)
    ]
    after = {"fw1": {"iptables.rules": rules.encode()}}
    began = time.monotonic()
    probes, left_out = exposures(
        Change("big", SHOP, lines=tuple(lines)), {}, after, places(net, after, NO_FLOWS), NO_FLOWS, ()
    )
    assert time.monotonic() - began < 20
    assert 500 < len(probes) <= 480 + 192
    assert left_out > 10_000_000


HOSTILE = st.text(alphabet="-dport sACEPTjmultih0123456789:,./![]{}abcnftdo\n\t\x00é", max_size=80)


@settings(max_examples=150, deadline=None)
@given(HOSTILE)
def test_hostile_rules_make_no_trouble(text):
    assert all(0 <= low <= high <= 65_535 for low, high in port_ranges(text) or ())
    assert set(protocols(text)) <= {6, 17}
    networks(text)
    split_target(text)
    binds({"haproxy.cfg": text.encode()})
    translated_by("fw1", Rule("nat", "PREROUTING", 1, text, 1))


HERE = here()


@settings(max_examples=20, deadline=None)
@given(HOSTILE)
def test_probes_of_a_hostile_line_are_made_or_not_made_without_trouble(text):
    line = Line("fw1", "configs/fw1/iptables.rules", 1, "+", text)
    content = {**CONFIGS, "fw1": {"iptables.rules": f"*filter\n-A FORWARD {text}".encode()}}
    exposures(Change("hostile", SHOP, lines=(line,)), content, content, HERE, NO_FLOWS, ())
