"""The network that builders are compared on: nodes in a row, every link with addresses, a route and a rate both ways.

Pure.  It knows no builder.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, ip_network

from topologies.model import Impairment, Interface, Link, LinkEnd, Node, Route, Topology

RATE_BPS = 100_000_000
BEFORE, AFTER = "eth0", "eth1"
"""The interface towards the previous node of the row, and the one towards the next."""

_DEFAULT = ip_network("0.0.0.0/0")
_FIRST = int(IPv4Address("10.0.0.0"))


@dataclass(frozen=True, slots=True)
class Cable:
    """The link after node `number`, a /30 of its own."""

    number: int

    @property
    def near(self) -> IPv4Interface:
        """The address of the node before the cable."""
        return IPv4Interface((_FIRST + 4 * self.number + 1, 30))

    @property
    def far(self) -> IPv4Interface:
        """The address of the node behind it."""
        return IPv4Interface((_FIRST + 4 * self.number + 2, 30))


def name(number: int) -> str:
    """The name of a node."""
    return f"n{number}"


def chain(nodes: int) -> Topology:
    """A row of hosts; every one but the first has a default route to the one before."""
    egress = Impairment(rate_bps=RATE_BPS)
    return Topology(
        "chain",
        tuple(_node(number, nodes) for number in range(nodes)),
        tuple(Link(LinkEnd(name(n), AFTER, egress), LinkEnd(name(n + 1), BEFORE, egress)) for n in range(nodes - 1)),
    )


def _node(number: int, nodes: int) -> Node:
    before = [Interface(BEFORE, (Cable(number - 1).far,))] if number else []
    after = [Interface(AFTER, (Cable(number).near,))] if number < nodes - 1 else []
    routes = (Route(_DEFAULT, Cable(number - 1).near.ip),) if number else ()
    return Node(name(number), "host", (*before, *after), routes)
