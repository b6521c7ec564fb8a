"""The way a flow takes: from node to node by the route tables the nodes really have.

Pure: route readings and a topology in, node names out.  It sends nothing; the kernel's own longest
prefix match is repeated on the tables read from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from testbed.devices.base import Reading
from topologies.model import IpAddress, Topology

HOPS = 32
ENDS = frozenset({"?", "blackhole", "unreachable", "prohibit", "throw"})
"""Where a way may end that is no node: no route, or a route that says so."""

Tables = Mapping[str, Sequence[tuple[IPv4Network | IPv6Network, str]]]


@dataclass(frozen=True, slots=True)
class Atlas:
    """Where every node would send a packet, frozen at one moment."""

    topology: Topology
    tables: Tables

    @classmethod
    def of(cls, topology: Topology, readings: Mapping[str, Sequence[Reading]]) -> Atlas:
        """From the route readings of all nodes."""
        tables = {}
        for node, seen in readings.items():
            routes = [(ip_network(r.object, strict=False), r.state) for r in seen if r.kind == "route"]
            tables[node] = sorted(routes, key=lambda r: -r[0].prefixlen)
        return cls(topology, tables)

    def way(self, node: str, address: str) -> tuple[str, ...]:
        """Node names from `node` to the owner of `address`, both included.

        The last name is "?" where the way is lost, "blackhole" (or what the route says) where a
        route ends it.
        """
        target, names = ip_address(address), [node]
        owner = self.topology.owner(target)
        while owner is None or names[-1] != owner.name:
            step = self._step(names[-1], target)
            names += step
            if len(names) > HOPS or step[-1] in ENDS:
                break
        return tuple(names)

    def _step(self, node: str, target: IpAddress) -> list[str]:
        routes = self.tables.get(node, ())
        state = next((s for net, s in routes if net.version == target.version and target in net), "?")
        if "@" not in state:
            return [state]
        via, device = state.split(",")[0].split("@", 1)
        if self.topology.link_at(node, device) is None:
            # a tagged interface goes where the one that it stands on goes
            device = device.rpartition(".")[0]
        link = self.topology.link_at(node, device)
        if link is None:
            return ["?"]
        peer = link.b if (link.a.node, link.a.interface) == (node, device) else link.a
        if self.topology.node(peer.node).kind != "bridge":
            return [peer.node]
        gateway = target if via == "direct" else ip_address(via)
        owner = self.topology.owner(gateway)
        return [peer.node, owner.name] if owner else [peer.node, "?"]


def joined(pieces: Sequence[Sequence[str]]) -> str:
    """Several ways end to end as `a>b>c`."""
    names: list[str] = []
    for piece in pieces:
        names += piece[1:] if names and piece and names[-1] == piece[0] else piece
    return ">".join(names)


Translate = Callable[[str, str, int, int], str | None]
"""(node, address, port, protocol) to the address that node's packet filter translates it to."""


def flow_path(
    atlas: Atlas, source_node: str, target: tuple[str, int], protocol: int, translate: Translate, server_node: str
) -> str:
    """The whole way of one flow: to its target, through translation, and from a proxy to the server it chose."""
    address, port = target
    pieces = [atlas.way(source_node, address)]
    translated = translate(pieces[0][-1], address, port, protocol)
    if translated:
        pieces.append(atlas.way(pieces[0][-1], translated))
    end = pieces[-1][-1]
    if server_node and server_node != end and end not in ENDS:
        version = ip_address(address).version
        owned = [a.ip for i in atlas.topology.node(server_node).interfaces for a in i.addresses]
        own = next((str(ip) for ip in owned if ip.version == version), "")
        pieces.append(atlas.way(end, own) if own else (end, server_node))
    return joined(pieces)
