"""A graph of places made a routed lab: an OSPF router for each place, a host behind it, addresses by plan.

    10.0.x.y/32      loopback and router id of router number 256x + y - 1
    10.64.i.0/24     the host network of router i, up to 10.127.255.0/24
    10.128.0.0/9     a /30 for each wire, in the graph's order

Pure: a graph in, a lab's contents out. This file may not know which format the graph was read from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, ip_network
from pathlib import Path

import networkx as nx

from topologies.imported import Imported, Note, Position
from topologies.located import InvalidLab
from topologies.model import Impairment, Interface, Link, LinkEnd, Node, Route, Topology
from topologies.names import free_name

US_PER_KM = 5
"""Light in glass needs about 5 us for a kilometre (ITU-T G.114, annex A)."""

MOST_PLACES = 64 * 256
MOST_WIRES = 1 << 21
HOSTS_EVERYWHERE_UP_TO = 200
UNKNOWN_COST = 10
LARGEST_COST = 65_535
OSPF_DAEMONS = b"zebra=yes\nstaticd=yes\nospfd=yes\n"
_LOOPBACKS = int(IPv4Address("10.0.0.0"))
_HOSTS = int(IPv4Address("10.64.0.0"))
_WIRES = int(IPv4Address("10.128.0.0"))


@dataclass(frozen=True, slots=True)
class Place:
    """A node of the graph as its file has it; `position` is where it is drawn, `line` where it stands."""

    label: str
    position: Position | None = None
    line: int = 1


@dataclass(frozen=True, slots=True)
class Wire:
    """An edge of the graph between two places given by number; None means that the file does not say."""

    a: int
    b: int
    distance_km: float | None = None
    rate_bps: int | None = None
    line: int = 1


@dataclass(frozen=True, slots=True)
class Graph:
    """A network of places; `demands` is traffic by (source, target) place in any one unit."""

    name: str
    path: Path
    places: Sequence[Place]
    wires: Sequence[Wire]
    demands: Mapping[tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Routed:
    """The lab of a graph; `hosts` has the host's address by place, `demands` those that can be met."""

    lab: Imported
    hosts: Mapping[int, tuple[str, IPv4Address]]
    demands: Mapping[tuple[int, int], float]


def routed_lab(graph: Graph, *, delays: bool = True, hosts: bool = True) -> Routed:
    """Routers, hosts, wires and FRR files of a graph; InvalidLab for one without places or beyond the address plan."""
    if not graph.places or len(graph.places) > MOST_PLACES or len(graph.wires) > MOST_WIRES:
        found = f"{len(graph.places)} places and {len(graph.wires)} edges"
        raise InvalidLab(graph.path, 1, 1, found, f"1 to {MOST_PLACES} places and at most {MOST_WIRES} edges")
    notes: list[Note] = []
    wires = _wires_kept(graph, notes)
    demands = _demands_met(graph, wires, notes)
    names = _names(graph, notes)
    with_host = _places_with_host(graph, demands, notes) if hosts else set()
    _tell_gaps(graph, wires, notes, delays=delays)
    at: list[list[tuple[str, IPv4Interface, int]]] = [[] for _ in graph.places]
    links = [_cabled(k, wire, names, at, delays=delays) for k, wire in enumerate(wires)]
    nodes, files = [], {}
    addresses: dict[int, tuple[str, IPv4Address]] = {}
    positions: dict[str, Position] = {}
    for i, place in enumerate(graph.places):
        name = names[i]
        if i in with_host:
            addresses[i] = (f"h-{name}", IPv4Address(_HOSTS + (i << 8) + 10))
        nodes.append(_router(name, at[i], i, lan=i in with_host))
        files[name, "frr.conf"] = _frr_conf(name, at[i], i, lan=i in with_host).encode()
        files[name, "daemons"] = OSPF_DAEMONS
        if place.position is not None:
            positions[name] = place.position
    for i, (host, address) in addresses.items():
        gateway = IPv4Address(_HOSTS + (i << 8) + 1)
        interface = Interface("eth0", (IPv4Interface(f"{address}/24"),))
        nodes.append(Node(host, "host", (interface,), (Route(ip_network("0.0.0.0/0"), gateway),)))
        links.append(Link(LinkEnd(names[i], "lan0"), LinkEnd(host, "eth0")))
    topology = Topology(free_name(graph.name, set(), "graph"), tuple(nodes), tuple(links))
    return Routed(Imported(topology, files, tuple(notes), positions=positions), addresses, demands)


def _wires_kept(graph: Graph, notes: list[Note]) -> list[Wire]:
    kept = []
    for wire in graph.wires:
        if wire.a == wire.b:
            label = graph.places[wire.a].label
            notes.append(Note(graph.path, wire.line, f"an edge from {label!r} to itself", "no wire; left out"))
        else:
            kept.append(wire)
    return kept


def _demands_met(graph: Graph, wires: Sequence[Wire], notes: list[Note]) -> dict[tuple[int, int], float]:
    """The demands between different places that some path joins."""
    joined = nx.Graph()
    joined.add_nodes_from(range(len(graph.places)))
    joined.add_edges_from((wire.a, wire.b) for wire in wires)
    part = {place: number for number, places in enumerate(nx.connected_components(joined)) for place in places}
    parts = len(set(part.values()))
    if parts > 1:
        why = "routers of different parts do not reach each other"
        notes.append(Note(graph.path, 1, f"a graph in {parts} parts that no edge joins", why))
    met = {}
    for (a, b), demand in graph.demands.items():
        what = f"the demand from {graph.places[a].label!r} to {graph.places[b].label!r}"
        if a == b:
            notes.append(Note(graph.path, 1, what, "it never leaves its place; left out"))
        elif part[a] != part[b]:
            notes.append(Note(graph.path, 1, what, "no path joins them; left out"))
        elif demand > 0:
            met[a, b] = demand
    return met


def _names(graph: Graph, notes: list[Note]) -> list[str]:
    """A valid name for each place, short enough that its host's name is valid too."""
    taken: set[str] = set()
    names = []
    for place in graph.places:
        name = free_name(place.label, taken, "place", longest=60)
        taken |= {name, f"h-{name}"}
        if name != place.label:
            notes.append(Note(graph.path, place.line, f"the name {place.label!r}", f"the router is named {name}"))
        names.append(name)
    return names


def _places_with_host(graph: Graph, demands: Mapping[tuple[int, int], float], notes: list[Note]) -> set[int]:
    if len(graph.places) <= HOSTS_EVERYWHERE_UP_TO:
        return set(range(len(graph.places)))
    ends = {place for pair in demands for place in pair}
    what = f"{len(graph.places)} places"
    why = f"above {HOSTS_EVERYWHERE_UP_TO}, only the {len(ends)} with a demand get a host"
    notes.append(Note(graph.path, 1, what, why))
    return ends


def _tell_gaps(graph: Graph, wires: Sequence[Wire], notes: list[Note], *, delays: bool) -> None:
    if not delays:
        notes.append(Note(graph.path, 1, "distances", "delay=off: links have no delay; costs follow distance"))
    unknown = [wire for wire in wires if wire.distance_km is None]
    if unknown:
        ends = f"{graph.places[unknown[0].a].label!r} and {graph.places[unknown[0].b].label!r}"
        what = f"{len(unknown)} of {len(wires)} edges without a distance, the first between {ends}"
        notes.append(Note(graph.path, unknown[0].line, what, f"no delay, and OSPF cost {UNKNOWN_COST}"))


def _cabled(
    k: int,
    wire: Wire,
    names: Sequence[str],
    at: Sequence[list[tuple[str, IPv4Interface, int]]],
    *,
    delays: bool,
) -> Link:
    """The link of a wire; its interfaces are added to those `at` both places."""
    known = wire.distance_km is not None and delays
    delay_us = round((wire.distance_km or 0.0) * US_PER_KM) if known else 0
    limits = Impairment(rate_bps=wire.rate_bps, delay_ns=delay_us * 1_000)
    ends = []
    for side, place in enumerate((wire.a, wire.b), 1):
        interface = f"eth{len(at[place])}"
        at[place].append((interface, IPv4Interface((_WIRES + 4 * k + side, 30)), _cost(wire)))
        ends.append(LinkEnd(names[place], interface, limits))
    a, b = ends
    return Link(a, b)


def _cost(wire: Wire) -> int:
    if wire.distance_km is None:
        return UNKNOWN_COST
    return min(max(round(wire.distance_km), 1), LARGEST_COST)


def _loopback(i: int) -> IPv4Address:
    return IPv4Address(_LOOPBACKS + i + 1)


def _router(name: str, wired: Sequence[tuple[str, IPv4Interface, int]], i: int, *, lan: bool) -> Node:
    interfaces = [Interface("lo", (IPv4Interface((int(_loopback(i)), 32)),))]
    interfaces += [Interface(port, (address,)) for port, address, _ in wired]
    if lan:
        interfaces.append(Interface("lan0", (IPv4Interface((_HOSTS + (i << 8) + 1, 24)),)))
    return Node(name, "router", tuple(interfaces))


def _frr_conf(name: str, wired: Sequence[tuple[str, IPv4Interface, int]], i: int, *, lan: bool) -> str:
    return "\n".join([*_frr_lines(name, wired, i, lan=lan), ""])


def _frr_lines(name: str, wired: Sequence[tuple[str, IPv4Interface, int]], i: int, *, lan: bool) -> Iterator[str]:
    yield from ("frr defaults traditional", f"hostname {name}", "service integrated-vtysh-config", "!")
    yield from ("interface lo", f" ip address {_loopback(i)}/32", " ip ospf area 0", "exit", "!")
    for port, address, cost in wired:
        yield from (f"interface {port}", f" ip address {address}", " ip ospf area 0", f" ip ospf cost {cost}")
        yield from (" ip ospf network point-to-point", "exit", "!")
    if lan:
        yield from ("interface lan0", f" ip address {IPv4Interface((_HOSTS + (i << 8) + 1, 24))}")
        yield from (" ip ospf area 0", " ip ospf passive", "exit", "!")
    yield from ("router ospf", f" ospf router-id {_loopback(i)}", "exit", "!", "end")


def node_label(text: object) -> str:
    """A label as one line of text, as files have blanks and line ends in it."""
    return re.sub(r"\s+", " ", str(text)).strip()
