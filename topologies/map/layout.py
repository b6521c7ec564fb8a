"""Where the nodes, links and labels of a network map lie, in pixels.

    layered    boxes in columns (or rows) by their distance from the edges; labels lie inside the boxes
    spread     dots at given coordinates, or pulled apart by the links; labels beside them where there is room

Pure, and the same for the same topology. This file may not know colours or markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from topologies.imported import Position
from topologies.model import Topology

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

MOST_LAYERED = 40
MOST_PULLED = 150
"""Beyond it, the springs of all pairs take too long, and those of links alone must do."""

MARGIN = 40.0
SPREAD_WIDTH = 1_180.0
_ROOM = SPREAD_WIDTH - 2 * MARGIN - 60
MOST_HEIGHT = 1_100.0
HEIGHT_A_NODE = 34.0
DOT_RADIUS = 8.0
LABEL_HEIGHT = 15.0
LABEL_GAP = 5.0
CHARACTER = 6.7
SATELLITE = 17.0
BOX = (116.0, 46.0)
NARROW_BOX = (69.0, 46.0)
NARROW_WIDTH = 370.0
SEED = 7


@dataclass(frozen=True, slots=True)
class Label:
    """Where a label is anchored: `start` left of the text, `end` right of it, `middle` in its centre."""

    at: Point
    anchor: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A map's size, its nodes' centres and, where nodes are dots, their labels; `box` is a node's size if not a dot.

    `satellites` are hosts drawn small at the only node they are linked to, without a label of their own.
    """

    width: float
    height: float
    at: Mapping[str, Point]
    box: tuple[float, float] | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    satellites: frozenset[str] = frozenset()


def is_layered(topology: Topology, positions: Mapping[str, Position]) -> bool:
    """Whether the network is drawn in layers: it has edges to begin at, is not too large and has no places."""
    return not positions and len(topology.nodes) <= MOST_LAYERED and any(n.kind == "edge" for n in topology.nodes)


def layered(topology: Topology, *, narrow: bool) -> Layout:
    """Columns from left to right, or (`narrow`) rows from top to bottom that fit a telephone."""
    layers = _layers(topology)
    if narrow:
        per_row = int(NARROW_WIDTH // (NARROW_BOX[0] + 4))
        rows = [layer[i : i + per_row] for layer in layers for i in range(0, len(layer), per_row)]
        at = {
            name: (NARROW_WIDTH * (j + 1) / (len(row) + 1) if len(row) < per_row else _even(j, per_row), 40 + 92.0 * i)
            for i, row in enumerate(rows)
            for j, name in enumerate(row)
        }
        return Layout(NARROW_WIDTH, 92.0 * len(rows), at, NARROW_BOX)
    tallest = max(map(len, layers))
    height = max(260.0, tallest * 82.0 + 30)
    step = max(170.0, (SPREAD_WIDTH - BOX[0] - 40) / max(len(layers) - 1, 1))
    step = min(step, 230.0)
    at = {
        name: (BOX[0] / 2 + 20 + step * i, height * (2 * j + 1) / (2 * len(layer)))
        for i, layer in enumerate(layers)
        for j, name in enumerate(layer)
    }
    return Layout(step * (len(layers) - 1) + BOX[0] + 40, height, at, BOX)


def spread(topology: Topology, positions: Mapping[str, Position]) -> Layout:
    """Dots with labels; nodes without coordinates lie by their neighbours that have some."""
    graph = _graph(topology)
    satellites = _satellites(topology, graph, positions)
    main = [node.name for node in topology.nodes if node.name not in satellites]
    known = {name: positions[name] for name in main if name in positions}
    if known:
        raw = _with_neighbours(graph.subgraph(main), known)
        latitude = math.radians(sum(y for _, y in known.values()) / len(known))
        wide = max(math.cos(latitude), 0.2) if all(abs(y) <= 90 for _, y in known.values()) else 1.0
        at, height = _in_shape({name: (x * wide, y) for name, (x, y) in raw.items()})
    else:
        at, height = _stretched(_pulled(graph.subgraph(main)))
    segments = [(at[a], at[b]) for a, b in graph.edges if a in at and b in at]
    kinds = {node.name: node.kind for node in topology.nodes} if len(topology.nodes) <= MOST_LAYERED else {}
    words = {name: f"{name} {kinds[name]}" if kinds else name for name in main}
    labels = _labels(words, at, segments, height)
    for name in sorted(satellites):
        (hub,) = graph[name]
        at[name] = _beside(at[hub], labels[hub], [at[other] for other in graph[hub] if other not in satellites])
    return Layout(SPREAD_WIDTH, height, at, None, labels, satellites)


def _even(j: int, count: int) -> float:
    return NARROW_WIDTH * (2 * j + 1) / (2 * count)


def _graph(topology: Topology) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(node.name for node in topology.nodes)
    graph.add_edges_from((link.a.node, link.b.node) for link in topology.links)
    return graph


def _layers(topology: Topology) -> list[list[str]]:
    """Nodes by their distance from the nearest edge, each layer in the order that crosses few links."""
    graph = _graph(topology)
    edges = [node.name for node in topology.nodes if node.kind == "edge"]
    away = nx.multi_source_dijkstra_path_length(graph, edges, weight=None)
    furthest = max(away.values())
    layers: list[list[str]] = [[] for _ in range(furthest + 1)]
    for node in topology.nodes:
        if node.name in away:
            layers[away[node.name]].append(node.name)
    lone = [node.name for node in topology.nodes if node.name not in away]
    if lone:
        layers.append(lone)
    for _ in range(4):
        for i in (*range(1, len(layers)), *range(len(layers) - 2, -1, -1)):
            _order(layers, i, graph)
    return layers


def _order(layers: list[list[str]], i: int, graph: nx.Graph) -> None:
    """Sort a layer by the mean height of its neighbours in the layers beside it."""
    place = {
        name: (j + 0.5) / len(layers[k])
        for k in (i - 1, i + 1)
        if 0 <= k < len(layers)
        for j, name in enumerate(layers[k])
    }
    own = {name: (j + 0.5) / len(layers[i]) for j, name in enumerate(layers[i])}

    def mean(name: str) -> float:
        beside = [place[other] for other in graph[name] if other in place]
        return sum(beside) / len(beside) if beside else own[name]

    layers[i].sort(key=mean)


def _satellites(topology: Topology, graph: nx.Graph, positions: Mapping[str, Position]) -> frozenset[str]:
    """Where a map would be crowded: hosts whose only link leads to a node that has no other such host."""
    if len(topology.nodes) <= MOST_LAYERED and not positions:
        return frozenset()
    hubs: dict[str, list[str]] = {}
    for node in topology.nodes:
        if node.kind == "host" and node.name not in positions and graph.degree[node.name] == 1:
            hubs.setdefault(next(iter(graph[node.name])), []).append(node.name)
    return frozenset(hosts[0] for hub, hosts in hubs.items() if len(hosts) == 1 and graph.degree[hub] > 1)


def _with_neighbours(graph: nx.Graph, known: Mapping[str, Position]) -> dict[str, Point]:
    """The known coordinates, and for each other node a place near its neighbours."""
    at = {name: (float(x), float(y)) for name, (x, y) in known.items()}
    reach = max(_extent(x for x, _ in at.values()), _extent(y for _, y in at.values())) or 1.0
    for k, name in enumerate([name for name in graph if name not in at]):
        beside = [at[other] for other in sorted(graph[name]) if other in at] or list(at.values())
        x, y = (sum(values) / len(beside) for values in zip(*beside, strict=True))
        at[name] = (x + 0.08 * reach * math.cos(2.4 * k), y + 0.08 * reach * math.sin(2.4 * k))
    return at


def _pulled(graph: nx.Graph) -> dict[str, Point]:
    """Where the links pull the nodes, each part of the network beside the next."""
    at: dict[str, Point] = {}
    offset = 0.0
    for names in sorted(nx.connected_components(graph), key=lambda part: (-len(part), min(part))):
        part = graph.subgraph(names)
        if len(part) == 1:
            own = {next(iter(part)): (0.0, 0.0)}
        elif len(part) <= MOST_PULLED:
            own = nx.kamada_kawai_layout(nx.Graph(sorted(part.edges)))
        else:
            own = nx.spring_layout(part, seed=SEED, iterations=60)
        size = math.sqrt(len(part))
        left = min(float(x) for x, _ in own.values())
        at |= {name: (offset + (float(x) - left) * size, float(y) * size) for name, (x, y) in own.items()}
        offset = max(x for x, _ in at.values()) + 1.0
    return at


def _extent(values: Iterable[float]) -> float:
    listed = list(values)
    return max(listed) - min(listed)


def _in_shape(raw: Mapping[str, Point]) -> tuple[dict[str, Point], float]:
    """Coordinates scaled into the map, one scale for both so that a country keeps its shape; and the map's height."""
    across, down = _extent(x for x, _ in raw.values()), _extent(y for _, y in raw.values())
    scales = [room / extent for room, extent in ((_ROOM, across), (MOST_HEIGHT, down)) if extent]
    scale = min(scales, default=1.0)
    return _placed(raw, scale, scale, max(down * scale, 120.0))


def _stretched(raw: Mapping[str, Point]) -> tuple[dict[str, Point], float]:
    """Coordinates without a shape of their own, over the whole map."""
    across, down = _extent(x for x, _ in raw.values()), _extent(y for _, y in raw.values())
    height = min(max(HEIGHT_A_NODE * len(raw), 300.0), MOST_HEIGHT)
    return _placed(raw, _ROOM / across if across else 1.0, height / down if down else 1.0, height)


def _placed(raw: Mapping[str, Point], wide: float, high: float, height: float) -> tuple[dict[str, Point], float]:
    """Scaled, centred, and with y turned downwards."""
    left, top = min(x for x, _ in raw.values()), max(y for _, y in raw.values())
    across, down = _extent(x for x, _ in raw.values()) * wide, _extent(y for _, y in raw.values()) * high
    x0, y0 = (SPREAD_WIDTH - across) / 2, MARGIN + (height - down) / 2
    return {name: (x0 + (x - left) * wide, y0 + (top - y) * high) for name, (x, y) in raw.items()}, height + 2 * MARGIN


def _labels(
    words: Mapping[str, str], at: Mapping[str, Point], segments: Sequence[tuple[Point, Point]], height: float
) -> dict[str, Label]:
    """Each label on the side of its dot where it covers least: other labels first, then dots, then links."""
    dots = [(x - DOT_RADIUS, y - DOT_RADIUS, x + DOT_RADIUS, y + DOT_RADIUS) for x, y in at.values()]
    taken: list[Box] = []
    labels: dict[str, Label] = {}
    crowded = sorted(words, key=lambda name: (-_near(at[name], at.values()), name))
    for name in crowded:
        x, y = at[name]
        width = len(words[name]) * CHARACTER
        best: tuple[float, Label, Box] | None = None
        for order, (label, box) in enumerate(_candidates(x, y, width)):
            out = box[0] < 2 or box[2] > SPREAD_WIDTH - 2 or box[1] < 2 or box[3] > height - 2
            cost = order * 0.4 + 1_000 * out
            cost += 60 * sum(_meet(box, other) for other in taken)
            cost += 25 * sum(_meet(box, dot) for dot in dots)
            cost += 4 * sum(_crosses(box, a, b) for a, b in segments)
            if best is None or cost < best[0]:
                best = (cost, label, box)
        if best is not None:
            labels[name] = best[1]
            taken.append(best[2])
    return labels


def _near(point: Point, others: Iterable[Point]) -> int:
    return sum(math.dist(point, other) < 70 for other in others)


def _candidates(x: float, y: float, width: float) -> Iterable[tuple[Label, Box]]:
    side, half = DOT_RADIUS + LABEL_GAP, LABEL_HEIGHT / 2
    for dx, dy, anchor in (
        (side, 0.0, "start"),
        (-side, 0.0, "end"),
        (0.0, -side - half, "middle"),
        (0.0, side + half, "middle"),
        (side - 3, -side, "start"),
        (side - 3, side, "start"),
        (3 - side, -side, "end"),
        (3 - side, side, "end"),
    ):
        left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = (left, y + dy - half, left + width, y + dy + half)
        yield Label((x + dx, y + dy + 4.2), anchor), box


def _beside(hub: Point, label: Label, others: Sequence[Point]) -> Point:
    """The side of a dot that is furthest from its label and its links."""
    angles = [math.atan2(y - hub[1], x - hub[0]) for x, y in others]
    dx = {"start": 1.0, "end": -1.0, "middle": 0.0}[label.anchor]
    angles.append(math.atan2((label.at[1] - 4.2 - hub[1]) / LABEL_HEIGHT, dx))

    def room(angle: float) -> float:
        return min((abs(math.remainder(angle - other, math.tau)) for other in angles), default=math.pi)

    best = max((math.tau * k / 16 for k in range(16)), key=room)
    return hub[0] + SATELLITE * math.cos(best), hub[1] + SATELLITE * math.sin(best)


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _crosses(box: Box, a: Point, b: Point) -> bool:
    """Whether a segment passes through a box, looked at in a few of its points."""
    if not _meet(box, (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1]))):
        return False
    steps = max(2, int(math.dist(a, b) / 6))
    return any(
        box[0] <= a[0] + (b[0] - a[0]) * k / steps <= box[2] and box[1] <= a[1] + (b[1] - a[1]) * k / steps <= box[3]
        for k in range(steps + 1)
    )
