"""The networks that the topohub package brings along, by name: `sndlib/germany50`, `topozoo/Abilene`, `gabriel/25/0`.

    topohub:NAME[?OPTION=VALUE[&...]]
        delay=on|off          distances become delays (on)
        hosts=on|off          a host behind each router (on); off leaves demands without end points, so no traffic
        load=RATE             what all demands together offer, such as 4Mbit

Its data lie in the package; nothing is fetched. This file may not know how a graph becomes a lab's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from topologies import units
from topologies.imported import Imported
from topologies.located import InvalidLab, nearest
from topologies.offered_load import TOTAL_BPS, with_offered_load
from topologies.routed import Graph, Place, Wire, node_label, routed_lab

PREFIX = "topohub:"
_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_.-]+)+")
_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Options:
    """What stands behind the name's question mark."""

    delay: bool = True
    hosts: bool = True
    load_bps: int = TOTAL_BPS


def from_topohub(source: str) -> Imported:
    """The routed lab of `topohub:NAME?OPTIONS`; InvalidLab for an unknown name or option."""
    name, _, asked = source.removeprefix(PREFIX).partition("?")
    options = _options(source, asked)
    graph = _graph(source, name)
    routed = routed_lab(graph, delays=options.delay, hosts=options.hosts)
    return with_offered_load(routed, graph.path, options.load_bps)


def _options(source: str, asked: str) -> Options:
    values: dict[str, Any] = {}
    for key, value in parse_qsl(asked, keep_blank_values=True, max_num_fields=None):
        if key not in ("delay", "hosts", "load") or key in values:
            found = f"the option {key!r}" + (" a second time" if key in values else "")
            raise InvalidLab(Path(source), 1, 1, found, nearest(key, ("delay", "hosts", "load")))
        if key == "load":
            try:
                values[key] = units.rate_bps(value)
            except ValueError as error:
                raise InvalidLab(Path(source), 1, 1, f"load={value}", str(error)) from None
        elif value in _SWITCH:
            values[key] = _SWITCH[value]
        else:
            raise InvalidLab(Path(source), 1, 1, f"{key}={value}", f"{key}=on or {key}=off")
    if asked and not values:
        raise InvalidLab(Path(source), 1, 1, f"{asked!r}", "options such as delay=off&load=4Mbit")
    return Options(values.get("delay", True), values.get("hosts", True), values.get("load", TOTAL_BPS))


def _graph(source: str, name: str) -> Graph:
    data = files("topohub") / "data"
    file = data / f"{name}.json"
    if not _NAME.fullmatch(name) or ".." in name or not file.is_file():
        raise InvalidLab(Path(source), 1, 1, f"no network {name!r} in topohub", _choices(name))
    content = json.loads(file.read_text(encoding="utf-8"))
    number = {str(node["id"]): i for i, node in enumerate(content["nodes"])}
    places = [_place(node) for node in content["nodes"]]
    wires = [
        Wire(number[str(edge["source"])], number[str(edge["target"])], float(edge["dist"]) if "dist" in edge else None)
        for edge in content["edges"]
    ]
    return Graph(name.replace("/", "-"), Path(f"{PREFIX}{name}"), places, wires, _demands(content["graph"], number))


def _place(node: Mapping[str, Any]) -> Place:
    label = node_label(node.get("name") or "") or f"n{node['id']}"
    position = node.get("pos")
    return Place(label, (float(position[0]), float(position[1])) if position else None)


def _demands(graph: Mapping[str, Any], number: Mapping[str, int]) -> dict[tuple[int, int], float]:
    return {
        (number[a], number[b]): float(demand)
        for a, targets in graph.get("demands", {}).items()
        for b, demand in targets.items()
    }


def _choices(name: str) -> str:
    """The nearest names, as there are hundreds."""
    data = Path(str(files("topohub") / "data"))
    known = [path.relative_to(data).with_suffix("").as_posix() for path in data.rglob("*.json")]
    group = name.split("/", maxsplit=1)[0]
    in_group = [each for each in known if each.startswith(f"{group}/")]
    if not in_group:
        return "GROUP/NAME of the groups " + nearest(group, {each.split("/", maxsplit=1)[0] for each in known})
    return nearest(name, in_group)
