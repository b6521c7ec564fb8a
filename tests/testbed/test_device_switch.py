"""Switches: spanning tree, VLANs and Open vSwitch where the kernel has them, and a clear refusal where not."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.devices.openvswitch import port_columns, read_flows
from testbed.devices.switch import vlans_of
from testbed.errors import Unsupported
from testbed.sandbox import Sandbox
from tests.testbed.labs import connected, datagrams, files, link, listener, node, on_shadow, topology, with_file
from topologies.model import Interface

ACCESS = {"swp1": 10, "swp2": 10, "swp3": 20}
FLOWS = "priority=5,udp,tp_dst=9 actions=drop\npriority=0 actions=NORMAL\n"


def lan(folder, kind, configs=None, vlans=None):
    """Three hosts on one switch."""
    hosts = [node(f"h{n}", {"eth0": [f"10.0.0.{n}/24"]}) for n in (1, 2, 3)]
    switch = node("sw", {f"swp{n}": [] for n in (1, 2, 3)}, kind, configs=files(folder, "sw", configs or {}))
    ports = tuple(replace(i, vlan=(vlans or {}).get(i.name)) for i in switch.interfaces)
    return topology([*hosts, replace(switch, interfaces=ports)], [link(f"h{n}:eth0", f"sw:swp{n}") for n in (1, 2, 3)])


def reaches(shadow, one, other):
    address = f"10.0.0.{other[1:]}"
    with listener(shadow.boxes[other].namespace, address, 80) as server:
        try:
            with connected(shadow.boxes[one].namespace, address, 80, seconds=1.0) as line:
                server.accept()[0].sendall(bytes(50_000))
                octets = 0
                while octets < 50_000:
                    octets += len(line.recv(65_536))
                return True
        except OSError:
            return False


def parted(shadow):
    return reaches(shadow, "h1", "h2"), reaches(shadow, "h1", "h3")


def kernel_has(command):
    done = Sandbox("probe", ()).call(lambda: subprocess.run(command, capture_output=True, check=False).returncode)
    return done == 0


def test_a_bridge_parts_vlans_or_says_that_the_kernel_cannot(tmp_path):
    lab = lan(tmp_path, "bridge", vlans=ACCESS)
    if kernel_has(["ip", "link", "add", "br9", "type", "bridge", "vlan_filtering", "1"]):
        assert on_shadow(lab, tmp_path, parted) == (True, False)
    else:
        with pytest.raises(Unsupported, match=r"cannot filter VLANs.*testbed lab run"):
            on_shadow(lab, tmp_path, parted)


def test_a_spanning_tree_waits_and_says_for_what(tmp_path):
    lab = lan(tmp_path, "bridge")
    lab = replace(lab, nodes=tuple(replace(n, stp=n.name == "sw") for n in lab.nodes))

    def job(shadow):
        box, device = shadow.boxes["sw"], shadow.device("sw")
        first = device.ready(box, {})
        # the kernel's own fifteen seconds a step would be long for a test
        box.run(["ip", "link", "set", "br0", "down"])
        box.run(["ip", "link", "set", "br0", "type", "bridge", "forward_delay", "200"])
        box.run(["ip", "link", "set", "br0", "up"])
        seconds = shadow.wait_ready(20, lambda reason: None)
        return first, seconds, [r.state for r in shadow.readings()["sw"] if r.kind == "port"]

    first, seconds, states = on_shadow(lab, tmp_path, job, ready=False)
    assert not first.ready
    assert "(listening)" in first.waiting_for
    assert seconds > 2
    assert states == ["forwarding"] * 3


def test_vlans_of_a_port_are_said_in_each_switch_s_words():
    assert vlans_of(Interface("p")) == {1: {"PVID", "Egress Untagged"}}
    assert vlans_of(Interface("p", vlan=10, trunk=(20,))) == {10: {"PVID", "Egress Untagged"}, 20: frozenset()}
    assert vlans_of(Interface("p", trunk=(20,))) == {20: frozenset()}
    assert port_columns(Interface("p")) == []
    assert port_columns(Interface("p", vlan=10)) == ["tag=10", "vlan_mode=access"]
    assert port_columns(Interface("p", vlan=10, trunk=(20, 30))) == [
        "tag=10",
        "vlan_mode=native-untagged",
        "trunks=20,30",
    ]
    assert port_columns(Interface("p", trunk=(20,))) == ["vlan_mode=trunk", "trunks=20"]


def on_open_vswitch(shadow):
    def dropped():
        return next(r.value for r in shadow.readings()["sw"] if r.object == "flows.txt:0/priority=5,udp,tp_dst=9")

    datagrams(shadow.boxes["h1"].namespace, "10.0.0.2", 4)
    ways, before = parted(shadow), shadow.configs["sw"]
    first = dropped()
    wrong = shadow.check("sw", with_file(shadow, "sw", "flows.txt", FLOWS.replace("priority=0", "priorty=0")))
    shadow.reconfigure("sw", with_file(shadow, "sw", "flows.txt", FLOWS.replace("NORMAL", "drop")))
    shut = reaches(shadow, "h1", "h2")
    shadow.reconfigure("sw", before)
    return ways, first, list(wrong), shut, reaches(shadow, "h1", "h2")


def judge(result):
    ways, first, wrong, shut, back = result
    assert ways == (True, False)
    assert first == 4
    assert [(c.file, c.line) for c in wrong] == [("flows.txt", 2)]
    assert (shut, back) == (False, True)


def test_open_vswitch_in_the_kernel_parts_vlans_or_is_refused(tmp_path):
    lab = lan(tmp_path, "openvswitch", {"flows.txt": FLOWS}, ACCESS)
    if kernel_has(["ovs-dpctl", "dump-dps"]):
        judge(on_shadow(lab, tmp_path, on_open_vswitch))
    else:
        with pytest.raises(Unsupported, match=r"no Open vSwitch.*testbed lab run"):
            on_shadow(lab, tmp_path, on_open_vswitch)


def test_open_vswitch_in_user_space_when_the_node_asks_for_it(tmp_path):
    configs = {"flows.txt": FLOWS, "openvswitch.conf": "# no kernel datapath\ndatapath_type = netdev\n"}
    judge(on_shadow(lan(tmp_path, "openvswitch", configs, ACCESS), tmp_path, on_open_vswitch))


@given(
    st.text(max_size=80)
    | st.just(" cookie=0x0, duration=1s, table=0, n_packets=4, n_bytes=0, priority=5,udp actions=drop")
)
def test_any_listing_of_flows_is_read(text):
    for reading in read_flows(text):
        assert reading.kind == "rule"
