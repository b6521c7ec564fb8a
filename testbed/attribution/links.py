"""Link edits as suspects: MTU, rate, delay and loss of the wires on a flow's way.

Knows the change's links and the kernel's interface, queue and ICMP counters, no config format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.attribution.ledger import number, rose
from testbed.attribution.scene import Scene
from testbed.attribution.suspect import Ground, Suspect
from testbed.change.model import Line, LinkChange
from topologies.model import Impairment, Link

PATH_MTU_COUNTERS = (("ip", "FragFails"), ("ip6", "Ip6FragFails"), ("ip6", "Icmp6OutPktTooBigs"))
QUEUE_COUNTERS = (("qdisc", "drops"), ("interface", "tx_dropped"), ("interface", "rx_dropped"))
PLAIN = Impairment()


def suspects(scene: Scene, flows: Sequence[str]) -> list[Suspect]:
    """Every changed link that joins two neighbours on these flows' way."""
    found = []
    order = scene.nodes(flows)
    for edit in scene.change.links:
        touched = frozenset(f for f in flows if f in scene.journeys and scene.journeys[f].joins(edit.a[0], edit.b[0]))
        link = scene.lab.topology.link_at(*edit.a)
        line = _line(scene, edit)
        if touched and link is not None and line is not None:
            place = min((order.index(n) for n in (edit.a[0], edit.b[0]) if n in order), default=0)
            found.append(_suspect(scene, edit, link, line, touched, place))
    return found


def path_mtu_errors(scene: Scene, nodes: Iterable[str]) -> list[str]:
    """What the nodes counted of packets that were too big to forward, a sentence each."""
    said = []
    for node in nodes:
        for name, metric in PATH_MTU_COUNTERS:
            before, after = scene.ledger.read(node, "icmp", name, metric)
            if rose(before, after):
                said.append(
                    f"{node}: {metric} {number(before.mean)} → {number(after.mean)} a window"
                    " (packets too big to be forwarded)"
                )
    return said


def _line(scene: Scene, edit: LinkChange) -> Line | None:
    own = [line for line in scene.change.lines if line.interface is not None and line.line == edit.line]
    return next((line for line in own if (line.node, line.interface) == edit.a), None)


def _suspect(scene: Scene, edit: LinkChange, link: Link, line: Line, touched: frozenset[str], place: int) -> Suspect:
    name = f"link {':'.join(edit.a)} – {':'.join(edit.b)}"
    said: list[str] = []
    seen: list[str] = []
    if edit.mtu != link.mtu:
        said.append(f"{name}: MTU {link.mtu} → {edit.mtu} octets")
        said += [s for end in (edit.a, edit.b) if (s := _mtu(scene, *end))]
        seen += path_mtu_errors(scene, scene.nodes(sorted(touched)))
    for end, was, now in ((edit.a, link.a.egress, edit.a_to_b), (edit.b, link.b.egress, edit.b_to_a)):
        said += [f"{':'.join(end)} egress: {words}" for words in _differences(was, now)]
    for node, interface in (edit.a, edit.b):
        for kind, metric in QUEUE_COUNTERS:
            before, after = scene.ledger.read(node, kind, interface, metric)
            if rose(before, after):
                counted = f"{number(before.mean)} → {number(after.mean)} a window"
                seen.append(f"{node} {interface}: {kind} {metric.replace('_', ' ')} {counted}")
    shaped = edit.a_to_b != link.a.egress or edit.b_to_a != link.b.egress
    # delay and loss act without any counter of the kernel's
    ground = Ground.LINK_SEEN if seen or (shaped and not _slower_only(edit, link)) else Ground.PLAUSIBLE
    return Suspect(ground, edit.a[0], name, line, (*said, *seen), touched, (place, edit.line))


def _mtu(scene: Scene, node: str, interface: str) -> str:
    before, after = scene.ledger.read(node, "interface", interface, "mtu")
    if not after.windows or before.mean == after.mean:
        return ""
    return f"{node} {interface}: the kernel's MTU was {number(before.mean)}, it is {number(after.mean)}"


def _slower_only(edit: LinkChange, link: Link) -> bool:
    """Whether only rate or queue differ, which a queue's counters would show."""
    pairs = ((link.a.egress, edit.a_to_b), (link.b.egress, edit.b_to_a))
    return all(not set(_differing(was, now)) - {"rate_bps", "queue_octets"} for was, now in pairs)


def _differing(was: Impairment, now: Impairment) -> list[str]:
    return [name for name in PLAIN.__dataclass_fields__ if getattr(was, name) != getattr(now, name)]


def _differences(was: Impairment, now: Impairment) -> list[str]:
    return [
        f"{name} {_quantity(getattr(was, name))} → {_quantity(getattr(now, name))}" for name in _differing(was, now)
    ]


def _quantity(value: float | None) -> str:
    return "unlimited" if value is None else f"{value:g}" if isinstance(value, float) else f"{value:,}"
