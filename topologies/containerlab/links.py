"""The links of a containerlab file, in their short and their long form.

Pure: a file's links in, links of the model out. This file may not know what a node runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_interface

from topologies.containerlab.schema import ClabFile, EndPoint, LongLink, OtherLink, ShortLink
from topologies.imported import Note
from topologies.located import Loc, Located, Problem, nearest
from topologies.model import IpInterface, Link, LinkEnd
from topologies.schema import interface_name_ok

VETH_MTU = 9500
"""What containerlab gives a link that names no MTU."""

OUTSIDE = frozenset({"host", "mgmt-net", "macvlan", "vxlan", "vxlan-stitch", "dummy"})
WHY_OUTSIDE = "a lab is closed: no link leads to the machine or its networks; left out"


@dataclass(frozen=True, slots=True)
class End:
    """A node's end of a link, with what the long form says of it."""

    node: str
    interface: str
    mac: str | None = None
    addresses: tuple[IpInterface, ...] = ()


@dataclass(slots=True)
class Cabling:
    """All links, with the ends of each node in the order of the file."""

    links: list[Link] = field(default_factory=list)
    ends: dict[str, list[End]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def cabling(lab: Located[ClabFile]) -> Cabling:
    """Links between nodes of the file; those that lead out of the lab are noted."""
    found = Cabling()
    used: dict[tuple[str, str], int] = {}
    for i, link in enumerate(lab.model.topology.links):
        loc: Loc = ("topology", "links", i)
        for key in link.unknown:
            what = f"{key!r} of a link"
            found.notes.append(Note(lab.path, lab.line(*loc, key), what, "it has no counterpart in a lab"))
        if isinstance(link, OtherLink):
            found.notes.append(Note(lab.path, lab.line(*loc), f"a link of type {link.type}", WHY_OUTSIDE))
            continue
        ends = [_end(lab, (*loc, "endpoints", side), link, side, found) for side in (0, 1)]
        if any(end.node in OUTSIDE and end.node not in lab.model.topology.nodes for end in ends if end):
            what = f"a link between {' and '.join(f'{end.node}:{end.interface}' for end in ends if end)}"
            found.notes.append(Note(lab.path, lab.line(*loc), what, WHY_OUTSIDE))
            continue
        good = [
            end for side, end in enumerate(ends) if end and _sound(lab, (*loc, "endpoints", side), end, used, found)
        ]
        if len(good) == 2:
            a, b = (LinkEnd(end.node, end.interface) for end in good)
            found.links.append(Link(a, b, link.mtu or VETH_MTU))
            for end in good:
                found.ends.setdefault(end.node, []).append(end)
    return found


def _end(lab: Located[ClabFile], loc: Loc, link: ShortLink | LongLink, side: int, found: Cabling) -> End | None:
    written = link.endpoints[side]
    if isinstance(written, EndPoint):
        for key in written.unknown:
            what = f"{key!r} of an end point"
            found.notes.append(Note(lab.path, lab.line(*loc, key), what, "it has no counterpart in a lab"))
        return End(
            written.node, written.interface, written.mac and written.mac.lower(), _addresses(lab, loc, written, found)
        )
    node, colon, interface = written.partition(":")
    if not colon:
        found.problems.append(lab.problem(loc, f"the end point {written[:80]!r}", "NODE:INTERFACE"))
        return None
    return End(node, interface)


def _addresses(lab: Located[ClabFile], loc: Loc, written: EndPoint, found: Cabling) -> tuple[IpInterface, ...]:
    addresses = []
    for key, version in (("ipv4", 4), ("ipv6", 6)):
        text = getattr(written, key)
        if text is None:
            continue
        try:
            address = ip_interface(text)
        except ValueError:
            address = None
        if address is None or address.version != version or "/" not in text:
            expected = f"an IPv{version} address with its prefix length"
            found.problems.append(lab.problem((*loc, key), f"{key} {text[:80]!r}", expected))
        else:
            addresses.append(address)
    return tuple(addresses)


def _sound(lab: Located[ClabFile], loc: Loc, end: End, used: dict[tuple[str, str], int], found: Cabling) -> bool:
    nodes = lab.model.topology.nodes
    at = end.node, end.interface
    if end.node not in nodes:
        wanted = nearest(end.node, nodes)
        found.problems.append(lab.problem(loc, f"a link to node {end.node[:80]!r}, which does not exist", wanted))
    elif not interface_name_ok(end.interface) or end.interface == "lo":
        expected = "an interface name without blanks, not lo"
        found.problems.append(lab.problem(loc, f"the interface {end.interface[:80]!r}", expected))
    elif at in used:
        expected = f"one link an interface (first at line {used[at]})"
        found.problems.append(lab.problem(loc, f"a second link at '{end.node}:{end.interface}'", expected))
    else:
        used[at] = lab.line(*loc)
        return True
    return False
