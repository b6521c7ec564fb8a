"""A network while it is being drawn: nodes, the segments they share, addresses nobody else has, and the routes.

Pure. Knows nodes and addresses, not what they were inferred from.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from testbed.infer.subnets import Address, Net, usable
from topologies.model import Interface, IpInterface, Link, LinkEnd, Node, Route, Service, Topology

INVENTED = {4: ip_network("100.64.0.0/10"), 6: ip_network("fd00:5ad0::/32")}
"""Where transfer networks are taken from: shared address space (RFC 6598) and unique local addresses (RFC 4193)."""

_WIRED = {4: 30, 6: 126}
_DEFAULT = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(slots=True)
class Drawn:
    """A node being drawn; `extra` are its addresses that no segment's network holds."""

    name: str
    kind: str
    forwards: bool = False
    interfaces: dict[str, list[IpInterface]] = field(default_factory=dict)
    extra: list[Net] = field(default_factory=list)
    prefixes: list[Net] = field(default_factory=list)
    listen: list[Service] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)

    def plugged(self) -> str:
        """A further interface, without addresses yet."""
        name = f"eth{len(self.interfaces)}"
        self.interfaces[name] = []
        return name


@dataclass(slots=True)
class Segment:
    """What nodes share: a wire with networks, and which interface of which node is on it."""

    name: str
    networks: dict[int, list[Net]] = field(default_factory=lambda: {4: [], 6: []})
    members: dict[str, str] = field(default_factory=dict)
    seen: bool = False


class Wiring:
    """Nodes and segments by name; `taken` are addresses that stand for somebody already."""

    def __init__(self, taken: Iterable[Address]) -> None:
        self.nodes: dict[str, Drawn] = {}
        self.segments: dict[str, Segment] = {}
        self._taken = set(taken)
        self._on: dict[str, list[Segment]] = {}
        self._pools = {4: self._transfers(4), 6: self._transfers(6)}

    def node(self, name: str, kind: str, *, forwards: bool = False) -> Drawn:
        """A new node."""
        drawn = self.nodes[name] = Drawn(name, kind, forwards)
        return drawn

    def segment(self, name: str) -> Segment:
        """A new segment."""
        drawn = self.segments[name] = Segment(name)
        return drawn

    def attach(self, node: Drawn, segment: Segment, addresses: Iterable[Address] = ()) -> str:
        """Plug a node into a segment, with those addresses of its own that the segment's networks hold."""
        interface = node.plugged()
        segment.members[node.name] = interface
        self._on.setdefault(node.name, []).append(segment)
        for address in addresses:
            network = next(n for n in segment.networks[address.version] if address in n)
            node.interfaces[interface].append(ip_interface(f"{address}/{network.prefixlen}"))
        return interface

    def reachable(self, node: Drawn, segment: Segment, version: int) -> None:
        """See that a node has an address of the family on the segment: one that forwards in every network of it.

        What is lacking is invented, and free.
        """
        if not segment.networks[version]:
            segment.networks[version].append(next(self._pools[version]))
        held = node.interfaces[segment.members[node.name]]
        lacking = [n for n in segment.networks[version] if not any(own.network == n for own in held)]
        if not node.forwards and len(lacking) < len(segment.networks[version]):
            return
        for network in lacking if node.forwards else lacking[:1]:
            address, wide = self._free(network), network
            while address is None:
                wide = self._widened(segment, wide)
                address = self._free(wide)
            self._taken.add(address)
            held.append(ip_interface(f"{address}/{wide.prefixlen}"))

    def _widened(self, segment: Segment, network: Net) -> Net:
        """A full network made twice as large, for everybody who is in it."""
        wide: Net = network.supernet()
        networks = segment.networks[network.version]
        networks[networks.index(network)] = wide
        for name, interface in segment.members.items():
            own = self.nodes[name].interfaces[interface]
            own[:] = [ip_interface(f"{one.ip}/{wide.prefixlen}") if one.network == network else one for one in own]
        return wide

    def wired(self, a: Drawn, b: Drawn, versions: Iterable[int]) -> Segment:
        """A wire of their own between two nodes, with a transfer network a family."""
        segment = self.segment(f"{a.name}–{b.name}")
        self.attach(a, segment)
        self.attach(b, segment)
        for version in sorted(versions):
            network = next(self._pools[version])
            segment.networks[version].append(network)
            for node, offset in ((a, 1), (b, 2)):
                own = ip_interface(f"{network[offset]}/{network.prefixlen}")
                node.interfaces[segment.members[node.name]].append(own)
        return segment

    def owns(self, node: Drawn, addresses: Iterable[Address]) -> None:
        """Further addresses of a node, each alone, at its first interface."""
        for address in addresses:
            alone = ip_interface(f"{address}/{address.max_prefixlen}")
            next(iter(node.interfaces.values())).append(alone)
            node.extra.append(alone.network)

    def networks(self) -> list[Net]:
        """Every network of every segment."""
        return [network for one in self.segments.values() for each in one.networks.values() for network in each]

    def route(self) -> None:
        """Give every node the routes it needs: the way most destinations take as default, the others each."""
        wanted: dict[str, list[tuple[Net, Address]]] = {name: [] for name in self.nodes}
        for target, start in self._targets():
            for name, (segment, via) in self._ways(start, target).items():
                on_wire = any(_within(target, own.network) for own in self._held(name, segment))
                hop = self._hop(name, via.name, segment, target.version)
                if hop is not None and not (on_wire and via.name == start and target not in via.extra):
                    wanted[name].append((target, hop))
        for name, each in wanted.items():
            for version in (4, 6):
                self.nodes[name].routes += _compact(
                    [one for one in each if one[0].version == version], self._connected(name, version), version
                )

    def topology(self, name: str) -> Topology:
        """The finished network; a segment of two is a link, a larger one has a bridge."""
        nodes = [_finished(node) for node in self.nodes.values()]
        links: list[Link] = []
        for segment in self.segments.values():
            ends = [LinkEnd(node, interface) for node, interface in segment.members.items()]
            if len(ends) == 2:
                links.append(Link(ends[0], ends[1]))
            elif len(ends) > 2:
                ports = tuple(Interface(f"swp{number}") for number in range(1, len(ends) + 1))
                nodes.append(Node(f"sw-{segment.name}", "bridge", ports))
                links += [
                    Link(LinkEnd(f"sw-{segment.name}", port.name), end) for port, end in zip(ports, ends, strict=True)
                ]
        return Topology(name, tuple(nodes), tuple(links))

    def last_forwarder(self, source: str, target: str, version: int) -> str | None:
        """The last node that forwards on the way from one node to another, or None where there is none."""
        ways, at = self._ways(target, _DEFAULT[version]), source
        while at in ways and ways[at][1].name != target:
            at = ways[at][1].name
        return at if at != source and at in self.nodes and self.nodes[at].forwards else None

    def _targets(self) -> Iterator[tuple[Net, str]]:
        for node in self.nodes.values():
            yield from ((network, node.name) for network in (*node.extra, *node.prefixes))
        for segment in self.segments.values():
            if segment.seen:
                for each in segment.networks.values():
                    yield from ((network, segment.name) for network in each)

    def _ways(self, start: str, target: Net) -> dict[str, tuple[Segment, Drawn]]:
        """From every node that can reach it: over which segment and which neighbour, by fewest forwarders.

        Neighbours have a network in common. `start` is the node that has the target, or the segment that is it.
        """
        ways: dict[str, tuple[Segment, Drawn]] = {}
        queue: deque[Drawn] = deque()
        reached = {start}
        if start in self.segments:
            inside = [n for n in self.segments[start].members if self._has(n, self.segments[start], target)]
            reached |= set(inside)
            queue.extend(self.nodes[name] for name in inside if self.nodes[name].forwards)
        else:
            queue.append(self.nodes[start])
        while queue:
            node = queue.popleft()
            for segment in self._on.get(node.name, ()):
                for name in segment.members:
                    if name not in reached and self._hop(name, node.name, segment, target.version) is not None:
                        reached.add(name)
                        ways[name] = (segment, node)
                        if self.nodes[name].forwards:
                            queue.append(self.nodes[name])
        return ways

    def _has(self, name: str, segment: Segment, network: Net) -> bool:
        return any(own.network == network for own in self._held(name, segment))

    def _held(self, name: str, segment: Segment) -> list[IpInterface]:
        """A node's addresses in the segment's networks."""
        own = self.nodes[name].interfaces[segment.members[name]]
        return [one for one in own if one.network in segment.networks[one.version]]

    def _hop(self, name: str, via: str, segment: Segment, version: int) -> Address | None:
        """The address of a neighbour in a network that both have."""
        mine = {own.network for own in self._held(name, segment)}
        return next(
            (own.ip for own in self._held(via, segment) if own.version == version and own.network in mine), None
        )

    def _connected(self, name: str, version: int) -> list[Net]:
        held = [own.network for each in self.nodes[name].interfaces.values() for own in each]
        return [network for network in held if network.version == version]

    def _free(self, network: Net) -> Address | None:
        held = {own.ip for node in self.nodes.values() for each in node.interfaces.values() for own in each}
        last = int(network.broadcast_address)
        for number in range(last - 1, max(int(network.network_address), last - 4096), -1):
            address = ip_address(number) if network.version == 4 else ip_address(number.to_bytes(16, "big"))
            if address not in self._taken and address not in held and usable(network, [address]):
                return address
        return None

    def _transfers(self, version: int) -> Iterator[Net]:
        """Transfer networks in which nobody was seen."""
        base, length = INVENTED[version], _WIRED[version]
        step, kind = 1 << (base.max_prefixlen - length), IPv4Network if version == 4 else IPv6Network
        seen = {int(a) // step for a in self._taken if a.version == version}
        for number in range(int(base.network_address), int(base.broadcast_address), step):
            if number // step not in seen:
                yield kind((number, length))


def _compact(each: list[tuple[Net, Address]], connected: list[Net], version: int) -> list[Route]:
    if not each:
        return []
    usual = Counter(hop for _, hop in each).most_common()
    most = min((hop for hop, count in usual if count == usual[0][1]), key=int)
    apart: list[tuple[Net, Address]] = []
    for target, hop in sorted(each, key=lambda one: (one[0].prefixlen, int(one[0].network_address))):
        covered = any(_within(target, other) for other in (*connected, *(net for net, _ in apart)))
        if hop != most or covered:
            apart.append((target, hop))
    return [Route(_DEFAULT[version], most), *(Route(target, hop) for target, hop in apart)]


def _within(target: Net, network: Net) -> bool:
    return target.prefixlen >= network.prefixlen and target.overlaps(network)


def _finished(node: Drawn) -> Node:
    interfaces = tuple(Interface(name, tuple(addresses)) for name, addresses in node.interfaces.items())
    return Node(
        node.name, node.kind, interfaces, tuple(node.routes), tuple(node.prefixes), tuple(dict.fromkeys(node.listen))
    )
