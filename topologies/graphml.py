"""GraphML files in the shape of the Internet Topology Zoo, read into a graph of places.

    node data   label, Latitude, Longitude            edge data   LinkSpeedRaw (bit/s), dist (km)

A document type, and so any entity, is refused before anything is expanded (CWE-776). This file may not know how a
graph becomes a lab.
"""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import networkx as nx

from topologies.imported import Imported, Note, Position
from topologies.located import InvalidLab, nearest
from topologies.offered_load import with_offered_load
from topologies.routed import Graph, Place, Wire, node_label, routed_lab

LARGEST_FILE_OCTETS = 16 * 1024 * 1024
DEEPEST_NESTING = 32
MOST_ELEMENTS = 500_000
EARTH_RADIUS_KM = 6_371.0
LARGEST_RATE_BPS = 10**15
_SHOWN = 60
_READ_AT_NODES = frozenset({"label", "Latitude", "Longitude"})
_READ_AT_EDGES = frozenset({"LinkSpeedRaw", "dist", "id", "key", "source", "target"})
_TOLD = frozenset({"LinkSpeed", "LinkSpeedUnits"})
"""Edge data that say, for people, what LinkSpeedRaw says exactly."""
_LET_OUT = (nx.NetworkXException, ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError)
"""What a wrong type or an undeclared key makes networkx raise."""


@dataclass(slots=True)
class _Scan:
    """What expat sees of a file before it is read: that it is harmless, and where its nodes and edges stand."""

    path: Path
    nodes: dict[str, int] = field(default_factory=dict)
    edges: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    edge_ids: set[tuple[str, str, str]] = field(default_factory=set)
    graphs: int = 0
    depth: int = 0
    elements: int = 0
    parser: expat.XMLParserType = field(default_factory=lambda: expat.ParserCreate(namespace_separator=" "))

    def run(self, raw: bytes) -> None:
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        try:
            self.parser.Parse(raw, True)
        except expat.ExpatError as error:
            what = expat.ErrorString(error.code)
            raise InvalidLab(self.path, error.lineno, error.offset + 1, what, "well-formed XML") from None
        except (LookupError, ValueError) as error:
            # an encoding that expat takes from the declaration and Python does not have
            raise InvalidLab(self.path, 1, 1, str(error)[:_SHOWN], "well-formed XML in UTF-8") from None

    def _wrong(self, found: str, expected: str) -> InvalidLab:
        return InvalidLab(
            self.path, self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1, found, expected
        )

    def _doctype(self, name: str, system: str | None, public: str | None, internal: bool) -> None:
        raise self._wrong("a document type declaration", "XML without one")

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        if self.depth > DEEPEST_NESTING or self.elements > MOST_ELEMENTS:
            limits = f"at most {DEEPEST_NESTING} levels and {MOST_ELEMENTS} elements"
            raise self._wrong(f"level {self.depth}, element {self.elements}", limits)
        tag = name.rpartition(" ")[2]
        if self.depth == 1 and tag != "graphml":
            raise self._wrong(f"the element <{tag[:_SHOWN]}>", "<graphml>")
        if tag in ("hyperedge", "port"):
            raise self._wrong(f"the element <{tag}>", "nodes and plain edges")
        if tag == "graph":
            self.graphs += 1
            if self.graphs > 1:
                raise self._wrong("a second <graph>", "one graph, not nested")
        elif tag == "node" and "id" in attributes:
            if attributes["id"] in self.nodes:
                raise self._wrong(f"the node {attributes['id'][:_SHOWN]!r} a second time", "each id once")
            self.nodes[attributes["id"]] = self.parser.CurrentLineNumber
        elif tag == "edge":
            self._edge(attributes)

    def _edge(self, attributes: Mapping[str, str]) -> None:
        for end in ("source", "target"):
            if end not in attributes:
                raise self._wrong(f"an edge without {end!r}", "source and target")
        source, target, edge_id = attributes["source"], attributes["target"], attributes.get("id", "")
        if edge_id and (source, target, edge_id) in self.edge_ids:
            raise self._wrong(f"the edge {edge_id[:_SHOWN]!r} a second time", "each id once between two nodes")
        self.edge_ids.add((source, target, edge_id))
        a, b = sorted((source, target))
        self.edges.setdefault((a, b), []).append(self.parser.CurrentLineNumber)

    def _end(self, name: str) -> None:
        self.depth -= 1


def from_graphml(path: Path, *, delays: bool = True, hosts: bool = True) -> Imported:
    """The routed lab of a GraphML file; InvalidLab for what is not one, is hostile or has no nodes."""
    graph, notes = read_graphml(path)
    imported = with_offered_load(routed_lab(graph, delays=delays, hosts=hosts), path)
    return Imported(imported.topology, imported.files, (*notes, *imported.notes), imported.captures, imported.positions)


def read_graphml(path: Path) -> tuple[Graph, list[Note]]:
    """Places and wires of a GraphML file, with notes on the data that are not used; raises InvalidLab."""
    raw = _octets(path)
    scan = _Scan(path)
    scan.run(raw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # keys without a type, which networkx takes as text
            read = nx.read_graphml(io.BytesIO(raw), node_type=str, force_multigraph=True)
    except (
        nx.NetworkXException,
        ArithmeticError,
        AttributeError,
        LookupError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        # networkx lets out whatever a wrong type or an undeclared key makes Python raise
        words = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise InvalidLab(path, 1, 1, f"GraphML that cannot be read ({words})", "GraphML as networkx reads it") from None
    number = {node: i for i, node in enumerate(read.nodes)}
    for node in number:
        if node not in scan.nodes:
            raise InvalidLab(path, 1, 1, f"an edge to node {node[:_SHOWN]!r}", nearest(node, list(scan.nodes)[:50]))
    places = [_place(path, scan.nodes[node], node, data) for node, data in read.nodes(data=True)]
    notes = _unread(path, read, places)
    wires = _wires(path, scan, read, places, number, notes)
    name = node_label(read.graph.get("Network") or read.graph.get("label") or path.stem)[:200]
    return Graph(name, path, places, wires), notes


def _octets(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE_OCTETS + 1)
    except OSError as error:
        raise InvalidLab(path, 1, 1, error.strerror or "an unreadable file", "a readable GraphML file") from None
    if len(raw) > LARGEST_FILE_OCTETS:
        raise InvalidLab(path, 1, 1, "a file of more than 16 MiB", "a smaller GraphML file")
    return raw


def _place(path: Path, line: int, node: str, data: Mapping[str, Any]) -> Place:
    latitude, longitude = (_number(path, line, data, key) for key in ("Latitude", "Longitude"))
    position: Position | None = None
    if latitude is not None and longitude is not None:
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
            found = f"Latitude {latitude:g}, Longitude {longitude:g}"
            raise InvalidLab(path, line, 1, found, "-90 to 90 and -180 to 180 degrees")
        position = (longitude, latitude)
    return Place(node_label(data.get("label") or node), position, line)


def _number(path: Path, line: int, data: Mapping[str, Any], key: str) -> float | None:
    if key not in data:
        return None
    try:
        value = float(data[key])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InvalidLab(path, line, 1, f"{key} {str(data[key])[:_SHOWN]!r}", "a number")
    return value


def _wires(
    path: Path, scan: _Scan, read: Any, places: list[Place], number: Mapping[str, int], notes: list[Note]
) -> list[Wire]:
    if sum(map(len, scan.edges.values())) != read.number_of_edges():
        raise InvalidLab(path, 1, 1, "edges that share both ends and their key", "an id of its own for each edge")
    wires: list[Wire] = []
    opposite: Counter[tuple[int, int]] = Counter()
    for a, b, data in read.edges(data=True):
        first, last = sorted((a, b))
        line = scan.edges[first, last].pop(0)
        i, j = number[a], number[b]
        if read.is_directed() and opposite[j, i]:
            opposite[j, i] -= 1
            continue
        opposite[i, j] += 1
        distance = _number(path, line, data, "dist")
        if distance is not None and not 0 <= distance <= 2 * math.pi * EARTH_RADIUS_KM:
            raise InvalidLab(path, line, 1, f"dist {distance:g}", "a distance on Earth in km")
        if distance is None:
            distance = distance_km(places[i].position, places[j].position)
        wires.append(Wire(i, j, distance, _rate(path, line, data, notes), line))
    if read.is_directed():
        notes.append(Note(path, 1, "a directed graph", "each pair of opposite edges is one wire, used both ways"))
    return wires


def _rate(path: Path, line: int, data: Mapping[str, Any], notes: list[Note]) -> int | None:
    speed = _number(path, line, data, "LinkSpeedRaw")
    if speed is None:
        if "LinkSpeed" in data:
            notes.append(Note(path, line, f"LinkSpeed {str(data['LinkSpeed'])[:_SHOWN]!r}", "no LinkSpeedRaw; no rate"))
        return None
    if not 1 <= speed <= LARGEST_RATE_BPS:
        raise InvalidLab(path, line, 1, f"LinkSpeedRaw {speed:g}", "bits a second, at least 1")
    return round(speed)


def distance_km(a: Position | None, b: Position | None) -> float | None:
    """The great-circle distance of two places given in degrees (longitude, latitude); None where one is unknown."""
    if a is None or b is None:
        return None
    (longitude_a, latitude_a), (longitude_b, latitude_b) = ((math.radians(x), math.radians(y)) for x, y in (a, b))
    half = (
        math.sin((latitude_b - latitude_a) / 2) ** 2
        + math.cos(latitude_a) * math.cos(latitude_b) * math.sin((longitude_b - longitude_a) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(half, 1.0)))


def _unread(path: Path, read: Any, places: list[Place]) -> list[Note]:
    """Which data of nodes and edges have no meaning here, named once each, and places without coordinates."""
    notes = []
    lost = [place for place in places if place.position is None]
    if lost:
        what = f"{len(lost)} of {len(places)} nodes without coordinates, the first {lost[0].label!r}"
        notes.append(Note(path, lost[0].line, what, "their distances, and so delays, are unknown"))
    for kind, found, used in (
        ("node", {key for _, data in read.nodes(data=True) for key in data}, _READ_AT_NODES),
        ("edge", {key for _, _, data in read.edges(data=True) for key in data}, _READ_AT_EDGES | _TOLD),
    ):
        if unused := sorted(str(key)[:_SHOWN] for key in found - used):
            notes.append(Note(path, 1, f"{kind} data {', '.join(unused)}", "have no meaning in a lab"))
    return notes
