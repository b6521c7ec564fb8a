"""Background load as a part of every window, and which nodes a load is between where only its rate was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pandas as pd

from analysis.window import Role
from replay.tap import Tapped
from testbed.background import Background, Carried, InvalidLoad, Load, load_of
from testbed.beside import Part
from testbed.paths import Atlas
from testbed.shadow import Shadow
from testbed.store import RunDirectory
from topologies.model import Node, Topology

ENDS = ("edge", "host")


@dataclass(slots=True)
class BesideLoad:
    """Loads that run in every window; `told` keeps what became of each."""

    loads: Sequence[Background]
    run: RunDirectory
    calibrated: list[Carried] = field(default_factory=list)
    windows: list[dict[str, object]] = field(default_factory=list)

    def calibrate(self) -> list[str]:
        """Run each load alone, before any window, and tell what its path carries; raises Unsupported for nothing."""
        self.calibrated = [load.calibrate() for load in self.loads]
        self._write()
        return [f"{load.load}: {carried.told()}" for load, carried in zip(self.loads, self.calibrated, strict=True)]

    def arm(self) -> None:
        """Nothing takes time."""

    def begin(self, window: int) -> None:
        """Begin every load."""
        for load in self.loads:
            load.start()

    def end(self) -> None:
        """End every load."""
        for load in self.loads:
            load.stop()

    def part(self, window: int, role: Role, seen: Tapped, atlas: Atlas) -> Part:
        """Its record goes to run.json; a load that was not reached is told there and judged nowhere."""
        for load in self.loads:
            if load.carried is not None:
                entry = {"window": window, "role": role.value, "load": str(load.load), **load.carried.record()}
                self.windows.append(entry)
        self._write()
        return Part()

    def _write(self) -> None:
        record = {
            "loads": [str(load.load) for load in self.loads],
            "calibrated": [carried.record() for carried in self.calibrated],
            "windows": self.windows,
        }
        self.run.amend_json("run.json", {"background": record})


@contextmanager
def beside_load(shadow: Shadow, loads: Sequence[Load], run: RunDirectory) -> Iterator[BesideLoad]:
    """Background load on a shadow while the block lasts; whatever still runs at its end is ended by its id."""
    made = []
    for load in loads:
        target = shadow.topology.node(load.target)
        spaces = [shadow.boxes[name].namespace for name in (load.source, load.target)]
        made.append(Background(load, spaces[0], spaces[1], own_address(target)))
    beside = BesideLoad(made, run)
    try:
        yield beside
    finally:
        for background in made:
            background.abandon()


def placed_loads(written: Sequence[str], topology: Topology, flows: pd.DataFrame) -> list[Load]:
    """Loads with their nodes: as they are written, or from the edge to the busiest server for a bare rate.

    Raises InvalidLoad for what is no load, no node or a node without an address.
    """
    loads: list[Load] = []
    names = [node.name for node in topology.nodes]
    for text in written:
        load = load_of(text)
        if not load.source:
            source, target = _edge(topology, flows), _busiest(topology, flows)
            if not source or not target:
                raise InvalidLoad(text, "with both nodes, as the lab has no edge and server to choose")
            load = replace(load, source=source, target=target)
        for name in (load.source, load.target):
            if name not in names:
                raise InvalidLoad(text, f"with nodes out of {', '.join(names)}")
        if load.source == load.target or not own_address(topology.node(load.target)):
            raise InvalidLoad(text, "with two nodes, of which the second has an address")
        load = replace(load, address=_client(topology, flows, load))
        while any((load.target, load.port) == (other.target, other.port) for other in loads):
            load = replace(load, port=load.port + 1)
        loads.append(load)
    return loads


def own_address(node: Node) -> str:
    """The first address of a node, IPv4 before IPv6; empty when it has none."""
    own = [a.ip for i in node.interfaces if i.name != "lo" for a in i.addresses]
    return str(min(own, key=lambda ip: ip.version)) if own else ""


def _client(topology: Topology, flows: pd.DataFrame, load: Load) -> str:
    """The address of the load's source that begins most flows, of the target's family; empty when none was seen."""
    version = 6 if ":" in own_address(topology.node(load.target)) else 4
    seen = flows["source_address"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    for address in seen.index:
        owner = topology.owner(address)
        if owner is not None and owner.name == load.source and (":" in address) == (version == 6):
            return str(address)
    return ""


def _edge(topology: Topology, flows: pd.DataFrame) -> str:
    """The edge, or where there is none the end point, that begins most flows."""
    owners = [owner.name for address in flows["source_address"] if (owner := topology.owner(address)) is not None]
    counts = pd.Series(owners, dtype="str").value_counts()
    kinds = {node.name: node.kind for node in topology.nodes if node.kind in ENDS}
    return min(kinds, key=lambda name: (kinds[name] != "edge", -int(counts.get(name, 0)), name), default="")


def _busiest(topology: Topology, flows: pd.DataFrame) -> str:
    """The host with most octets in its flows; behind a load balancer none was seen, then the first that listens."""
    total = dict.fromkeys((node.name for node in topology.nodes if node.kind == "host"), 0)
    octets = flows["forward_octets"] + flows["reverse_octets"]
    for address, count in zip(flows["destination_address"], octets, strict=True):
        owner = topology.owner(address)
        if owner is not None and owner.name in total:
            total[owner.name] += int(count)
    listening = {node.name for node in topology.nodes if node.listen}
    return max(total, key=lambda name: (total[name], name in listening), default="")
