"""Next hops by the node's own kernel: neighbours it looks up, and every way in which there is none."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from replay.packet_mode.plan import Hop, Way
from testbed.network.addressing import add_routes, set_addresses
from testbed.network.link import Port, Veth, set_mtu
from testbed.network.mininet_api import ShadowNet
from testbed.network.next_hop import ways
from testbed.sandbox import Sandbox
from tests.testbed.labs import node
from topologies.model import Interface

LONG = "GigabitEthernet0/0/0/1"
HOPS = {
    "neighbour": Hop("h1", "10.0.0.2"),
    "neighbour6": Hop("h1", "2001:db8::2"),
    "behind": Hop("h1", "192.0.2.9"),
    "behind6": Hop("h1", "2001:db8:9::9"),
    "dead": Hop("h1", "10.0.0.77"),
    "nowhere": Hop("h1", "203.0.113.1"),
    "hole": Hop("h1", "198.51.100.1"),
    "own": Hop("h1", "10.0.0.1"),
    "group": Hop("h1", "224.0.0.5", "10.0.0.1"),
    "group6": Hop("h1", "ff02::5", "2001:db8::1"),
    "everyone": Hop("h1", "255.255.255.255", "10.0.0.1"),
    "stranger": Hop("h1", "224.0.0.5", "10.9.9.9"),
    "wire": Hop("h1", "", interface=LONG),
    "no_wire": Hop("h1", "", interface="eth9"),
    "no_node": Hop("h9", "10.0.0.2"),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Way | str]:
    def job():
        net = ShadowNet()
        try:
            h1, h2 = (net.add(name, {}).namespace for name in ("h1", "h2"))
            net.connect([Veth(Port(h1, LONG, "02:00:00:00:00:01"), Port(h2, "eth0", "02:00:00:00:00:02"))])
            for number, (space, name) in enumerate(((h1, LONG), (h2, "eth0")), start=1):
                own = (ip_interface(f"10.0.0.{number}/24"), ip_interface(f"2001:db8::{number}/64"))
                set_addresses(space, [Interface(name, own)])
            set_mtu(Port(h1, LONG), 1_400)
            add_routes(
                h1, node("any", {}, routes={"192.0.2.0/24": "10.0.0.2", "2001:db8:9::/64": "2001:db8::2"}).routes
            )
            h1.run(["ip", "route", "add", "blackhole", "198.51.100.0/24"])
            # three tries of a tenth of a second: nobody waits for the dead
            h1.run(["ip", "ntable", "change", "name", "arp_cache", "dev", _device(h1), "retrans", "100"])
            told = ways({"h1": h1, "h2": h2}, list(HOPS.values()))
            return {name: told[hop] for name, hop in HOPS.items()}
        finally:
            net.close()

    return Sandbox("hops").call(job)


def _device(space) -> str:
    return next(link.get("ifname") for link in space.netlink.get_links() if link.get("ifname") != "lo")


@pytest.mark.parametrize("name", ["neighbour", "neighbour6", "behind", "behind6"])
def test_a_neighbour_is_looked_up_by_the_kernel_in_both_families(found, name):
    way = found[name]
    assert (way.source_mac.hex(), way.next_hop_mac.hex(), way.mtu_octets) == ("020000000001", "020000000002", 1_400)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dead", "nobody answers for 10.0.0.77"),
        ("nowhere", "h1 has no route to 203.0.113.1"),
        ("hole", "h1"),
        ("own", "10.0.0.1 is h1's own"),
        ("stranger", "no interface of h1 has the address 10.9.9.9"),
        ("no_wire", "h1 has no Ethernet interface 'eth9'"),
        ("no_node", "not in this shadow"),
    ],
)
def test_where_there_is_no_way_the_reason_is_told(found, name, words):
    assert isinstance(found[name], str)
    assert words in found[name]


def test_groups_have_macs_by_rule_and_a_wire_is_found_by_its_production_name(found):
    assert found["group"].next_hop_mac.hex() == "01005e000005"
    assert found["group6"].next_hop_mac.hex() == "333300000005"
    assert found["everyone"].next_hop_mac.hex() == "ffffffffffff"
    assert found["wire"].interface == found["neighbour"].interface
