"""The way of a flow, told from the tables that the nodes have."""

from __future__ import annotations

import pytest

from testbed.devices.base import Reading
from testbed.paths import HOPS, Atlas, flow_path, joined
from tests.testbed.labs import link, node, topology

NET = topology(
    [
        node("edge", {"eth0": ["203.0.113.1/24"]}, "edge", prefixes=["198.51.100.0/24"]),
        node("fw", {"out": ["203.0.113.2/24"], "in": ["10.0.0.1/30"]}, "firewall"),
        node("sw", {"p1": [], "p2": [], "p3": []}, "bridge"),
        node("r", {"up": ["10.0.0.2/30"], "lan": ["10.1.0.1/24", "2001:db8:1::1/64"]}, "router"),
        node("lb", {"eth0": ["10.1.0.10/24"]}, "loadbalancer"),
        node("web", {"eth0": ["10.1.0.11/24", "2001:db8:1::11/64"]}),
    ],
    [
        link("edge:eth0", "fw:out"),
        link("fw:in", "r:up"),
        link("r:lan", "sw:p1"),
        link("sw:p2", "lb:eth0"),
        link("sw:p3", "web:eth0"),
    ],
)
TABLES = {
    "edge": {"203.0.113.0/24": "direct@eth0", "10.0.0.0/8": "203.0.113.2@eth0"},
    "fw": {"10.0.0.0/30": "direct@in", "10.1.0.0/24": "10.0.0.2@in", "0.0.0.0/0": "203.0.113.1@out"},
    "r": {"10.0.0.0/30": "direct@up", "10.1.0.0/24": "direct@lan", "0.0.0.0/0": "10.0.0.1@up"},
    "lb": {"10.1.0.0/24": "direct@eth0", "0.0.0.0/0": "10.1.0.1@eth0"},
    "web": {"10.1.0.0/24": "direct@eth0", "0.0.0.0/0": "10.1.0.1@eth0", "::/0": "2001:db8:1::1@eth0"},
}


def atlas(**changed: dict[str, str]) -> Atlas:
    tables = {name: {**routes, **changed.get(name, {})} for name, routes in TABLES.items()}
    return Atlas.of(
        NET,
        {
            name: [Reading("route", p, "via", 1.0, cumulative=False, state=way) for p, way in routes.items()]
            for name, routes in tables.items()
        },
    )


def untranslated(node_name: str, address: str, port: int, protocol: int) -> None:
    """No node translates."""


def test_a_way_goes_from_hop_to_hop_and_through_bridges():
    assert atlas().way("edge", "10.1.0.11") == ("edge", "fw", "r", "sw", "web")


def test_a_way_to_an_address_behind_a_prefix_ends_at_who_answers_for_it():
    assert atlas().way("web", "198.51.100.7") == ("web", "sw", "r", "fw", "edge")


def test_a_way_to_oneself_is_one_name():
    assert atlas().way("web", "10.1.0.11") == ("web",)


def test_the_longest_prefix_decides():
    assert atlas(fw={"10.1.0.11/32": "203.0.113.1@out"}).way("fw", "10.1.0.10")[1] == "r"
    assert atlas(fw={"10.1.0.11/32": "203.0.113.1@out"}).way("fw", "10.1.0.11")[1] == "edge"


@pytest.mark.parametrize("end", ["blackhole", "unreachable", "prohibit", "throw"])
def test_a_route_may_end_the_way(end):
    assert atlas(r={"10.1.0.11/32": end}).way("edge", "10.1.0.11") == ("edge", "fw", "r", end)


def test_where_no_route_is_the_way_is_lost():
    assert atlas().way("edge", "192.0.2.1") == ("edge", "?")
    assert atlas().way("edge", "2001:db8:1::11") == ("edge", "?")
    assert atlas(fw={"10.1.0.0/24": "10.0.0.2@gone"}).way("edge", "10.1.0.11") == ("edge", "fw", "?")


def test_a_loop_ends():
    looped = atlas(r={"10.1.0.0/24": "10.0.0.1@up"}).way("edge", "10.1.0.11")
    assert HOPS < len(looped) < HOPS + 4


def test_of_several_next_hops_the_first_is_told():
    assert atlas(fw={"10.1.0.0/24": "10.0.0.2@in,203.0.113.1@out"}).way("fw", "10.1.0.11")[1] == "r"


def test_pieces_are_joined_without_saying_a_name_twice():
    assert joined([("a", "b"), ("b", "c"), (), ("d",)]) == "a>b>c>d"


def test_a_flow_goes_on_where_it_is_translated_to_and_from_the_proxy_to_its_server():
    def translate(node_name, address, port, protocol):
        return "10.1.0.10" if (node_name, address) == ("fw", "203.0.113.2") else None

    path = flow_path(atlas(), "edge", ("203.0.113.2", 80), 6, translate, "web")
    assert path == "edge>fw>r>sw>lb>sw>web"


@pytest.mark.parametrize("end", ["blackhole", "unreachable", "prohibit", "throw"])
def test_a_flow_that_is_lost_does_not_go_on_to_its_server(end):
    lost = atlas(r={"10.1.0.10/32": end})
    assert flow_path(lost, "edge", ("10.1.0.10", 80), 6, untranslated, "web") == f"edge>fw>r>{end}"


def test_a_server_without_an_address_of_the_family_is_still_named():
    assert flow_path(atlas(), "web", ("2001:db8:1::1", 80), 6, untranslated, "lb") == "web>sw>r>lb"
