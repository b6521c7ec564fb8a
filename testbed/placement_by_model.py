"""Places for end points that no node owns, by the observed flow control model: only when asked, and always told.

Pure.  A model knows which addresses go together: its zones, and the prefixes under which the
network treats all alike.  An address without an owner goes where the others of the longest of these live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import pandas as pd

from replay.ofcm import Ofcm
from replay.ofcm.classes import parted
from testbed.attribution.match import address
from testbed.placement import END_POINTS, of_one_wire
from topologies.imported import Note
from topologies.load import Lab
from topologies.model import IpAddress, IpNetwork, Node, Topology


@dataclass(frozen=True, slots=True)
class Group:
    """Addresses that go together: a zone of the model, or a prefix of one of its classes."""

    name: str
    network: IpNetwork
    members: tuple[IpAddress, ...]


def placed_by_model(lab: Lab, flows: pd.DataFrame, model: Ofcm, path: Path) -> tuple[Lab, tuple[Note, ...]]:
    """The lab in which end points answer for the flows' addresses that nobody owned, and a note for each.

    What neither the model nor a single edge places stays without an owner.  `path` is the model's file.
    """
    homeless = sorted(set(_homeless(lab.topology, flows)), key=lambda a: (a.version, int(a)))
    groups = list(_groups(model))
    given: dict[str, list[IpAddress]] = {}
    notes = []
    for one in homeless:
        found = _home(one, groups, lab.topology)
        if found is not None:
            node, why = found
            given.setdefault(node, []).append(one)
            notes.append(Note(path, 1, f"{one} is placed on {node}", why))
    nodes = tuple(
        replace(node, prefixes=(*node.prefixes, *map(ip_network, given.get(node.name, ()))))
        for node in lab.topology.nodes
    )
    return replace(lab, topology=replace(lab.topology, nodes=nodes)), tuple(notes)


def _homeless(topology: Topology, flows: pd.DataFrame) -> Iterator[IpAddress]:
    for column in ("source_address", "destination_address"):
        for text in flows[column].unique().tolist():
            one = address(str(text))
            if one is not None and topology.owner(one) is None and not of_one_wire(str(text)):
                yield one


def _groups(model: Ofcm) -> Iterator[Group]:
    """Zones and prefixes with the addresses that the model saw in them."""
    seen = {a for c in ("source_address", "destination_address") for t in model.cells[c].unique() if (a := address(t))}
    for zone in model.grouping.zones:
        for network in zone.networks:
            yield Group(f"zone {zone.name}", network, _members(network, seen))
    names = parted(model.grouping, [model.cells]).names
    texts = [*names["source"][~names["zone"].to_numpy(bool)].tolist(), *names["destination"].tolist()]
    for text in dict.fromkeys(texts):
        network = ip_network(text)
        yield Group("the class", network, _members(network, seen))


def _members(network: IpNetwork, seen: Iterable[IpAddress]) -> tuple[IpAddress, ...]:
    return tuple(a for a in seen if a.version == network.version and a in network)


def _home(one: IpAddress, groups: Iterable[Group], topology: Topology) -> tuple[str, str] | None:
    """The end point where an address belongs, and why."""
    around = [g for g in groups if g.network.version == one.version and one in g.network]
    for group in sorted(around, key=lambda g: -g.network.prefixlen):
        owners = Counter(
            owner.name for a in group.members if (owner := topology.owner(a)) is not None and owner.kind in END_POINTS
        )
        owners.update(node.name for node in topology.nodes if _stands_for(node, group.network))
        ranked = owners.most_common(2)
        if ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1]):
            return ranked[0][0], f"most of {group.name} {group.network} lives there"
    edges = [node.name for node in topology.nodes if node.kind == "edge"]
    return (edges[0], "the model knows no neighbour of it, and there is one edge alone") if len(edges) == 1 else None


def _stands_for(node: Node, network: IpNetwork) -> bool:
    """Whether an end point answers for some of a network, by its prefixes."""
    return node.kind in END_POINTS and any(
        own.version == network.version and own.overlaps(network) for own in node.prefixes
    )
