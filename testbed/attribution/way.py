"""What a flow's packets look like on each stretch of its way: addresses and ports as NAT and proxies leave them.

Knows the files of packet filters and proxies, no counter and no change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.attribution.match import Leg, address, matches
from testbed.devices import nft_text
from testbed.devices.packet_filter import FAMILIES, parse_rules
from topologies.model import IpAddress, Node

TRANSIT = frozenset({"router", "bridge"})
"""Kinds that rewrite no address, so that theirs never stand in a flow's packets."""

PROXY_FILE = "haproxy.cfg"
_VERSIONS = {"iptables.rules": 4, "ip6tables.rules": 6}
_SERVER = re.compile(r"^\s*server\s+\S+\s+\[?([0-9A-Fa-f.:]+?)\]?:(\d+)\b", re.MULTILINE)
_TO_PORT = re.compile(
    r"--to-destination (?:\[[^\]]*\]|[\d.-]+):(\d{1,5})(-\d+)?"
    r"|--to-ports? (\d{1,5})(-\d+)?"
    r"|\bdnat (?:ip6? )?to (?:\[[^\]]*\]|[\d.-]+) ?: ?(\d{1,5})(-\d+)?"
    r"|\bredirect to ?: ?(\d{1,5})(-\d+)?"
)
_BY_MAP = re.compile(r"\b(?:dnat|redirect)\b.*\bto\b.*\bmap\b")
_TURNS = re.compile(r"-j (?:DNAT|REDIRECT)\b|\b(?:dnat|redirect)\b")
_FROM_ANY_PORT = re.compile(r"(?:SNAT|MASQUERADE|snat|masquerade)\b.*(?:--to-ports|:\d+|random)")


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A rule that gives packets another port: which, or None where a map or a range decides."""

    version: int | None
    text: str
    port: int | None
    from_any_port: bool = False


@dataclass(frozen=True, slots=True)
class Stretches:
    """A flow's packets from stretch to stretch, and the ports by which it comes to its server or proxy."""

    legs: tuple[tuple[frozenset[str], Leg], ...]
    doors: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class Ways:
    """What every node does to packets, by its files before a change or after it."""

    nodes: Mapping[str, Node]
    rewritings: Mapping[str, Sequence[Rewriting]]
    servers: Mapping[str, Sequence[tuple[IpAddress | None, int]]]

    @classmethod
    def of(cls, nodes: Iterable[Node], files: Mapping[tuple[str, str], str]) -> Ways:
        """From the texts of files by node and name."""
        own = {node.name: node for node in nodes}
        texts: dict[str, dict[str, str]] = {}
        for (name, file), text in files.items():
            texts.setdefault(name, {})[file] = text
        rewritings = {name: found for name in own if (found := rewritten(texts.get(name, {})))}
        servers = {
            name: [(address(at), int(port)) for at, port in _SERVER.findall(told[PROXY_FILE])]
            for name, told in texts.items()
            if PROXY_FILE in told
        }
        return cls(own, rewritings, servers)

    def legs(self, first: Leg, path: Sequence[str]) -> Stretches:
        """Packets are rewritten by NAT between the ends of a leg, and made anew by a proxy on the way."""
        at = next((i for i, n in enumerate(path[:-1]) if i and n in self.servers), len(path) - 1)
        translators = {a for n in path[1:at] if self.nodes[n].kind not in TRANSIT for a in own_addresses(self.nodes[n])}
        end = own_addresses(self.nodes[path[at]])
        near = replace(
            first,
            sources=first.sources | _of(first.version, translators),
            destinations=first.destinations | _of(first.version, end),
        )
        legs: list[tuple[frozenset[str], Leg]] = []
        begun = 0
        for place in range(at + 1):
            turned = self._turned(path[place], near)
            if turned != near:
                legs.append((frozenset(path[begun : place + 1]), near))
                begun, near = place, turned
        legs.append((frozenset(path[begun : at + 1]), near))
        if at < len(path) - 1:
            legs += self._beyond(first, path, at)
        return Stretches(tuple(legs), near.ports)

    def _turned(self, node: str, leg: Leg) -> Leg:
        """The leg behind a node, by the first rule of its that gives these packets a port."""
        for one in self.rewritings.get(node, ()):
            if one.version not in (None, leg.version) or not matches(one.text, leg):
                continue
            if one.from_any_port:
                leg = replace(leg, source_port=None)
            else:
                return replace(leg, ports=None if one.port is None else frozenset({one.port}))
        return leg

    def _beyond(self, first: Leg, path: Sequence[str], at: int) -> list[tuple[frozenset[str], Leg]]:
        """From a proxy to its server, which may speak the other IP version."""
        end, server = own_addresses(self.nodes[path[at]]), own_addresses(self.nodes[path[-1]])
        listed = self.servers[path[at]]
        ports = frozenset(port for own, port in listed if own in server)
        spoken = {int(own.version) for own, _ in listed if own is not None and own in server}
        legs = []
        for version in sorted(spoken or {first.version}):
            sides = _of(version, end), _of(version, server)
            far = Leg(version, first.protocol, *sides, source_port=None, ports=ports or None)
            legs.append((frozenset(path[at:]), far))
        return legs


def rewritten(texts: Mapping[str, str]) -> list[Rewriting]:
    """The port translations in the packet filter files of one node, in order; any text at all gives some or none."""
    found = []
    for file in FAMILIES:
        rules = [rule.text for rule in parse_rules(texts.get(file, "")) if rule.table == "nat"]
        found += [one for text in rules if (one := _rewriting(_VERSIONS[file], text)) is not None]
    for written in nft_text.written_rules(texts):
        family = {"ip": 4, "ip6": 6}.get(written.rule.table.split("/")[0])
        one = _rewriting(family, written.rule.text)
        found += [one] if one is not None else []
    return found


def _rewriting(version: int | None, text: str) -> Rewriting | None:
    if _TURNS.search(text):
        if _BY_MAP.search(text):
            return Rewriting(version, text, None)
        told = _TO_PORT.search(text)
        if told is None:
            return None
        groups = told.groups()
        port = next(int(groups[n]) for n in range(0, len(groups), 2) if groups[n])
        ranged = any(groups[n] for n in range(1, len(groups), 2))
        return Rewriting(version, text, None if ranged or port > 65_535 else port)
    return Rewriting(version, text, None, from_any_port=True) if _FROM_ANY_PORT.search(text) else None


def _of(version: int, addresses: Iterable[IpAddress]) -> frozenset[IpAddress]:
    return frozenset(a for a in addresses if a.version == version)


def own_addresses(node: Node) -> frozenset[IpAddress]:
    """The addresses of a node's interfaces."""
    return frozenset(a.ip for interface in node.interfaces for a in interface.addresses)
