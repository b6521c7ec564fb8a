"""A topology as Mermaid text, for README files, reports and terminals that draw it.

Pure: text out. This file may not know any state of a running network.
"""

from __future__ import annotations

from topologies.model import Link, LinkEnd, Topology

_SHAPES = {
    "edge": ("((", "))"),
    "firewall": ("{{", "}}"),
    "router": ("([", "])"),
    "loadbalancer": ("[/", "\\]"),
    "bridge": ("[[", "]]"),
}
_BOX = ("[", "]")


def mermaid(topology: Topology) -> str:
    """The network as a left-to-right Mermaid flow chart, nodes shaped by kind and links labelled with their limits."""
    ids = {node.name: f"n{i}" for i, node in enumerate(topology.nodes)}
    lines = ["graph LR"]
    for node in topology.nodes:
        opening, closing = _SHAPES.get(node.kind, _BOX)
        lines.append(f'  {ids[node.name]}{opening}"{node.name}<br/>{_escaped(node.kind)}"{closing}')
    for link in topology.links:
        label = _escaped(_label(link))
        lines.append(f'  {ids[link.a.node]} ---|"{label}"| {ids[link.b.node]}')
    return "\n".join(lines) + "\n"


def _label(link: Link) -> str:
    ends = f"{link.a.interface} - {link.b.interface}"
    limits = list(dict.fromkeys(filter(None, (_limits(link.a), _limits(link.b)))))
    return ", ".join((ends, *limits))


def _limits(end: LinkEnd) -> str:
    egress = end.egress
    words = []
    if egress.rate_bps is not None:
        words.append(f"{egress.rate_bps / 1e6:g} Mbit/s")
    if egress.delay_ns:
        words.append(f"{egress.delay_ns / 1e6:g} ms")
    if egress.loss_ratio:
        words.append(f"{egress.loss_ratio * 100:g} % loss")
    return " ".join(words)


def _escaped(text: str) -> str:
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("|", "#124;").replace("<", "#lt;")
