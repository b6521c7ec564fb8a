"""Changed config files held against their daemons' own checkers, in seconds: no network, no traffic, nothing started.

Runs inside a sandbox. May not know revisions, nor who is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.box import NodeBox
from testbed.devices.base import Configs, Device
from testbed.network.mininet_api import ShadowNet
from topologies.model import Topology


@dataclass(frozen=True, slots=True)
class Objection:
    """What a node's daemon says of one of its files; `line` from 1, None where it names none."""

    node: str
    file: str
    line: int | None
    message: str


def objections(
    topology: Topology, configs: Mapping[str, Configs], devices: Mapping[str, Device], logs: Path
) -> tuple[Objection, ...]:
    """Every complaint about the files of the nodes in `configs`, each in a node of its own that nothing is wired to.

    Raises Unsupported or CommandFailed where this machine lacks a checker.
    """
    logs.mkdir(parents=True, exist_ok=True)
    net = ShadowNet()
    try:
        found: list[Objection] = []
        for name in _in_order(topology, configs):
            node = topology.node(name)
            device = devices[node.kind]
            box = NodeBox(node, net.add(name, device.directories).namespace, logs)
            found += [Objection(name, c.file, c.line, c.message) for c in device.check(box, configs[name])]
        return tuple(found)
    finally:
        net.close()


def _in_order(topology: Topology, names: Iterable[str]) -> list[str]:
    wanted = set(names)
    return [node.name for node in topology.nodes if node.name in wanted]
