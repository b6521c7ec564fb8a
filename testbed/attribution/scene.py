"""Everything blame may look at, in one frozen value: the change, files before and after, counters, flows and ways.

Knows no cause.  It reads the lab's own config files once, when it is made, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

import pandas as pd

from testbed.attribution.edits import Edit, edits, is_remark
from testbed.attribution.ledger import Ledger
from testbed.attribution.match import Leg
from testbed.attribution.way import Ways
from testbed.change.model import Change, Line
from topologies.load import Lab
from topologies.model import IpAddress

READ = ("iptables.rules", "ip6tables.rules", "nftables.conf", "frr.conf", "haproxy.cfg", "sysctl.conf")
INCLUDED = "files/etc/nft"
"""What nftables.conf may include."""

Files = Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Journey:
    """A flow on its way: the nodes from client to server, and its packets between every two that rewrite them.

    `later` is the way with the change in force, empty where it is not known; `doors` are the ports by which the flow
    comes to its server or to the proxy before it, None where a map decides.
    """

    flow_id: str
    version: int
    destination: IpAddress
    source: IpAddress
    port: int
    refused: bool
    path: tuple[str, ...]
    known: bool
    legs: tuple[tuple[frozenset[str], Leg], ...]
    later: tuple[str, ...] = ()
    doors: frozenset[int] | None = field(default_factory=frozenset)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node on the way before the change, then those that are only met with it."""
        return tuple(dict.fromkeys((*self.path, *self.later)))

    def legs_at(self, node: str, version: int | None = None) -> list[Leg]:
        """The flow's packets as that node sees them, in one IP version or any."""
        return [leg for nodes, leg in self.legs if node in nodes and version in (None, leg.version)]

    def joins(self, a: str, b: str) -> bool:
        """Whether two nodes follow each other on the way, or might, where the way is not known."""
        pairs = [*zip(self.path, self.path[1:], strict=False), *zip(self.later, self.later[1:], strict=False)]
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
        later: Mapping[str, Sequence[str]],
    ) -> Scene:
        """From the tables of a run; `paths` and `later` are ways before the change and with it."""
        unchanged = {
            (node.name, file): _text(path)
            for node in lab.topology.nodes
            for file, path in node.configs.items()
            if (file in READ or file.startswith(INCLUDED)) and (node.name, file) not in change.before
        }
        before = unchanged | {key: content.decode(errors="replace") for key, content in change.before.items()}
        after = {key: content.decode(errors="replace") for key, content in change.after.items()}
        after |= {key: text for key, text in unchanged.items() if key not in after}
        ways = Ways.of(lab.topology.nodes, before), Ways.of(lab.topology.nodes, after)
        journeys = _journeys(flows, (paths, later), lab, ways)
        return cls(change, lab, Ledger.of(counters), before, after, journeys, edits(change.lines))

    def lines(self, node: str, file: str) -> list[Line]:
        """The changed lines of one file that some device acts on."""
        path = f"configs/{node}/{file}"
        return [
            line for line in self.change.lines if (line.node, line.file) == (node, path) and not is_remark(line.text)
        ]

    def passing(self, flows: Sequence[str], node: str) -> frozenset[str]:
        """Those of the flows whose way leads through a node."""
        return frozenset(f for f in flows if f in self.journeys and node in self.journeys[f].nodes)

    def nodes(self, flows: Sequence[str]) -> list[str]:
        """The nodes on these flows' ways, first hop first."""
        rank: dict[str, int] = {}
        for flow in flows:
            for place, node in enumerate(self.journeys[flow].nodes if flow in self.journeys else ()):
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


def _journeys(
    flows: pd.DataFrame, paths: tuple[Mapping[str, Sequence[str]], ...], lab: Lab, ways: tuple[Ways, ...]
) -> dict[str, Journey]:
    nodes = frozenset(node.name for node in lab.topology.nodes)
    columns = ("flow_id", "protocol", "source_address", "source_port", "destination_address", "destination_port")
    refused = (flows["outcome"] != "accepted").tolist() if "outcome" in flows else [False] * len(flows)
    found: dict[str, Journey] = {}
    rows = zip(*(flows[c].tolist() for c in columns), refused, strict=True)
    for flow, protocol, source, source_port, destination, port, denied in rows:
        path, later = (tuple(n for n in side.get(flow, ()) if n in nodes) for side in paths)
        ends = (ip_address(source), ip_address(destination))
        version = ends[0].version
        one, other = (frozenset({end}) for end in ends)
        first = Leg(version, int(protocol), one, other, int(source_port), frozenset({int(port)}))
        # a flow whose way was not told may have passed any node, translated
        legs: tuple[tuple[frozenset[str], Leg], ...] = ((nodes, _anywhere(first)),)
        doors: frozenset[int] | None = frozenset({int(port)})
        if path:
            early, late = ways[0].legs(first, path), ways[1].legs(first, later or path)
            legs = tuple(dict.fromkeys((*early.legs, *late.legs)))
            doors = None if early.doors is None or late.doors is None else early.doors | late.doors
        order = path or tuple(node.name for node in lab.topology.nodes)
        found[str(flow)] = Journey(
            str(flow), version, ends[1], ends[0], int(port), denied, order, bool(path), legs, later, doors
        )
    return found


def _anywhere(leg: Leg) -> Leg:
    return replace(leg, sources=frozenset(), destinations=frozenset(), source_port=None)
