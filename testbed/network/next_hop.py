"""Which interface, MACs and MTU lead from a node to an address: asked of the node's own kernel, neighbours included.

It knows no flow.  A neighbour that the kernel does not know yet is looked up by it (ARP, neighbour discovery), so that
what is sent past its network stack takes the same way as what is sent through it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from replay.packet_mode.plan import Hop, Way
from testbed.network.link import kernel_name
from testbed.network.namespace import Namespace

LOOKUP_SECONDS = 3.5
"""A little more than the kernel's own three tries, a second apart."""

_POLL_SECONDS = 0.005
_NO_NODE = "the node is not in this shadow"
_USE = 0x01
_NONE = 0x00
_KNOWN = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
"""Reachable, stale, delay, probe, noarp, permanent: states in which a neighbour's MAC is known (linux/neighbour.h)."""

_FAILED = 0x20
_LOCAL, _UNICAST = 2, 1
_UNREACHABLE_TYPES = {6: "a black hole", 7: "unreachable", 8: "prohibited"}
_BROADCAST_MAC = b"\xff" * 6


@dataclass(slots=True)
class _Interface:
    index: int
    name: str
    mac: bytes
    mtu_octets: int
    has_neighbours: bool


@dataclass(slots=True)
class _Wanted:
    hop: Hop
    interface: _Interface
    gateway: str


def ways(namespaces: Mapping[str, Namespace], hops: Sequence[Hop]) -> dict[Hop, Way | str]:
    """The way of every hop, or why there is none; neighbours of all nodes are looked up at the same time."""
    found: dict[Hop, Way | str] = {}
    for node in dict.fromkeys(hop.node for hop in hops):
        mine = [hop for hop in hops if hop.node == node]
        if node in namespaces:
            found.update(_ways(namespaces[node], mine))
        else:
            found.update(dict.fromkeys(mine, _NO_NODE))
    return found


def _ways(namespace: Namespace, hops: Sequence[Hop]) -> dict[Hop, Way | str]:
    interfaces = _interfaces(namespace)
    found: dict[Hop, Way | str] = {}
    wanted: list[_Wanted] = []
    for hop in hops:
        if hop.interface:
            found[hop] = _by_name(interfaces, namespace.name, hop.interface)
            continue
        step = _route(namespace, interfaces, hop)
        if isinstance(step, str):
            found[hop] = step
        elif not step.interface.has_neighbours:
            found[hop] = f"{namespace.name} sends to {hop.destination} over an interface without link layer"
        elif (group := _group_mac(step.gateway)) is not None:
            found[hop] = _way(step.interface, group)
        else:
            wanted.append(step)
    found.update(_resolved(namespace, wanted))
    return found


def _interfaces(namespace: Namespace) -> dict[int, _Interface]:
    links = {}
    for link in namespace.netlink.get_links():
        mac = link.get("address") or ""
        no_arp = bool(link["flags"] & 0x80)
        ethernet = link["ifi_type"] == 1 and len(mac) == 17
        octets = bytes.fromhex(mac.replace(":", "")) if ethernet else b""
        name = link.get("ifname")
        links[link["index"]] = _Interface(link["index"], name, octets, link.get("mtu"), ethernet and not no_arp)
    return links


def _by_name(interfaces: Mapping[int, _Interface], node: str, name: str) -> Way | str:
    found = next((one for one in interfaces.values() if one.name == kernel_name(name)), None)
    return _way(found, b"") if found and found.mac else f"{node} has no Ethernet interface {name!r}"


def _route(namespace: Namespace, interfaces: Mapping[int, _Interface], hop: Hop) -> _Wanted | str:
    """The interface and the neighbour of a hop, as the kernel routes it."""
    if hop.source:
        index = _interface_of(namespace, hop.source)
        if index in interfaces:
            return _Wanted(hop, interfaces[index], hop.destination)
        return f"no interface of {namespace.name} has the address {hop.source}, so the wire is unknown"
    family = socket.AF_INET6 if ":" in hop.destination else socket.AF_INET
    try:
        route = namespace.netlink.route("get", dst=hop.destination, family=family)[0]
    except NetlinkError as refusal:
        return f"{namespace.name} has no route to {hop.destination} ({refusal.args[-1]})"
    if route["type"] == _LOCAL:
        return f"{hop.destination} is {namespace.name}'s own"
    if route["type"] != _UNICAST:
        kind = _UNREACHABLE_TYPES.get(route["type"], f"of type {route['type']}")
        return f"the route of {namespace.name} to {hop.destination} is {kind}"
    via = route.get("RTA_VIA")
    gateway = route.get("RTA_GATEWAY") or (via["addr"] if via else hop.destination)
    return _Wanted(hop, interfaces[route.get("RTA_OIF")], gateway)


def _interface_of(namespace: Namespace, address: str) -> int:
    for held in namespace.netlink.get_addr():
        if ip_address(held.get("IFA_ADDRESS").split("%")[0]) == ip_address(address):
            return int(held["index"])
    return -1


def _resolved(namespace: Namespace, wanted: Sequence[_Wanted]) -> dict[Hop, Way | str]:
    """Let the kernel look neighbours up, all at once, and wait for what it finds."""
    keys = {(step.interface.index, ip_address(step.gateway)) for step in wanted}
    known = _neighbours(namespace)
    for index, address in keys - known.keys():
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        namespace.netlink.neigh("replace", dst=str(address), ifindex=index, family=family, flags=_USE, state=_NONE)
    deadline = time.monotonic() + LOOKUP_SECONDS
    failed: set[Any] = set()
    while keys - known.keys() - failed and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        known = _neighbours(namespace, failed)
    found: dict[Hop, Way | str] = {}
    for step in wanted:
        mac = known.get((step.interface.index, ip_address(step.gateway)))
        found[step.hop] = (
            _way(step.interface, mac)
            if mac is not None
            else f"nobody answers for {step.gateway}, the next hop from {namespace.name} to {step.hop.destination}"
        )
    return found


def _neighbours(namespace: Namespace, failed: set[Any] | None = None) -> dict[Any, bytes]:
    known = {}
    for entry in namespace.netlink.get_neighbours():
        key = (entry["ifindex"], ip_address(entry.get("NDA_DST").split("%")[0])) if entry.get("NDA_DST") else None
        mac = entry.get("NDA_LLADDR")
        if key is None:
            continue
        if entry["state"] & _KNOWN and mac:
            known[key] = bytes.fromhex(mac.replace(":", ""))
        elif entry["state"] & _FAILED and failed is not None:
            failed.add(key)
    return known


def _way(interface: _Interface, mac: bytes) -> Way:
    return Way(interface.index, interface.mac, mac, interface.mtu_octets)


def _group_mac(address: str) -> bytes | None:
    """The MAC of a multicast or broadcast address (RFC 1112, RFC 2464), None for one neighbour's."""
    parsed = ip_address(address)
    if address == "255.255.255.255":
        return _BROADCAST_MAC
    if not parsed.is_multicast:
        return None
    if parsed.version == 6:
        return b"\x33\x33" + parsed.packed[-4:]
    return b"\x01\x00\x5e" + bytes((parsed.packed[1] & 0x7F,)) + parsed.packed[2:]
