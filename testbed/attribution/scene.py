"""Everything blame may look at, in one frozen value: the change, files before and after, counters, flows and ways.

Knows no cause.  It reads the lab's own config files once, when it is made, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

import pandas as pd

from testbed.attribution.edits import Edit, edits, is_remark
from testbed.attribution.ledger import Ledger
from testbed.attribution.match import Leg, address
from testbed.change.model import Change, Line
from topologies.load import Lab
from topologies.model import IpAddress, Node

READ = ("iptables.rules", "ip6tables.rules", "nftables.conf", "frr.conf", "haproxy.cfg")
INCLUDED = "files/etc/nft"
"""What nftables.conf may include."""

TRANSIT = frozenset({"router", "bridge"})
"""Kinds that rewrite no address, so that theirs never stand in a flow's packets."""

_SERVER = re.compile(r"^\s*server\s+\S+\s+\[?([0-9A-Fa-f.:]+?)\]?:(\d+)\b", re.MULTILINE)
Files = Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Journey:
    """A flow on its way: the nodes from client to server, and its packets on either side of a proxy."""

    flow_id: str
    version: int
    destination: IpAddress
    source: IpAddress
    port: int
    refused: bool
    path: tuple[str, ...]
    known: bool
    legs: tuple[tuple[frozenset[str], Leg], ...]

    def legs_at(self, node: str, version: int | None = None) -> list[Leg]:
        """The flow's packets as that node sees them, in one IP version or any."""
        return [leg for nodes, leg in self.legs if node in nodes and version in (None, leg.version)]

    def joins(self, a: str, b: str) -> bool:
        """Whether two nodes follow each other on the way, or might, where the way is not known."""
        pairs = zip(self.path, self.path[1:], strict=False)
        return not self.known or any({a, b} == {one, other} for one, other in pairs)


@dataclass(frozen=True, slots=True)
class Scene:
    """The scene of one run; `before` and `after` hold the texts of the files of READ and of every changed file."""

    change: Change
    lab: Lab
    ledger: Ledger
    before: Files
    after: Files
    journeys: Mapping[str, Journey]
    edits: tuple[Edit, ...]

    @classmethod
    def of(
        cls,
        change: Change,
        lab: Lab,
        counters: pd.DataFrame,
        flows: pd.DataFrame,
        paths: Mapping[str, Sequence[str]],
    ) -> Scene:
        """From the tables of a run."""
        unchanged = {
            (node.name, file): _text(path)
            for node in lab.topology.nodes
            for file, path in node.configs.items()
            if (file in READ or file.startswith(INCLUDED)) and (node.name, file) not in change.before
        }
        before = unchanged | {key: content.decode(errors="replace") for key, content in change.before.items()}
        after = {key: content.decode(errors="replace") for key, content in change.after.items()}
        after |= {key: text for key, text in unchanged.items() if key not in after}
        return cls(
            change, lab, Ledger.of(counters), before, after, _journeys(flows, paths, lab, before), edits(change.lines)
        )

    def lines(self, node: str, file: str) -> list[Line]:
        """The changed lines of one file that some device acts on."""
        path = f"configs/{node}/{file}"
        return [
            line for line in self.change.lines if (line.node, line.file) == (node, path) and not is_remark(line.text)
        ]

    def passing(self, flows: Sequence[str], node: str) -> frozenset[str]:
        """Those of the flows whose way leads through a node."""
        return frozenset(f for f in flows if f in self.journeys and node in self.journeys[f].path)

    def nodes(self, flows: Sequence[str]) -> list[str]:
        """The nodes on these flows' ways, first hop first."""
        rank: dict[str, int] = {}
        for flow in flows:
            for place, node in enumerate(self.journeys[flow].path if flow in self.journeys else ()):
                rank[node] = min(place, rank.get(node, place))
        return sorted(rank, key=lambda node: (rank[node], node))

    def seen_as(self, flows: Sequence[str], node: str, version: int) -> list[str]:
        """Those of the flows whose packets pass a node in an IP version, which a proxy may have changed."""
        known = (self.journeys[f] for f in flows if f in self.journeys)
        return [j.flow_id for j in known if any(leg.version == version for leg in j.legs_at(node))]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _journeys(flows: pd.DataFrame, paths: Mapping[str, Sequence[str]], lab: Lab, before: Files) -> dict[str, Journey]:
    nodes = {node.name: node for node in lab.topology.nodes}
    columns = ("flow_id", "protocol", "source_address", "source_port", "destination_address", "destination_port")
    refused = (flows["outcome"] != "accepted").tolist() if "outcome" in flows else [False] * len(flows)
    found: dict[str, Journey] = {}
    rows = zip(*(flows[c].tolist() for c in columns), refused, strict=True)
    for flow, protocol, source, source_port, destination, port, denied in rows:
        path = tuple(n for n in paths.get(flow, ()) if n in nodes)
        ends = (ip_address(source), ip_address(destination))
        version = ends[0].version
        one, other = (frozenset({end}) for end in ends)
        first = Leg(version, int(protocol), one, other, int(source_port), frozenset({int(port)}))
        known = bool(path)
        # a flow whose way was not told may have passed any node, translated
        legs = _legs(first, path, nodes, before) if known else ((frozenset(nodes), _anywhere(first)),)
        path = path or tuple(nodes)
        found[str(flow)] = Journey(str(flow), version, ends[1], ends[0], int(port), denied, path, known, legs)
    return found


def _legs(
    first: Leg, path: tuple[str, ...], nodes: Mapping[str, Node], before: Files
) -> tuple[tuple[frozenset[str], Leg], ...]:
    """Packets are rewritten by NAT between the ends of a leg, and made anew by a proxy on the way."""
    at = next((i for i, n in enumerate(path[:-1]) if i and (n, "haproxy.cfg") in before), len(path) - 1)
    translators = {a for n in path[1:at] if nodes[n].kind not in TRANSIT for a in own_addresses(nodes[n])}
    version, end = first.version, own_addresses(nodes[path[at]])
    near = replace(
        first,
        sources=first.sources | _of(version, translators),
        destinations=first.destinations | _of(version, end),
    )
    legs = [(frozenset(path[: at + 1]), near)]
    if at < len(path) - 1:
        server = own_addresses(nodes[path[-1]])
        listed = [(address(text), int(port)) for text, port in _SERVER.findall(before[path[at], "haproxy.cfg"])]
        ports = frozenset(port for own, port in listed if own in server)
        # a proxy may take IPv6 and speak IPv4 to its servers
        spoken = {int(own.version) for own, _ in listed if own is not None and own in server}
        for far_version in sorted(spoken or {version}):
            sides = _of(far_version, end), _of(far_version, server)
            far = Leg(far_version, first.protocol, *sides, source_port=None, ports=ports or None)
            legs.append((frozenset(path[at:]), far))
    return tuple(legs)


def _of(version: int, addresses: Iterable[IpAddress]) -> frozenset[IpAddress]:
    return frozenset(a for a in addresses if a.version == version)


def _anywhere(leg: Leg) -> Leg:
    return replace(leg, sources=frozenset(), destinations=frozenset(), source_port=None)


def own_addresses(node: Node) -> frozenset[IpAddress]:
    """The addresses of a node's interfaces."""
    return frozenset(a.ip for interface in node.interfaces for a in interface.addresses)
