"""Where probes may come from and go to: the sides of a network, its addresses, its services, its translations.

Pure.  Knows the topology and the texts of configuration files, no change and no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

import pandas as pd

from testbed.attribution.match import SERVICES, address, options
from testbed.devices import nft_text
from testbed.devices.base import Configs
from testbed.devices.packet_filter import FAMILIES, Rule, parse_rules
from testbed.placement import END_POINTS, PROTOCOLS
from topologies.model import IpAddress, IpNetwork, Node, Topology

Service = tuple[IpAddress, int, int]
"""(address, protocol, port)"""

_PLACE_IN_PREFIX = 10
_EVERYWHERE = {4: ip_network("192.0.2.0/24"), 6: ip_network("2001:db8::/32")}
"""Somebody outside, where a prefix is the whole Internet (RFC 5737, RFC 3849)."""

_BIND = re.compile(r"^\s*bind\s+(\S+)")
_PORT_AT_END = re.compile(r"^(.*):(\d+)(?:-(\d+))?$")
_NFT_DNAT = re.compile(r"\bdnat(?:\s+(?:ip6?|inet))?\s+to\s+(\S+)")
_TO_DESTINATION = ("--to-destination", "--to-ports")


@dataclass(frozen=True, slots=True)
class Zone:
    """A side of the network from which flows may come, with the node that speaks for it."""

    network: IpNetwork
    node: str

    @property
    def name(self) -> str:
        """`198.51.100.0/24 (internet)`."""
        return f"{self.network} ({self.node})"


@dataclass(frozen=True, slots=True)
class Translation:
    """A rule that gives packets to one of `originals` (None: any address of the node) another destination."""

    node: str
    originals: tuple[IpNetwork, ...] | None
    ports: tuple[tuple[int, int], ...] | None
    protocol: int
    to: IpAddress
    to_port: int | None


@dataclass(frozen=True, slots=True)
class Places:
    """A topology as the maker of probes sees it."""

    topology: Topology
    zones: tuple[Zone, ...]
    seen: Mapping[IpNetwork, IpAddress]
    services: tuple[Service, ...]
    translations: tuple[Translation, ...]
    _owners: dict[IpAddress, Node | None] = field(default_factory=dict, compare=False)
    _ports: dict[tuple[IpAddress, int], list[int]] = field(default_factory=dict, compare=False)
    _sources: dict[tuple[Zone, tuple[IpNetwork, ...]], IpAddress | None] = field(default_factory=dict, compare=False)

    def owner(self, one: IpAddress) -> Node | None:
        """The node that answers for an address; asked often, so that it is remembered."""
        if one not in self._owners:
            self._owners[one] = self.topology.owner(one)
        return self._owners[one]

    def ports(self, to: IpAddress, protocol: int) -> Sequence[int]:
        """The ports of the known services of an address."""
        if not self._ports:
            for own, number, port in self.services:
                self._ports.setdefault((own, number), []).append(port)
        return self._ports.get((to, protocol), ())

    def source(self, zone: Zone, wanted: Sequence[IpNetwork]) -> IpAddress | None:
        """An address of the zone, among those wanted (all, when none is named), that its node answers for."""
        key = (zone, tuple(wanted))
        if key not in self._sources:
            self._sources[key] = self._source(zone, wanted)
        return self._sources[key]

    def _source(self, zone: Zone, wanted: Sequence[IpNetwork]) -> IpAddress | None:
        if not wanted:
            return self.seen.get(zone.network) or self._pick(zone.network, zone.node)
        for network in wanted:
            if network.version != zone.network.version:
                continue
            inside = zone.network if zone.network.subnet_of(network) else network  # type: ignore[arg-type]
            if inside.subnet_of(zone.network):  # type: ignore[arg-type]
                seen = self.seen.get(zone.network)
                if seen is not None and seen in inside:
                    return seen
                return self._pick(inside, zone.node)
        return None

    def addresses(self, kinds: Iterable[str]) -> list[tuple[IpAddress, Node]]:
        """Every interface address of the nodes of these kinds, link-local ones apart."""
        wanted = frozenset(kinds)
        return [
            (own.ip, node)
            for node in self.topology.nodes
            if node.kind in wanted
            for interface in node.interfaces
            for own in interface.addresses
            if not (own.ip.is_link_local or own.ip.is_loopback)
        ]

    def inside(self, network: IpNetwork) -> IpAddress | None:
        """An address of a network for which some end point answers."""
        owned = [a for a, _ in self.addresses(END_POINTS) if a.version == network.version and a in network]
        if owned:
            return owned[0]
        pick = _nth(network)
        owner = self.owner(pick)
        return pick if owner is not None and owner.kind in END_POINTS else None

    def _pick(self, network: IpNetwork, node: str) -> IpAddress | None:
        """Somebody in the network: an address of the node's own, or a place in the prefix that it stands for."""
        owner = self.topology.node(node)
        own = [a.ip for i in owner.interfaces for a in i.addresses]
        for ip in own:
            if ip.version == network.version and ip in network:
                return ip
        pick = _nth(network)
        found = self.owner(pick)
        return pick if found is not None and found.kind in END_POINTS else None


def places(topology: Topology, configs: Mapping[str, Configs], flows: pd.DataFrame) -> Places:
    """What a topology offers, with the services that it declares, that flows used and that proxies bind."""
    zones = _zones(topology)
    sources = [a for text in dict.fromkeys(flows["source_address"].tolist()) if (a := address(text)) is not None]
    seen: dict[IpNetwork, IpAddress] = {}
    for zone in zones:
        for source in sources:
            owner = topology.owner(source) if source.version == zone.network.version else None
            if owner is not None and owner.name == zone.node and source in zone.network:
                seen.setdefault(zone.network, source)
    return Places(
        topology, zones, seen, tuple(_services(topology, configs, flows)), tuple(translations(topology, configs))
    )


def translations(topology: Topology, configs: Mapping[str, Configs]) -> list[Translation]:
    """Every destination translation of every node's packet filter, in order."""
    found = []
    for node in topology.nodes:
        for _, rule in packet_rules(configs.get(node.name, {})):
            found += translated_by(node.name, rule)
    return found


def packet_rules(files: Configs) -> list[tuple[str, Rule]]:
    """The rules of a node's packet filters with the files that they stand in."""
    texts = {name: content.decode(errors="replace") for name, content in files.items()}
    rules = [(file, rule) for file in FAMILIES for rule in parse_rules(texts.get(file, ""))]
    if nft_text.FILE in texts:
        rules += [(written.file, written.rule) for written in nft_text.written_rules(texts)]
    return rules


def translated_by(node: str, rule: Rule) -> list[Translation]:
    """What a rule translates, by protocol; nothing for most rules and for what is not understood."""
    named = {o.name: o for o in options(rule.text)}
    target = next((named[n].arguments[0] for n in _TO_DESTINATION if n in named and named[n].arguments), "")
    if not target and (nft := _NFT_DNAT.search(rule.text)):
        target = nft[1]
    host, port = split_target(target)
    to = address(host)
    if to is None:
        return []
    wanted = named.get("-d")
    originals = None if wanted is None or wanted.negated else tuple(networks(",".join(wanted.arguments)))
    ports = port_ranges(rule.text)
    return [Translation(node, originals, ports, protocol, to, port) for protocol in protocols(rule.text)]


def split_target(text: str) -> tuple[str, int | None]:
    """`10.0.0.1:8080`, `[2001:db8::1]:80`, `10.0.0.1-10.0.0.9:80-90`: the first address, and the first port if any."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
    elif text.count(":") == 1:
        host, _, rest = text.partition(":")
    else:
        host, rest = text, ""
    first = rest.lstrip(":").split("-")[0]
    return host.split("-")[0], int(first) if first.isdecimal() and len(first) <= 5 else None


def networks(text: str) -> list[IpNetwork]:
    """The networks of a list with commas; what is none is left out."""
    found = []
    for part in text.split(","):
        try:
            found.append(ip_network(part.strip(), strict=False))
        except ValueError:
            continue
    return found


def protocols(text: str) -> tuple[int, ...]:
    """The protocols with ports that a rule's text lets match: TCP, UDP, or both where it names none."""
    named = [o for o in options(text) if o.name == "-p" and not o.negated]
    if not named:
        return tuple(PROTOCOLS.values())
    words = {part.lower() for o in named for a in o.arguments for part in a.split(",")}
    wanted = {number for name, number in PROTOCOLS.items() if name in words or str(number) in words}
    return tuple(sorted(wanted)) if not words & {"all", "any", "0"} else tuple(PROTOCOLS.values())


def port_ranges(text: str) -> tuple[tuple[int, int], ...] | None:
    """The destination ports that a rule's text names, as ranges with both ends; None where it names none."""
    named = [o for o in options(text) if o.name in ("--dport", "--dports", "--ports") and not o.negated]
    if not named:
        return None
    ranges = []
    for part in (p for o in named for a in o.arguments for p in a.split(",")):
        low, colon, high = part.partition(":")
        first, last = _port(low, 0), _port(high, 65_535) if colon else _port(low, 0)
        if first is not None and last is not None and first <= last:
            ranges.append((first, last))
    return tuple(ranges)


def binds(files: Configs) -> list[tuple[int, str, int, int]]:
    """Line, address ("" for all of them) and port range of every `bind` of haproxy.cfg."""
    found = []
    for number, line in enumerate(files.get("haproxy.cfg", b"").decode(errors="replace").splitlines(), start=1):
        bind = _BIND.match(line)
        for part in bind[1].split(",") if bind else ():
            place = _PORT_AT_END.match(part)
            if place is None or len(place[2]) > 5 or len(place[3] or "") > 5:
                continue
            host = place[1].removeprefix("ipv4@").removeprefix("ipv6@").strip("[]")
            low, high = int(place[2]), int(place[3] or place[2])
            found.append((number, "" if host in ("", "*", "::", "0.0.0.0") else host, low, high))
    return found


def _port(text: str, default: int) -> int | None:
    if not text:
        return default
    number = int(text) if text.isdecimal() and len(text) <= 5 else SERVICES.get(text)
    return number if number is not None and number <= 65_535 else None


def _zones(topology: Topology) -> tuple[Zone, ...]:
    found: dict[IpNetwork, Zone] = {}
    for node in topology.nodes:
        if node.kind not in END_POINTS:
            continue
        own = [a.network for i in node.interfaces for a in i.addresses if not (a.is_link_local or a.is_loopback)]
        for network in (*node.prefixes, *own):
            found.setdefault(network, Zone(network, node.name))
    return tuple(found.values())


def _services(topology: Topology, configs: Mapping[str, Configs], flows: pd.DataFrame) -> list[Service]:
    found: dict[Service, None] = {}
    accepted = flows[flows["outcome"] == "accepted"]
    columns = (accepted[c].tolist() for c in ("destination_address", "protocol", "destination_port"))
    for text, protocol, port in zip(*columns, strict=True):
        to = address(text)
        if to is not None and protocol in PROTOCOLS.values() and port:
            found[to, int(protocol), int(port)] = None
    for node in topology.nodes:
        own = [a.ip for i in node.interfaces for a in i.addresses if not (a.is_link_local or a.is_loopback)]
        for service in node.listen:
            found.update(dict.fromkeys((ip, PROTOCOLS[service.protocol], service.port) for ip in own))
        for _, host, low, _high in binds(configs.get(node.name, {})):
            bound = address(host)
            found.update(dict.fromkeys((ip, PROTOCOLS["tcp"], low) for ip in own if bound in (None, ip)))
    return list(found)


def _nth(network: IpNetwork) -> IpAddress:
    if network.prefixlen == 0:
        network = _EVERYWHERE[network.version]
    return network[min(_PLACE_IN_PREFIX, network.num_addresses - 1)]
