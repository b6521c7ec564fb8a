"""What the nodes on some flows' way suffered, whoever did it: a sentence for each counter or state that clearly moved.

Knows what the kernel's, FRR's and HAProxy's readings mean; no config format, no change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testbed.attribution.ledger import Tally, number, rose
from testbed.attribution.scene import Scene
from testbed.devices.session_log import code_in_words
from testbed.shadow import PROGRAM

FRR = "frr.conf"
BUSY_SHARE = 0.8
"""Of one core: a daemon above it is told, when it was clearly below before."""

GREW_SHARE = 0.3
FULL_SHARE = 0.9
ORDINARY = ("--", "CD", "cD")
"""Ends of sessions that clients choose: the last two on connections kept open."""

TOLD = {
    ("icmp", "FragFails"): "packets too big to be forwarded",
    ("icmp", "Ip6FragFails"): "packets too big to be forwarded",
    ("icmp", "Icmp6OutPktTooBigs"): "packets too big to be forwarded",
    ("icmp", "OutNoRoutes"): "packets without a route",
    ("icmp", "Ip6OutNoRoutes"): "packets without a route",
    ("icmp", "OutDestUnreachs"): "ICMP unreachable sent",
    ("icmp", "Icmp6OutDestUnreachs"): "ICMPv6 unreachable sent",
    ("icmp", "InAddrErrors"): "packets for others, which this node does not forward",
    ("icmp", "Ip6InAddrErrors"): "packets for others, which this node does not forward",
    ("icmp", "InHdrErrors"): "packets whose hop limit was used up, or broken ones",
    ("icmp", "IPReversePathFilter"): "packets whose source the reverse-path filter refused",
    ("icmp", "ListenDrops"): "connections that a full listen queue refused",
    ("qdisc", "drops"): "packets that a full queue or a rate limit dropped",
    ("interface", "rx_errors"): "broken frames",
    ("conntrack", "insert_failed"): "connections that could not be tracked, and were dropped",
    ("conntrack", "drop"): "packets dropped because the connection table was full or an entry could not be made",
    ("conntrack", "early_drop"): "tracked connections thrown out to make room",
    ("conntrack", "invalid"): "packets that belong to no tracked connection",
}
"""What a counter means that grew."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something that a node's counters or states show; `metric` names what moved."""

    node: str
    kind: str
    object: str
    metric: str
    sentence: str


GRAVE = frozenset(
    {("conntrack", "drop"), ("conntrack", "insert_failed"), ("conntrack", "entries"), ("icmp", "ListenDrops")}
    | {("cpu", "share")}
)


def grave(one: Symptom) -> bool:
    """Whether it is a limit of the node itself that harms whoever passes."""
    return (one.kind, one.metric) in GRAVE


def symptoms(scene: Scene, flows: Sequence[str]) -> list[Symptom]:
    """What moved on the flows' way, node after node."""
    return [one for node in scene.nodes(flows) for one in of_node(scene, node)]


def of_node(scene: Scene, node: str) -> Iterator[Symptom]:
    """What moved on one node."""
    for (kind, metric), meaning in TOLD.items():
        for name, before, after in scene.ledger.objects(node, kind, metric):
            if rose(before, after):
                where = {"icmp": metric, "conntrack": f"conntrack {metric}"}.get(kind, f"{name} {kind} {metric}")
                counted = f"{number(before.mean)} → {number(after.mean)} a window ({meaning})"
                yield Symptom(node, kind, name, metric, f"{node}: {where} {counted}")
    yield from _table(scene, node)
    yield from _neighbours(scene, node)
    yield from _busy(scene, node)
    yield from _ends(scene, node)
    for name, before, after in scene.ledger.objects(node, "interface", "up"):
        if before.windows and before.mean and after.windows and not after.mean:
            yield Symptom(node, "interface", name, "up", f"{node} {name}: the interface went down")


def _table(scene: Scene, node: str) -> Iterator[Symptom]:
    """A connection table that is as good as full."""
    early, late = scene.ledger.read(node, "conntrack", "table", "entries")
    _, limit = scene.ledger.read(node, "conntrack", "table", "limit")
    if limit.mean > 0 and late.largest >= FULL_SHARE * limit.mean > early.largest:
        said = f"{node}: {number(late.largest)} connections tracked of {number(limit.mean)} that fit"
        yield Symptom(node, "conntrack", "table", "entries", said)


def parted(scene: Scene, node: str) -> bool:
    """Whether a router has lost a neighbour."""
    return any(one.metric == "state" for one in _neighbours(scene, node))


def _neighbours(scene: Scene, node: str) -> Iterator[Symptom]:
    """Routing neighbours that are in another state than before."""
    for name, before, after in scene.ledger.objects(node, "neighbour", "state"):
        if before.windows and before.state != after.state:
            said = f"{node}: neighbour {name}: {before.state} → {after.state or 'gone'}{named_at(scene, node, name)}"
            yield Symptom(node, "neighbour", name, "state", said)
    for name, before, after in scene.ledger.objects(node, "neighbour", "prefixes_received"):
        if before.windows and after.windows and before.mean != after.mean:
            said = f"{node}: neighbour {name}: {number(before.mean)} → {number(after.mean)} prefixes received"
            yield Symptom(node, "neighbour", name, "prefixes_received", said)


def named_at(scene: Scene, node: str, neighbour: str) -> str:
    """Where frr.conf names a neighbour, or the interface on which it is heard; empty where it does not."""
    who = neighbour.rsplit(maxsplit=1)[-1]
    written = f"neighbor {who} " if neighbour.startswith("bgp ") else f"interface {who}"
    for texts, sign in ((scene.after, ""), (scene.before, "before: ")):
        for line, text in enumerate(texts.get((node, FRR), "").splitlines(), start=1):
            if f"{text.strip()} ".startswith(f"{written.strip()} "):
                return f' ({sign}configs/{node}/{FRR}:{line} "{text.strip()}")'
    return ""


def _busy(scene: Scene, node: str) -> Iterator[Symptom]:
    """Daemons that take a core."""
    for name, *sides in scene.ledger.objects(node, "cpu", "cpu_seconds"):
        clocks = scene.ledger.read(node, "cpu", name, "clock_seconds")
        was, now = (_share(used, clock) for used, clock in zip(sides, clocks, strict=True))
        if now >= BUSY_SHARE and now - was >= GREW_SHARE:
            said = f"{node}: {_called(scene, node, name)} took {was:.0%} of a core before, {now:.0%} with the change"
            yield Symptom(node, "cpu", name, "share", said)


def _called(scene: Scene, node: str, name: str) -> str:
    """A daemon's name; the lab's own programs are only numbered."""
    place = name.removeprefix(PROGRAM)
    programs = scene.lab.topology.node(node).programs
    known = name.startswith(PROGRAM) and place.isdecimal() and int(place) < len(programs)
    return str(programs[int(place)][0]) if known else name


def _share(used: Tally, clock: Tally) -> float:
    return used.mean / clock.mean if clock.mean > 0 else 0.0


def _ends(scene: Scene, node: str) -> Iterator[Symptom]:
    """Termination codes in HAProxy's log that became more frequent."""
    for name, before, after in scene.ledger.objects(node, "proxy_log", "sessions"):
        server, _, code = name.rpartition(" ")
        if code not in ORDINARY and rose(before, after):
            said = (
                f"{node}: sessions of {server} that ended with termination code {code} ({code_in_words(code)})"
                f" {number(before.mean)} → {number(after.mean)} a window"
            )
            yield Symptom(node, "proxy_log", server, code, said)
