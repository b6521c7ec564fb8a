"""What two revisions of a lab.yaml differ in, as edits of links that can be made live; anything else cannot be tried.

May not know git, nor how a link is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from testbed.errors import InvalidInput
from topologies.load import KNOWN_KINDS, Lab, load_lab
from topologies.located import InvalidLab, read_located
from topologies.model import Impairment, Link, Topology
from topologies.schema import LabFile

ALIKE = "the same nodes and wires at both revisions; only what links do to packets can be changed live"


@dataclass(frozen=True, slots=True)
class LinkEdit:
    """One entry of change.yaml's links, and the line of the newer lab.yaml that it stems from."""

    text: str
    line: int


def link_edits(old: Path, new: Path, shown: Path, kinds: frozenset[str] = KNOWN_KINDS) -> tuple[LinkEdit, ...]:
    """Edits that turn the links of the lab `old` is in into those of `new`'s; InvalidInput for any other difference.

    `shown` stands for the newer file in messages.
    """
    was, now = _lab(old, old, kinds).topology, _lab(new, shown, kinds).topology
    located = read_located(new, LabFile)
    _refuse_other(was, now, shown)
    written = {_ends(link): link for link in was.links}
    lines = [located.line("topology", "links", number) for number in range(len(now.links))]
    return tuple(
        LinkEdit(_edit(written[_ends(link)], link, shown, line), line)
        for link, line in zip(now.links, lines, strict=True)
        if _oriented(written[_ends(link)], link) != link
    )


def _lab(path: Path, shown: Path, kinds: frozenset[str]) -> Lab:
    try:
        return load_lab(path.parent, kinds)
    except InvalidLab as error:
        mine = [replace(p, path=shown) if p.path == path.resolve() else p for p in error.problems]
        raise InvalidInput.of(InvalidLab.of(mine)) from None


def _refuse_other(was: Topology, now: Topology, shown: Path) -> None:
    before, after = ({n.name: replace(n, configs={}) for n in side.nodes} for side in (was, now))
    other = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if other:
        raise InvalidInput(shown, 1, 1, f"nodes that differ from the base's: {', '.join(other[:8])}", ALIKE)
    if {_ends(link) for link in was.links} != {_ends(link) for link in now.links}:
        wires = {_ends(link) for link in was.links} ^ {_ends(link) for link in now.links}
        named = ", ".join(sorted(" - ".join(sorted(":".join(end) for end in pair)) for pair in wires)[:4])
        raise InvalidInput(shown, 1, 1, f"wires that only one revision has: {named}", ALIKE)


def _ends(link: Link) -> frozenset[tuple[str, str]]:
    return frozenset({(link.a.node, link.a.interface), (link.b.node, link.b.interface)})


def _oriented(link: Link, like: Link) -> Link:
    """The link written from the same end as `like`."""
    straight = (link.a.node, link.a.interface) == (like.a.node, like.a.interface)
    return link if straight else replace(link, a=link.b, b=link.a)


def _edit(before: Link, after: Link, shown: Path, line: int) -> str:
    old = _oriented(before, after)
    keys: dict[str, object] = {"endpoints": [f"{end.node}:{end.interface}" for end in (after.a, after.b)]}
    if after.mtu != old.mtu:
        keys["mtu"] = after.mtu
    for name, was, now in (("a-to-b", old.a.egress, after.a.egress), ("b-to-a", old.b.egress, after.b.egress)):
        if was != now:
            keys[name] = dict(_limits(was, now, shown, line))
    # JSON is YAML, with every text in quotes
    return json.dumps(keys)


def _limits(was: Impairment, now: Impairment, shown: Path, line: int) -> Iterator[tuple[str, object]]:
    for name, key, old, new in (
        ("rate", "rate", was.rate_bps, now.rate_bps),
        ("queue", "queue", was.queue_octets, now.queue_octets),
    ):
        if old != new:
            if new is None:
                raise InvalidInput(shown, line, 1, f"a link without the {name} that the base has", f"a {name}")
            yield key, f"{new}bit" if key == "rate" else new
    for key, old_ns, new_ns in (("delay", was.delay_ns, now.delay_ns), ("pdv", was.pdv_ns, now.pdv_ns)):
        if old_ns != new_ns:
            yield key, f"{new_ns}ns"
    for key, old_ratio, new_ratio in (
        ("loss", was.loss_ratio, now.loss_ratio),
        ("duplicate", was.duplicate_ratio, now.duplicate_ratio),
        ("reorder", was.reorder_ratio, now.reorder_ratio),
        ("corrupt", was.corrupt_ratio, now.corrupt_ratio),
    ):
        if old_ratio != new_ratio:
            yield key, new_ratio if new_ratio < 1 else "100%"
