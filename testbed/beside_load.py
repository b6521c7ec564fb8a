"""Background load as a part of every window, and which nodes a load is between where only its rate was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from analysis.window import Role
from replay.tap import Tapped
from testbed.background import Background, Carried, InvalidLoad, Load, load_of
from testbed.beside import Part
from testbed.paths import Atlas
from testbed.shadow import Shadow
from testbed.store import RunDirectory
from topologies.model import Topology

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
                if not load.carried.reached:
                    told = f"{role.value} window {window}: {load.load}: {load.carried.told()}"
                    self.run.append_event(
                        datetime.now(UTC).isoformat(timespec="milliseconds"), "background", {"what": told}
                    )
        self._write()
        return Part()

    def _write(self) -> None:
        record = {
            "loads": [str(load.load) for load in self.loads],
            "calibrated": [carried.record() for carried in self.calibrated],
            "windows": self.windows,
        }
        self.run.amend_json("run.json", {"background": record})


def unreached(record: Mapping[str, Any]) -> list[str]:
    """For people, the loads of a run.json that were not reached, window by window."""
    windows = record.get("background", {}).get("windows", [])
    return [_shortfall(each) for each in windows if not each["reached"]]


def _shortfall(entry: Mapping[str, Any]) -> str:
    why = f" ({entry['error']})" if entry["error"] else ""
    where = f"{entry['role']} window {entry['window']}"
    return f"{where}: {entry['load']} was not reached: {entry['arrived_bps'] / 1e6:.3g} Mbit/s arrived{why}"


@contextmanager
def beside_load(shadow: Shadow, loads: Sequence[Load], run: RunDirectory) -> Iterator[BesideLoad]:
    """Background load on a shadow while the block lasts; whatever still runs at its end is ended by its id."""
    made = []
    for load in loads:
        source, target = (shadow.boxes[name].namespace for name in (load.source, load.target))
        made.append(Background(load, source, target, load.speaks_to))
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
        to = _address(topology, flows, load.target)
        speaker = _address(topology, flows, load.source, 6 if ":" in to else 4)
        if load.source == load.target or not to or not speaker:
            raise InvalidLoad(text, "with two nodes that have addresses of one family")
        load = replace(load, speaks_as=speaker, speaks_to=to)
        while any((load.target, load.port) == (other.target, other.port) for other in loads):
            load = replace(load, port=load.port + 1)
        loads.append(load)
    return loads


def _address(topology: Topology, flows: pd.DataFrame, name: str, version: int | None = None) -> str:
    """The address of a node that most flows have, else its first, IPv4 before IPv6; empty when it has none."""
    seen = pd.concat([flows["source_address"], flows["destination_address"]]).value_counts()
    for address in sorted(seen.index, key=lambda text: (-int(seen[text]), text)):
        owner = topology.owner(address)
        if owner is not None and owner.name == name and version in (None, 6 if ":" in address else 4):
            return str(address)
    own = [a.ip for i in topology.node(name).interfaces if i.name != "lo" for a in i.addresses]
    return next((str(ip) for ip in sorted(own, key=lambda ip: ip.version) if version in (None, ip.version)), "")


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
