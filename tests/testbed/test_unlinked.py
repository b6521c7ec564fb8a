"""Interfaces that are no end of a cable: VLANs and VRFs where the kernel has them, and ends that lead into the dark."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.devices.router import check_vrfs
from testbed.errors import InvalidInput, Unsupported
from testbed.network.namespace import make_namespace
from testbed.network.unlinked import Vlan
from testbed.sandbox import Sandbox
from tests.testbed.labs import files, link, node, on_shadow, topology


def has(kind: str, *words: str) -> bool:
    """Whether this kernel makes an interface of a kind, tried in an empty namespace."""

    def tried() -> bool:
        space = make_namespace("probe", {})
        space.run(["ip", "link", "add", "base", "type", "veth", "peer", "name", "other"])
        space.run(
            [
                "ip",
                "link",
                "add",
                *words,
                "name",
                "probe",
                "type",
                kind,
                *(("id", "7") if kind == "vlan" else ("table", "7")),
            ]
        )
        return True

    try:
        return Sandbox("probe").call(tried)
    except Exception:  # noqa: BLE001 - whatever it says, it cannot
        return False


VLAN, VRF = has("vlan", "link", "base"), has("vrf")


def in_vrf(of, vrfs):
    """The node with its interfaces in VRFs, by interface name."""
    return replace(of, interfaces=tuple(replace(i, vrf=vrfs.get(i.name)) for i in of.interfaces))


def tagged():
    """Two hosts whose cable carries two tagged networks, and a third whose tags do not agree."""
    nodes = []
    for k, name, third in ((1, "a", "eth0.9"), (2, "b", "eth0.10")):
        ports = {"eth0": [], "eth0.7": [f"10.7.0.{k}/24"], "eth0.8": [f"10.8.0.{k}/24"], third: [f"10.9.0.{k}/24"]}
        nodes.append(node(name, ports))
    return topology(nodes, [link("a:eth0", "b:eth0")])


def two_domains(folder):
    """A router with two VRFs, red and blue, a host in each, and one more behind a static route of red."""
    frr = "hostname r\nvrf red\n ip route 10.9.0.0/24 10.1.0.2\nexit-vrf\n"
    ports = {"red0": ["10.1.0.1/24"], "blue0": ["10.2.0.1/24"]}
    router = node("r", ports, "router", configs=files(folder, "r", {"frr.conf": frr}))
    red = node("red1", {"eth0": ["10.1.0.2/24"]}, routes={"0.0.0.0/0": "10.1.0.1"}, prefixes=["10.9.0.0/24"])
    blue = node("blue1", {"eth0": ["10.2.0.2/24"]}, routes={"0.0.0.0/0": "10.2.0.1"})
    nodes = [in_vrf(router, {"red0": "red", "blue0": "blue"}), red, blue]
    return topology(nodes, [link("r:red0", "red1:eth0"), link("r:blue0", "blue1:eth0")])


def test_an_end_without_a_link_is_up_and_nobody_answers(tmp_path):
    lab = topology([node("a", {"eth0": ["10.0.0.1/24"], "mgmt 0": ["10.9.0.1/24", "2001:db8:9::1/64"]})], [])

    def job(shadow):
        box = shadow.boxes["a"]
        told = box.run(["ip", "-br", "addr"])
        return told, [p.name for p in box.kernel.ports()], box.run(["sh", "-c", "ping -c1 -W1 10.9.0.2 || true"])

    told, names, ping = on_shadow(lab, tmp_path, job)
    assert "10.9.0.1/24" in told
    assert sorted(names) == ["eth0", "mgmt 0"]
    assert "DOWN" not in told
    assert "0 received" in ping


def test_only_a_tag_on_an_interface_of_the_node_is_a_vlan():
    others = ["ens3", "GigabitEthernet0/0", "a.b"]
    assert Vlan.of("ens3.100", others) == Vlan("ens3.100", "ens3", 100)
    assert Vlan.of("GigabitEthernet0/0.7", others) == Vlan("GigabitEthernet0/0.7", "GigabitEthernet0/0", 7)
    assert [Vlan.of(name, others) for name in ("ens4.100", "ens3.0", "ens3.4095", "ens3.x", "ens3", "a.b")] == [
        None
    ] * 6


@pytest.mark.skipif(not VLAN, reason="this kernel has no 802.1Q; ./lab test-kernel has")
def test_two_tagged_networks_on_one_cable_do_not_meet(tmp_path):
    def job(shadow):
        box = shadow.boxes["a"]
        return [
            box.run(["sh", "-c", f"ping -c1 -W1 -I {i} {to} || true"])
            for i, to in (("eth0.7", "10.7.0.2"), ("eth0.8", "10.8.0.2"), ("eth0.9", "10.9.0.2"))
        ]

    seven, eight, across = on_shadow(tagged(), tmp_path, job)
    assert "1 received" in seven
    assert "1 received" in eight
    assert "0 received" in across


@pytest.mark.skipif(VLAN, reason="this kernel has 802.1Q")
def test_a_kernel_without_vlans_refuses_the_lab(tmp_path):
    with pytest.raises(Unsupported, match=r"vlan eth0\.7.*testbed lab run"):
        on_shadow(tagged(), tmp_path, lambda shadow: None)


@pytest.mark.skipif(not VRF, reason="this kernel has no VRF; ./lab test-kernel has")
def test_two_vrfs_of_one_router_do_not_meet_and_frr_routes_in_its_own(tmp_path):
    def job(shadow):
        ping = lambda who, to: shadow.boxes[who].run(["sh", "-c", f"ping -c1 -W1 {to} || true"])  # noqa: E731
        own, across = ping("red1", "10.1.0.1"), ping("red1", "10.2.0.2")
        return own, across, shadow.boxes["r"].run(["ip", "route", "show", "vrf", "red"])

    own, across, red = on_shadow(two_domains(tmp_path), tmp_path, job)
    assert "1 received" in own
    assert "0 received" in across
    assert "10.9.0.0/24" in red
    assert "unreachable default" in red


@pytest.mark.skipif(VRF, reason="this kernel has VRF")
def test_a_kernel_without_vrf_refuses_the_lab(tmp_path):
    with pytest.raises(Unsupported, match=r"vrf red.*testbed lab run"):
        on_shadow(two_domains(tmp_path), tmp_path, lambda shadow: None)


def test_a_vrf_of_frr_that_no_interface_is_in_is_told_with_its_line(tmp_path):
    text = "hostname r\nvrf green\n ip route 10.9.0.0/24 10.1.0.2\nexit-vrf\n"
    text += "router bgp 65000 vrf green\nrouter bgp 65000 vrf default\n"
    router = node("r", {"eth0": ["10.1.0.1/24"]}, "router", configs=files(tmp_path, "r", {"frr.conf": text}))
    (complaint,) = check_vrfs(text, router)
    assert (complaint.file, complaint.line) == ("frr.conf", 2)
    assert check_vrfs(text, in_vrf(router, {"eth0": "green"})) == []
    with pytest.raises(InvalidInput, match="VRF 'green'"):
        on_shadow(topology([router], []), tmp_path, lambda shadow: None)
