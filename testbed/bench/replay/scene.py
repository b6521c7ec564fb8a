"""The network that contenders play in: an edge, a router, a stateful firewall, a host, in a sandbox of its own.

It knows no contender.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from testbed.devices.registry import known_devices
from testbed.shadow import built
from topologies.model import Interface, Link, LinkEnd, Node, Route, Topology

CLIENT, SERVER = "outside", "server"
RULES = Path(__file__).with_name("static") / "iptables.rules"
READY_SECONDS = 30.0
_ANYWHERE = ip_network("0.0.0.0/0")
_OUTSIDE = ip_network("198.51.100.0/24")


def topology() -> Topology:
    """outside (198.51.100.0/24) -- r1 -- fw1 -- server (10.9.0.2)."""
    outside = Node(
        CLIENT,
        "edge",
        (Interface("eth0", (ip_interface("203.0.113.1/30"),)),),
        (Route(_ANYWHERE, ip_address("203.0.113.2")),),
        (_OUTSIDE,),
    )
    r1 = Node(
        "r1",
        "router",
        tuple(Interface(n, (ip_interface(a),)) for n, a in (("up", "203.0.113.2/30"), ("down", "10.9.1.1/30"))),
        (Route(_OUTSIDE, ip_address("203.0.113.1")), Route(ip_network("10.9.0.0/24"), ip_address("10.9.1.2"))),
    )
    fw1 = Node(
        "fw1",
        "firewall",
        tuple(Interface(n, (ip_interface(a),)) for n, a in (("up", "10.9.1.2/30"), ("down", "10.9.0.1/24"))),
        (Route(_ANYWHERE, ip_address("10.9.1.1")),),
        configs={"iptables.rules": RULES},
    )
    server = Node(
        SERVER,
        "host",
        (Interface("eth0", (ip_interface("10.9.0.2/24"),)),),
        (Route(_ANYWHERE, ip_address("10.9.0.1")),),
    )
    cables = ((CLIENT, "eth0", "r1", "up"), ("r1", "down", "fw1", "up"), ("fw1", "down", SERVER, "eth0"))
    links = tuple(Link(LinkEnd(a, b), LinkEnd(c, d)) for a, b, c, d in cables)
    return Topology("bench", (outside, r1, fw1, server), links)


@contextmanager
def scene() -> Iterator[dict[str, int]]:
    """Build the network (call it inside a sandbox); gives the end points' namespaces by node."""
    with tempfile.TemporaryDirectory() as logs, built(topology(), known_devices(), Path(logs)) as shadow:
        shadow.wait_ready(READY_SECONDS, lambda _reason: None)
        spaces = shadow.namespaces()
        yield {node: spaces[node] for node in (CLIENT, SERVER)}
