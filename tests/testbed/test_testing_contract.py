"""Every kind of ours keeps the contract, and so does a third party's that comes with its own distribution."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from testbed.devices.registry import known_devices
from testbed.testing import Case, DeviceContract
from tests.testbed.labs import files, link, node, topology

RULES = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p udp --dport 9 -j DROP\nCOMMIT\n"
FRR = "hostname r1\nip route 192.0.2.0/24 10.0.0.2\n"
HAPROXY = """defaults
    mode tcp
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend shop
    bind :80
    default_backend web
backend web
    server w1 10.0.0.2:8080
"""
NFT = """flush ruleset
table inet f {
    chain forward {
        type filter hook forward priority 0
        udp dport 9 drop
    }
}
"""


def pair(kind, contents=None, **more):
    """The node of the kind, wired to a host."""

    def made(folder: Path):
        own = node("n", {"eth0": [] if kind in ("bridge", "openvswitch") else ["10.0.0.1/24"]}, kind)
        own = replace(own, configs=files(folder, "n", contents or {}), **more)
        return topology([own, node("h", {"eth0": ["10.0.0.2/24"]})], [link("n:eth0", "h:eth0")])

    return made


def broken_rules(text=RULES):
    return {
        "broken": {"iptables.rules": text.replace("--dport", "--dprot").encode()},
        "broken_file": "iptables.rules",
        "broken_line": 3,
    }


NEW_RULE = {"iptables.rules": RULES.replace("DROP", "ACCEPT").encode()}


class TestHost(DeviceContract):
    case = Case("host", pair("host", {"iptables.rules": RULES}), "n", NEW_RULE, **broken_rules())


class TestEdge(DeviceContract):
    case = Case("edge", pair("edge", {"iptables.rules": RULES}), "n", NEW_RULE, **broken_rules())


class TestBridge(DeviceContract):
    case = Case("bridge", pair("bridge", {"iptables.rules": RULES}), "n", NEW_RULE, **broken_rules())


class TestFirewall(DeviceContract):
    case = Case(
        "firewall",
        pair("firewall", {"nftables.conf": NFT}),
        "n",
        {"nftables.conf": NFT.replace("drop", "accept").encode()},
        broken={"nftables.conf": NFT.replace("drop", "dorp").encode()},
        broken_file="nftables.conf",
        broken_line=5,
    )


class TestRouter(DeviceContract):
    case = Case(
        "router",
        pair("router", {"frr.conf": FRR}),
        "n",
        {"frr.conf": (FRR + "ip route 198.51.100.0/24 10.0.0.2\n").encode()},
        broken={"frr.conf": FRR.replace("ip route", "ip rout!").encode()},
        broken_file="frr.conf",
        broken_line=2,
    )


class TestLoadBalancer(DeviceContract):
    case = Case(
        "loadbalancer",
        pair("loadbalancer", {"haproxy.cfg": HAPROXY}),
        "n",
        {"haproxy.cfg": (HAPROXY + "    server w2 10.0.0.2:8081\n").encode()},
        broken={"haproxy.cfg": HAPROXY.replace("default_backend", "defualt_backend").encode()},
        broken_file="haproxy.cfg",
        broken_line=8,
    )


class TestOpenVSwitch(DeviceContract):
    case = Case(
        "openvswitch",
        pair("openvswitch", {"openvswitch.conf": "datapath_type = netdev\n", "flows.txt": "actions=NORMAL\n"}),
        "n",
        {"flows.txt": b"actions=NORMAL\npriority=9,udp actions=drop\n"},
        broken={"flows.txt": b"actions=NORMAL\npriorty=9 actions=drop\n"},
        broken_file="flows.txt",
        broken_line=2,
    )


def test_every_kind_of_ours_is_held_to_it():
    held = {c.case.kind for c in DeviceContract.__subclasses__()}
    ours = {name for name, device in known_devices().items() if type(device).__module__.startswith("testbed.devices.")}
    assert held >= ours


KIND = '''"""A kind of somebody else's: a host that tells the size of one file of its own."""

from testbed.devices.base import Reading
from testbed.devices.linux import ALL_KINDS, LinuxNode


class Beacon(LinuxNode):
    reads = ALL_KINDS | {"beacon.txt"}

    def readings(self, box, configs):
        state = configs.get("beacon.txt", b"").decode()
        return [*super().readings(box, configs), Reading("beacon", "n", "text", 1.0, cumulative=False, state=state)]


BEACON = Beacon()
'''
SUITE = """from pathlib import Path
from testbed.testing import Case, DeviceContract
from topologies.model import Node, Topology


def alone(folder: Path):
    (folder / "beacon.txt").write_text("one")
    return Topology("alone", (Node("n", "beacon", configs={"beacon.txt": folder / "beacon.txt"}),), ())


class TestBeacon(DeviceContract):
    case = Case("beacon", alone, "n", {"beacon.txt": b"two"})
"""


def test_a_third_party_s_kind_needs_no_file_of_ours(tmp_path):
    (tmp_path / "beacon_kind.py").write_text(KIND)
    (tmp_path / "test_beacon.py").write_text(SUITE)
    info = tmp_path / "beacon_kind-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beacon-kind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[testbed.devices]\nbeacon = beacon_kind:BEACON\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout
