"""A lab folder becomes a Lab."""

from pathlib import Path

import pytest

from topologies.graph import mermaid
from topologies.load import load_lab
from topologies.model import Impairment, Service
from topologies.schema import SCHEMA_FILE, lab_schema_text

LAB = """\
name: small
topology:
  defaults: {mtu: 1400, delay: 1ms}
  kinds: {host: {listen: [tcp/22]}}
  nodes:
    internet:
      kind: edge
      interfaces: {eth0: [203.0.113.1/28, "2001:db8:f::1/64"]}
      prefixes: [198.51.0.0/16, "2001:db8:100::/48"]
      routes: [{to: default, via: 203.0.113.2}, {to: default, via: "2001:db8:f::2"}]
    far: {kind: edge, interfaces: {}, prefixes: [198.51.100.0/24]}
    fw1: {kind: firewall, interfaces: {ge-0/0/1: {addresses: [203.0.113.2/28], mac: "02:00:00:00:00:0A"}}}
    web1: {kind: host, interfaces: {ens3: [10.2.0.11/24]}, listen: [tcp/8080]}
  links:
    - {endpoints: ["internet:eth0", "fw1:ge-0/0/1"], rate: 100Mbit, a-to-b: {rate: 5Mbit, queue: 64KB, loss: 1%}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / "configs" / "fw1").mkdir(parents=True)
    (tmp_path / "configs" / "fw1" / "iptables.rules").write_text("*filter\nCOMMIT\n")
    (tmp_path / "changes" / "none").mkdir(parents=True)
    (tmp_path / "changes" / "tidy.patch").write_text("")
    (tmp_path / "traffic").mkdir()
    (tmp_path / "traffic" / "day.pcap").write_bytes(b"")
    return tmp_path


def test_a_lab_is_read_whole_and_equal_by_value(folder):
    lab = load_lab(folder)
    assert lab == load_lab(folder)
    assert hash(lab.topology) == hash(load_lab(folder).topology)
    assert set(lab.changes) == {"none", "tidy"}
    assert [p.name for p in lab.captures] == ["day.pcap"]
    assert lab.policy is None
    assert lab.topology.node("fw1").configs == {"iptables.rules": folder / "configs/fw1/iptables.rules"}
    assert lab.topology.node("fw1").interface("ge-0/0/1").mac == "02:00:00:00:00:0a"
    assert lab.topology.node("web1").listen == (Service("tcp", 22), Service("tcp", 8080))


def test_a_direction_wins_over_the_link_and_the_link_over_the_defaults(folder):
    link = load_lab(folder).topology.link_between("fw1", "internet")
    assert link is not None
    assert link.mtu == 1400
    assert link.a.egress == Impairment(rate_bps=5_000_000, delay_ns=10**6, loss_ratio=0.01, queue_octets=64_000)
    assert link.b.egress == Impairment(rate_bps=100_000_000, delay_ns=10**6)


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("203.0.113.2", "fw1"),
        ("198.51.7.7", "internet"),
        ("198.51.100.7", "far"),
        ("2001:db8:100::5", "internet"),
        ("192.0.2.1", None),
    ],
)
def test_the_longest_prefix_owns_an_address(folder, address, owner):
    node = load_lab(folder).topology.owner(address)
    assert (node and node.name) == owner


def test_other_kinds_come_as_a_parameter(tmp_path):
    (tmp_path / "lab.yaml").write_text("name: x\ntopology: {nodes: {a: {kind: toaster}}}\n")
    assert load_lab(tmp_path, kinds=frozenset({"toaster"})).topology.node("a").kind == "toaster"


def test_mermaid_draws_every_node_and_link(folder):
    text = mermaid(load_lab(folder).topology)
    assert text.startswith("graph LR\n")
    assert text.count(" ---|") == 1
    assert "ge-0/0/1" in text
    assert "100 Mbit/s" in text


def test_the_packaged_schema_is_current():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == lab_schema_text(), "run: python -m topologies.schema"
