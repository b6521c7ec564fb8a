"""The nouns of a network that should exist: nodes, interfaces, links and their impairments.

Frozen and equal by value. This file may not know where a topology was read from, nor how it is made real.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Literal, TypeAlias

IpAddress: TypeAlias = IPv4Address | IPv6Address
IpInterface: TypeAlias = IPv4Interface | IPv6Interface
IpNetwork: TypeAlias = IPv4Network | IPv6Network

DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class Interface:
    """A node's port under production's own name, with its addresses and, when it matters, its MAC.

    At a switch `vlan` is the VLAN of untagged frames and `trunk` those that pass tagged (IEEE 802.1Q).  `vrf` is the
    routing domain that it belongs to, the node's own when None.
    """

    name: str
    addresses: tuple[IpInterface, ...] = ()
    mac: str | None = None
    vlan: int | None = None
    trunk: tuple[int, ...] = ()
    vrf: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A static route that the lab, not a daemon, gives to a node."""

    to: IpNetwork
    via: IpAddress


@dataclass(frozen=True, slots=True)
class Service:
    """A port on which a node answers although no captured daemon of its own runs there."""

    protocol: Literal["tcp", "udp"]
    port: int


@dataclass(frozen=True, slots=True)
class Impairment:
    """What one direction of a link does to packets; the default does nothing (None: unlimited)."""

    rate_bps: int | None = None
    delay_ns: int = 0
    pdv_ns: int = 0
    loss_ratio: float = 0.0
    duplicate_ratio: float = 0.0
    reorder_ratio: float = 0.0
    corrupt_ratio: float = 0.0
    queue_octets: int | None = None


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end of a link; `egress` is what happens to packets that leave this end."""

    node: str
    interface: str
    egress: Impairment = Impairment()


@dataclass(frozen=True, slots=True)
class Link:
    """A point-to-point wire between two interfaces; `mtu` in octets holds for both ends."""

    a: LinkEnd
    b: LinkEnd
    mtu: int = DEFAULT_MTU


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the network; `prefixes` are whole networks it answers for (AnyIP), `configs` its files by name.

    A config named `files/etc/motd` lies at /etc/motd inside the node.  `programs` run in the foreground as long as the
    node lives, `commands` once when it is up; neither passes a shell.  `stp` is a switch's spanning tree.
    `tags` are words of the user's own, by which a policy may ask for the node.
    """

    name: str
    kind: str
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    prefixes: tuple[IpNetwork, ...] = ()
    listen: tuple[Service, ...] = ()
    configs: Mapping[str, Path] = field(default_factory=dict, hash=False)
    programs: tuple[tuple[str, ...], ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    stp: bool = False
    tags: tuple[str, ...] = ()

    def interface(self, name: str) -> Interface:
        """The interface of that name; KeyError when this node has none."""
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        raise KeyError(f"{self.name}:{name}")


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole network; what loads one has already checked that every reference in it resolves."""

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    def node(self, name: str) -> Node:
        """The node of that name; KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def owner(self, address: IpAddress | str) -> Node | None:
        """The node that answers for an address, so that a captured end point finds its place.

        An interface address wins over any AnyIP prefix, and the longest prefix over the others.
        ValueError when text is not an address.
        """
        wanted = _address(address)
        for node in self.nodes:
            for interface in node.interfaces:
                if any(wanted == own.ip for own in interface.addresses):
                    return node
        best: Node | None = None
        longest = -1
        for node in self.nodes:
            for prefix in node.prefixes:
                if prefix.version == wanted.version and wanted in prefix and prefix.prefixlen > longest:
                    best, longest = node, prefix.prefixlen
        return best

    def link_between(self, a: str, b: str) -> Link | None:
        """The first link that joins two nodes, given in either order."""
        for link in self.links:
            if {link.a.node, link.b.node} == {a, b}:
                return link
        return None

    def link_at(self, node: str, interface: str) -> Link | None:
        """The link plugged into an interface; at most one exists."""
        for link in self.links:
            if (node, interface) in ((link.a.node, link.a.interface), (link.b.node, link.b.interface)):
                return link
        return None


def _address(address: IpAddress | str) -> IpAddress:
    if not isinstance(address, str):
        return address
    return IPv6Address(address) if ":" in address else IPv4Address(address)
