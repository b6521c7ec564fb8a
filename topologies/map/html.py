"""A network map as one HTML file: an inline drawing, and tables that say the same in words.

It asks nobody for anything: no script, no font, no picture, and a policy (CSP) that forbids all of them.
Pure: text out. This file may not know any state of a running network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape

from topologies.imported import Position
from topologies.map.layout import DOT_RADIUS, MOST_LAYERED, Layout, Point, is_layered, layered, spread
from topologies.map.style import STYLE
from topologies.model import DEFAULT_MTU, Impairment, Link, Node, Topology

KINDS = ("edge", "firewall", "router", "loadbalancer", "bridge", "openvswitch", "host")
PARALLEL_GAP = 7.0
_SATELLITE_RADIUS = 5.0
_UNLIMITED = "unlimited"


def map_html(topology: Topology, positions: Mapping[str, Position] | None = None) -> str:
    """The network as a page; `positions` are coordinates of nodes where known, x to the right and y upwards."""
    known = {name: at for name, at in (positions or {}).items() if any(node.name == name for node in topology.nodes)}
    policy = f"default-src 'none'; style-src 'sha256-{_sha256(STYLE)}'; base-uri 'none'; form-action 'none'"
    title = escape(topology.name)
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}: network map</title>",
            f"<style>{STYLE}</style></head><body>",
            f"<header><h1>{title}</h1><p>{len(topology.nodes)} nodes, {len(topology.links)} links</p></header>",
            "<main>",
            *_legend(topology),
            *_drawings(topology, known),
            *_links_table(topology),
            *_nodes_table(topology),
            "</main></body></html>",
            "",
        )
    )


def limits_text(egress: Impairment) -> str:
    """What one direction of a link does to packets, in words; empty when it does nothing."""
    words = []
    if egress.rate_bps is not None:
        words.append(_rate(egress.rate_bps))
    if egress.delay_ns:
        words.append(f"{_ms(egress.delay_ns)} delay")
    if egress.pdv_ns:
        words.append(f"{_ms(egress.pdv_ns)} PDV")
    for name in ("loss", "duplicate", "reorder", "corrupt"):
        ratio = getattr(egress, f"{name}_ratio")
        if ratio:
            words.append(f"{ratio * 100:g} % {name}")
    if egress.queue_octets is not None:
        words.append(f"queue {egress.queue_octets:,} octets")
    return ", ".join(words)


def _rate(bps: int) -> str:
    size, unit = next(
        ((s, u) for s, u in ((10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s")) if bps >= s), (1, "")
    )
    return f"{bps / size:g} {unit or 'bit/s'}"


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.4g} ms"


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _legend(topology: Topology) -> Iterator[str]:
    present = {node.kind for node in topology.nodes}
    yield '<ul class="legend" aria-label="Kinds of node">'
    for kind in (*(k for k in KINDS if k in present), *sorted(present - set(KINDS))):
        shape = _shape(kind, (11.0, 11.0), DOT_RADIUS)
        count = sum(node.kind == kind for node in topology.nodes)
        drawing = f'<svg width="22" height="22" viewBox="0 0 22 22" aria-hidden="true">{shape}</svg>'
        yield f"<li>{drawing}{escape(kind)} <span>{count}</span></li>"
    yield "</ul>"


def _drawings(topology: Topology, positions: Mapping[str, Position]) -> Iterator[str]:
    if is_layered(topology, positions):
        for narrow in (False, True):
            layout = layered(topology, narrow=narrow)
            yield from _drawing(topology, layout, "narrow" if narrow else "wide")
    else:
        yield from _drawing(topology, spread(topology, positions), "spread")


def _drawing(topology: Topology, layout: Layout, name: str) -> Iterator[str]:
    size = f'viewBox="0 0 {layout.width:.0f} {layout.height:.0f}"'
    label = escape(f"Map of {topology.name}; the tables below say the same in words")
    yield f'<div class="map {name}" tabindex="0"><svg {size} role="img" aria-label="{label}">'
    lanes: dict[frozenset[str], list[Link]] = {}
    for link in topology.links:
        lanes.setdefault(frozenset((link.a.node, link.b.node)), []).append(link)
    for pair in lanes.values():
        for lane, link in enumerate(pair):
            yield _link(link, layout, lane - (len(pair) - 1) / 2)
    for node in topology.nodes:
        yield _node(node, layout)
    yield "</svg></div>"


def _link(link: Link, layout: Layout, lane: float) -> str:
    a, b = layout.at[link.a.node], layout.at[link.b.node]
    if link.b.node < link.a.node:
        lane = -lane
    a, b = _aside(a, b, lane * PARALLEL_GAP)
    line = f'x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"'
    limited = " limited" if limits_text(link.a.egress) or limits_text(link.b.egress) else ""
    told = escape("\n".join(_link_words(link)))
    return f'<g class="link{limited}"><title>{told}</title><line class="reach" {line}/><line {line}/></g>'


def _link_words(link: Link) -> list[str]:
    ends = f"{link.a.node}:{link.a.interface} – {link.b.node}:{link.b.interface}"
    mtu = [f"MTU {link.mtu}"] if link.mtu != DEFAULT_MTU else []
    there, back = limits_text(link.a.egress), limits_text(link.b.egress)
    if there == back:
        return [ends, *mtu, there or "no limits"]
    both = ((link.a.node, link.b.node, there), (link.b.node, link.a.node, back))
    return [ends, *mtu, *(f"{a} → {b}: {words or 'no limits'}" for a, b, words in both)]


def _aside(a: Point, b: Point, gap: float) -> tuple[Point, Point]:
    """A line moved aside, for links that run beside each other."""
    across, down = b[0] - a[0], b[1] - a[1]
    length = (across**2 + down**2) ** 0.5 or 1.0
    dx, dy = -down / length * gap, across / length * gap
    return (a[0] + dx, a[1] + dy), (b[0] + dx, b[1] + dy)


def _node(node: Node, layout: Layout) -> str:
    at = layout.at[node.name]
    addresses = [str(address) for interface in node.interfaces for address in interface.addresses]
    told = escape("\n".join((f"{node.name} ({node.kind})", *addresses)))
    name = escape(node.name)
    if layout.box is None:
        radius = _SATELLITE_RADIUS if node.name in layout.satellites else DOT_RADIUS
        text = ""
        if label := layout.labels.get(node.name):
            few = len(layout.at) <= MOST_LAYERED
            kind = f' <tspan class="of-kind">{escape(node.kind)}</tspan>' if few else ""
            text = (
                f'<text class="beside {label.anchor}" x="{label.at[0]:.1f}" y="{label.at[1]:.1f}">{name}{kind}</text>'
            )
        return f'<g class="node"><title>{told}</title>{_shape(node.kind, at, radius)}{text}</g>'
    width, height = layout.box
    most = int((width - 10) / 6.9)
    shown = name if len(node.name) <= most else escape(node.name[: most - 1] + "…")
    kind = node.kind if len(node.kind) * 5.4 < width else node.kind[: int(width / 5.4) - 1] + "…"
    return (
        f'<g class="node"><title>{told}</title>{_boxed(node.kind, at, width, height)}'
        f'<text class="name" x="{at[0]:.1f}" y="{at[1] - 2:.1f}">{shown}</text>'
        f'<text class="kind" x="{at[0]:.1f}" y="{at[1] + 13:.1f}">{escape(kind)}</text></g>'
    )


def _class(kind: str) -> str:
    return f"k-{kind}" if kind in KINDS else "k-other"


def _polygon(kind: str, points: tuple[Point, ...]) -> str:
    listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon class="{_class(kind)}" points="{listed}"/>'


def _shape(kind: str, at: Point, radius: float) -> str:
    """A kind's sign as a dot."""
    x, y = at
    r = radius
    match kind:
        case "router":
            return f'<circle class="k-router" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
        case "edge":
            outer = f'<circle class="k-edge" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
            return f'{outer}<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{r * 0.55:.1f}"/>'
        case "firewall":
            return _polygon(kind, tuple((x + dx * r, y + dy * r) for dx, dy in _HEXAGON))
        case "loadbalancer":
            return _polygon(kind, ((x - r, y + r * 0.8), (x, y - r), (x + r, y + r * 0.8)))
        case "bridge" | "openvswitch":
            return _polygon(kind, ((x, y - r), (x + r, y), (x, y + r), (x - r, y)))
        case _:
            side = r * 1.7
            corner = f'x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}"'
            return f'<rect class="{_class(kind)}" {corner}/>'


_HEXAGON = ((-1.0, 0.0), (-0.5, -0.9), (0.5, -0.9), (1.0, 0.0), (0.5, 0.9), (-0.5, 0.9))


def _boxed(kind: str, at: Point, width: float, height: float) -> str:
    """A kind's sign wide enough for a name."""
    x, y, w, h = *at, width / 2, height / 2
    match kind:
        case "firewall":
            return _polygon(
                kind,
                (
                    (x - w, y),
                    (x - w + 12, y - h),
                    (x + w - 12, y - h),
                    (x + w, y),
                    (x + w - 12, y + h),
                    (x - w + 12, y + h),
                ),
            )
        case "loadbalancer":
            return _polygon(kind, ((x - w + 12, y - h), (x + w - 12, y - h), (x + w, y + h), (x - w, y + h)))
        case _:
            round_by = {"router": h, "edge": h, "bridge": 0.0, "openvswitch": 0.0}.get(kind, 8.0)
            place = f'x="{x - w:.1f}" y="{y - h:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_by:.1f}"'
            outer = f'<rect class="{_class(kind)}" {place}/>'
            if kind == "edge":
                inner = f'x="{x - w + 4:.1f}" y="{y - h + 4:.1f}" width="{width - 8:.1f}" height="{height - 8:.1f}"'
                return f'{outer}<rect class="ring" {inner} rx="{h - 4:.1f}"/>'
            if kind in ("bridge", "openvswitch"):
                sides = (x - w + 5, x + w - 5)
                rails = "".join(
                    f'<line class="rail" x1="{s:.1f}" y1="{y - h:.1f}" x2="{s:.1f}" y2="{y + h:.1f}"/>' for s in sides
                )
                return outer + rails
            return outer


def _links_table(topology: Topology) -> Iterator[str]:
    yield '<h2>Links</h2><div class="table" tabindex="0"><table><thead><tr>'
    yield "".join(f'<th scope="col">{head}</th>' for head in ("Link", "MTU", "There", "Back")) + "</tr></thead><tbody>"
    for link in topology.links:
        ends = f"{escape(link.a.node)}:{escape(link.a.interface)} – {escape(link.b.node)}:{escape(link.b.interface)}"
        there, back = (escape(limits_text(end.egress) or _UNLIMITED) for end in (link.a, link.b))
        yield f'<tr><th scope="row">{ends}</th><td>{link.mtu}</td><td>{there}</td><td>{back}</td></tr>'
    yield "</tbody></table></div>"


def _nodes_table(topology: Topology) -> Iterator[str]:
    yield '<h2>Nodes</h2><div class="table" tabindex="0"><table><thead><tr>'
    yield "".join(f'<th scope="col">{head}</th>' for head in ("Node", "Kind", "Interfaces")) + "</tr></thead><tbody>"
    for node in topology.nodes:
        interfaces = "<br>".join(
            f"<b>{escape(interface.name)}</b> {escape(' '.join(str(a) for a in interface.addresses))}"
            for interface in node.interfaces
        )
        yield f'<tr><th scope="row">{escape(node.name)}</th><td>{escape(node.kind)}</td><td>{interfaces}</td></tr>'
    yield "</tbody></table></div>"
