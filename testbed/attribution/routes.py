"""Routes as suspects: next hops that moved and black holes that opened, and the lines of frr.conf that did it.

Knows the kernel's route tables and FRR's file format, no packet filter and no proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from testbed.attribution.edits import successor
from testbed.attribution.scene import Scene
from testbed.attribution.suspect import Ground, Suspect, where
from testbed.attribution.symptoms import named_at
from testbed.attribution.way import own_addresses
from testbed.change.model import Line
from testbed.paths import HOPS, Atlas
from topologies.model import IpAddress, IpNetwork

FILE = "frr.conf"
ENDS = frozenset({"blackhole", "unreachable", "prohibit", "throw"})
LOST = "no route"
_STATIC = re.compile(r"^(?:no )?(?:ip|ipv6) route (\S+) +(\S+)")
_NOWHERE = frozenset({"null0", "blackhole", "reject"})
_STEERS = re.compile(
    r"\b(cost|metric|network|distance|route-map|redistribute|default-information|neighbor|passive|passive-interface|"
    r"shutdown|area|hello-interval|dead-interval|authentication|mtu-ignore|prefix-list|access-list|local-preference|"
    r"as-path|weight|summary-address|range|stub|bandwidth|max-metric|route)\b"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A node that sends some flows elsewhere than before, or nowhere."""

    node: str
    prefix: str
    before: str
    after: str
    flows: frozenset[str]
    onward: str = ""
    learnt: str = ""

    @property
    def sentence(self) -> str:
        """As evidence."""
        said = f"{self.node}: {self.prefix} via {self.before} → {self.after} ({len(self.flows)} of the flows)"
        return "; ".join(filter(None, (said, self.onward, self.learnt)))

    @property
    def devices(self) -> frozenset[str]:
        """The interfaces that the way left and entered."""
        hops = f"{self.before},{self.after}".split(",")
        return frozenset(hop.partition("@")[2] for hop in hops if "@" in hop)


@dataclass(frozen=True, slots=True)
class Moved:
    """How two tables differ for one address: the prefix that came or went, both ways, and the prefix of each."""

    prefix: str
    was: str
    now: str
    old_prefix: str
    new_prefix: str


Table = Sequence[tuple[IpNetwork, str, str]]


def suspects(scene: Scene, flows: Sequence[str]) -> list[Suspect]:
    """The changed routing lines behind every turn that these flows' packets take now."""
    turns = [turn for node in scene.nodes(flows) for turn in _turns(scene, node, flows)]
    if not turns:
        return []
    order = scene.nodes(flows)
    neighbours = _neighbours(scene)
    found = []
    for node in [*order, *sorted(n.name for n in scene.lab.topology.nodes if n.name not in order)]:
        for line in _routing_lines(scene, node):
            suspect = _suspect(scene, line, turns, neighbours.get(node, {}), order)
            if suspect is not None:
                found.append(suspect)
    return found


def turns_told(scene: Scene, flows: Sequence[str]) -> list[str]:
    """Every turn as a sentence, for a blame that is not a route's."""
    return [turn.sentence for node in scene.nodes(flows) for turn in _turns(scene, node, flows)]


def _turns(scene: Scene, node: str, flows: Sequence[str]) -> list[Turn]:
    early, late = _table(scene, node, late=False), _table(scene, node, late=True)
    if not early or not late or early == late:
        return []
    hurt: dict[Moved, set[str]] = {}
    towards: dict[Moved, IpAddress] = {}
    looked: dict[IpAddress, Moved | None] = {}
    for flow in flows:
        # in one order, so that the same run is told in the same words
        for address in sorted(_wanted(scene, flow, node), key=lambda one: (one.version, int(one))):
            if address not in looked:
                looked[address] = _difference(early, late, address)
            key = looked[address]
            if key is not None:
                hurt.setdefault(key, set()).add(flow)
                towards[key] = min(address, towards.get(key, address), key=str)
    return [
        Turn(
            node,
            key.prefix,
            key.was,
            key.now,
            frozenset(who),
            _onward(scene, node, key.now, towards[key]),
            _learnt(scene, node, key),
        )
        for key, who in hurt.items()
    ]


def _difference(early: Table, late: Table, address: IpAddress) -> Moved | None:
    (old, was, old_name), (new, now, new_name) = _lookup(early, address), _lookup(late, address)
    # the more specific of the two is the one that came or went
    return None if was == now else Moved(new_name if new >= old else old_name, was, now, old_name, new_name)


def _learnt(scene: Scene, node: str, moved: Moved) -> str:
    """From which protocol FRR had the routes, with distance and metric; empty where no FRR is or neither moved."""
    was = scene.ledger.read(node, "rib", moved.old_prefix, "route")[0].state
    now = scene.ledger.read(node, "rib", moved.new_prefix, "route")[1].state
    # the next hops are told as the kernel has them
    old, new = (
        " ".join([prefix, *state.split()[:2]]) for prefix, state in ((moved.old_prefix, was), (moved.new_prefix, now))
    )
    if old == new or not (was or now):
        return ""
    return f"FRR: {old if was else LOST} → {new if now else LOST}"


def _onward(scene: Scene, node: str, state: str, address: IpAddress) -> str:
    """Where the new way ends, when it does not reach the address: an old black hole that nobody used before."""
    if state in ENDS or state == LOST:
        return ""
    names = [n.name for n in scene.lab.topology.nodes]
    tables = {n: [(network, via) for network, via, _ in _table(scene, n, late=True)] for n in names}
    way = Atlas(scene.lab.topology, tables).way(node, str(address))
    if way[-1] in ENDS:
        place = _null_route(scene, way[-2], address)
        ends = f"the new way to {address} ends in a {way[-1]} on {way[-2]}, which was there before"
        return f"{ends}; not part of the change: {place}" if place else ends
    return f"the new way to {address} turns in a circle: {'>'.join(way[:5])}…" if len(way) > HOPS else ""


def _null_route(scene: Scene, node: str, address: IpAddress) -> str:
    """The line of frr.conf that sends an address nowhere, if it is no line of the change; empty where none does."""
    changed = {line.line for line in scene.lines(node, FILE) if line.sign == "+"}
    best, told = -1, ""
    for number, text in enumerate(scene.after.get((node, FILE), "").splitlines(), start=1):
        found = _STATIC.match(text.strip())
        if found is None or found[2].lower() not in _NOWHERE or number in changed:
            continue
        try:
            network = ip_network(found[1], strict=False)
        except ValueError:
            continue
        if network.version == address.version and address in network and network.prefixlen > best:
            best, told = network.prefixlen, f'configs/{node}/{FILE}:{number} "{text.strip()}"'
    return told


def _table(scene: Scene, node: str, *, late: bool) -> Table:
    rows = []
    for name, *sides in scene.ledger.objects(node, "route", "via"):
        tally = sides[late]
        if not tally.windows:
            continue
        six = ":" in name or (name == "default" and ":" in tally.state)
        try:
            network = ip_network(("::/0" if six else "0.0.0.0/0") if name == "default" else name, strict=False)
        except ValueError:
            continue
        rows.append((network, tally.state, name))
    return sorted(rows, key=lambda row: -row[0].prefixlen)


def _lookup(table: Table, address: IpAddress) -> tuple[int, str, str]:
    for network, state, name in table:
        if network.version == address.version and address in network:
            return network.prefixlen, state, name
    return -1, LOST, str(address)


def _wanted(scene: Scene, flow: str, node: str) -> set[IpAddress]:
    """Where this flow's packets may be headed when they are at the node, there and back, through translation."""
    journey = scene.journeys.get(flow)
    if journey is None or node not in journey.nodes:
        return set()
    legs = journey.legs_at(node)
    headed = {a for leg in legs for a in leg.sources | leg.destinations} or {journey.source, journey.destination}
    return headed - own_addresses(scene.lab.topology.node(node))


def _routing_lines(scene: Scene, node: str) -> list[Line]:
    commands = [
        line
        for line in scene.change.lines
        if line.node == node and line.interface is None and not line.file.startswith("configs/") and _is_routing(line)
    ]
    return [*scene.lines(node, FILE), *commands]


def _is_routing(line: Line) -> bool:
    return line.text.split(" ", 1)[0] in ("vtysh", "ip", "route", "/usr/bin/vtysh")


def _suspect(
    scene: Scene, line: Line, turns: Sequence[Turn], neighbours: Mapping[str, str], order: Sequence[str]
) -> Suspect | None:
    section = section_of(scene, line)
    version = version_of(line.text, section)
    now = successor(line, scene.edits) if line.sign == "-" else None
    if now is not None:
        return None
    text = line.text.strip()
    own, others = [t for t in turns if t.node == line.node], [t for t in turns if t.node != line.node]
    static = _STATIC.match(text)
    relevant = [t for t in (own if static else [*own, *others]) if version in (None, _version(t))]
    covered = [t for t in relevant if static and _same(static[1], t.prefix)]
    if not relevant or (static and not covered and not _spreads(scene, line.node)):
        return None
    flows = frozenset[str]().union(*(t.flows for t in (covered or relevant)))
    if covered:
        ground = Ground.BLACKHOLE
    elif _STEERS.search(text):
        ground = Ground.ROUTE_MOVED if own else Ground.LINK_SEEN
    else:
        ground = Ground.PLAUSIBLE if own else Ground.TOUCHED
    interface = section.removeprefix("interface ").split()[0] if section.startswith("interface ") else ""
    elsewhere = interface and not any(interface in t.devices for t in own)
    # a line names its neighbour by address, or stands below the interface on which it is heard
    lost = neighbours.get(interface) or next((neighbours[w] for w in text.split() if w in neighbours), None)
    told = (*covered, *(t for t in relevant if t not in covered))
    # a way that leads into an old trap is the story; where it turned is the rest of it
    said = [t.sentence for t in sorted(told, key=lambda t: not t.onward)]
    if lost:
        said.append(f"{line.node}: {lost}")
    said += [f"also changed: {where(other)}" for other in _companions(scene, line)]
    place = (-bool(lost), bool(elsewhere), order.index(line.node) if line.node in order else len(order), line.line)
    label = f"{section}: {text}" if section else text
    return Suspect(ground, line.node, label, line, tuple(said), flows, place)


def _companions(scene: Scene, line: Line) -> Iterable[Line]:
    return [
        other
        for node in sorted(scene.change.nodes)
        for other in scene.lines(node, FILE)
        if other != line and other.sign == "+" and _STEERS.search(other.text)
    ]


def _version(turn: Turn) -> int:
    return 6 if ":" in turn.prefix or ":" in turn.before or ":" in turn.after else 4


def _same(written: str, prefix: str) -> bool:
    try:
        network = ip_network(written, strict=False)
        if prefix == "default":
            return network.prefixlen == 0
        return network == ip_network(prefix, strict=False)
    except ValueError:
        return False


def _spreads(scene: Scene, node: str) -> bool:
    """Whether the node's static routes can turn other nodes' packets: it redistributes them."""
    return "redistribute static" in scene.after.get((node, FILE), "")


def _neighbours(scene: Scene) -> dict[str, dict[str, str]]:
    """Routing neighbours that were lost, by node and interface, as sentences."""
    found: dict[str, dict[str, str]] = {}
    for node in scene.lab.topology.nodes:
        for name, before, after in scene.ledger.objects(node.name, "neighbour", "state"):
            if before.windows and before.state != after.state:
                now = after.state or "gone"
                at = named_at(scene, node.name, name)
                found.setdefault(node.name, {})[name.split()[-1]] = f"{name}: {before.state} → {now}{at}"
    return found


def section_of(scene: Scene, line: Line) -> str:
    """The frr.conf section that a changed line stands in: `interface ens4`, `router ospf`; empty at the top level."""
    if not line.file.startswith("configs/"):
        return ""
    texts = scene.after if line.sign == "+" else scene.before
    written = texts.get((line.node, FILE), "").splitlines()[: line.line]
    if not written or not written[-1].startswith(" "):
        return ""
    return next((text.strip() for text in reversed(written) if text and not text.startswith((" ", "!"))), "")


def version_of(text: str, section: str) -> int | None:
    """The IP version that a routing line is about; None when about both or when it does not tell."""
    bare = text.strip().removeprefix("no ")
    if bare.startswith("ipv6 ") or section.startswith("router ospf6"):
        return 6
    if bare.startswith("ip ") or section.startswith("router ospf"):
        return 4
    return None
