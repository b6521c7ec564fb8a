"""Where two journeys part, and whether a line of the change stands there.

Pure.  Hops are compared in order: which node, by which interface, rewritten how, decided by which line, ended how.
A line of the change at that point is the culprit; what the change only led the flow to is a latent fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from testbed.attribution.edits import is_remark
from testbed.change.model import Change, Line, LinkChange
from testbed.trace.follow import FORWARD
from testbed.trace.journey import Culprit, Decision, Ended, Hop, Journey, Parting
from testbed.verdict_file import BlameEntry
from topologies.model import Impairment, Topology

SLOWER_NS = 1_000_000
"""Journeys alike in all else part where one hop or link took this much longer than before."""

_KINDS = {
    "rule": ("iptables.rules", "ip6tables.rules", "nftables.conf"),
    "route": ("frr.conf",),
    "proxy": ("haproxy.cfg",),
}


@dataclass(frozen=True, slots=True)
class _Stop:
    """A hop with its place in its journey; leg and hop are -1 past the end."""

    leg: int
    number: int
    hop: Hop | None
    ends: str


def parting(before: Journey, after: Journey, change: Change) -> Parting | None:
    """The first hop at which the journeys differ; None where they are alike.

    A balancer that takes another of its servers by turns is no difference, one whose server the change took is.
    """
    pairs = list(_pairs(before, after))
    by_turns = _by_turns(before, after, change)
    for one, other in pairs:
        if by_turns and _beyond(before, one) and _beyond(after, other):
            found = _ends_apart(one, other)
        else:
            found = _difference(one, other, by_turns)
        if found is not None:
            return found
    if before.end.how is not after.end.how:
        was, now = (f"{j.end.how.value} at {j.end.node}" for j in (before, after))
        here, there = before.end, after.end
        return Parting(there.node, "how it ended", was, now, there.leg, there.hop, here.leg, here.hop)
    return _other_rule(pairs) or _slower(pairs)


def _chosen(journey: Journey) -> Decision | None:
    made = (d for leg in journey.legs for hop in leg.hops for d in hop.decisions if d.what == "proxy")
    return next(made, None)


def _by_turns(before: Journey, after: Journey, change: Change) -> bool:
    """Whether the servers differ, in the same backend, and the change took away neither."""
    was, now = _chosen(before), _chosen(after)
    if was is None or now is None or was.object.rpartition("/")[0] != now.object.rpartition("/")[0]:
        return False
    gone = {(line.node, line.text.strip()) for line in change.lines if line.sign == "-"}
    return was.object != now.object and (was.node, was.verdict) not in gone


def _beyond(journey: Journey, stop: _Stop) -> bool:
    """Whether a stop is on the way from a proxy to its server."""
    return stop.leg < 0 or journey.legs[stop.leg].connection > 0


def _other_rule(pairs: Sequence[tuple[_Stop, _Stop]]) -> Parting | None:
    """Another rule lets the packet pass, to the same effect."""
    for one, other in pairs:
        was, now = ([d for d in (s.hop.decisions if s.hop else ()) if d.what == "rule"] for s in (one, other))
        if was and now and [d.text for d in was] != [d.text for d in now]:
            a, b = next(
                (pair for pair in zip(was, now, strict=False) if pair[0].text != pair[1].text), (was[-1], now[-1])
            )
            return _parted(b.node, ("rule", a.text, b.text), one, other)
    return None


def _pairs(before: Journey, after: Journey) -> Iterator[tuple[_Stop, _Stop]]:
    """Hops beside each other, leg by leg in the order in which the flow takes them."""
    keys = list(dict.fromkeys((leg.connection, leg.direction) for j in (before, after) for leg in j.legs))
    keys.sort(key=lambda key: (key[1] != FORWARD, key[0] if key[1] == FORWARD else -key[0]))
    for key in keys:
        mine, theirs = (_stops(journey, key) for journey in (before, after))
        for n in range(max(len(mine), len(theirs))):
            yield (mine[n] if n < len(mine) else _past(mine)), (theirs[n] if n < len(theirs) else _past(theirs))


def _stops(journey: Journey, key: tuple[int, str]) -> list[_Stop]:
    number = next((n for n, leg in enumerate(journey.legs) if (leg.connection, leg.direction) == key), None)
    if number is None:
        return []
    here = (journey.end.leg, journey.end.hop)
    broken = journey.end.how is not Ended.DELIVERED
    return [
        _Stop(number, n, hop, journey.end.how.value if broken and (number, n) == here else "")
        for n, hop in enumerate(journey.legs[number].hops)
    ]


def _past(stops: Sequence[_Stop]) -> _Stop:
    last = stops[-1] if stops else None
    return _Stop(last.leg if last else -1, last.number if last else -1, None, "")


def _difference(one: _Stop, other: _Stop, by_turns: bool) -> Parting | None:
    a, b = one.hop, other.hop
    if a is None or b is None:
        met = a or b
        return (
            None
            if met is None
            else _parted(met.node, ("who is met", a.node if a else "", b.node if b else ""), one, other)
        )
    found = _ends_apart(one, other)
    different = (compared for compared in _compared(a, b, by_turns) if compared[1] != compared[2])
    return found or next((_parted(b.node, compared, one, other) for compared in different), None)


def _ends_apart(one: _Stop, other: _Stop) -> Parting | None:
    if one.hop is None or other.hop is None or one.ends == other.ends:
        return None
    ways = one.ends or _onward(one.hop), other.ends or _onward(other.hop)
    return _parted(other.hop.node, ("how it ended", *ways), one, other)


def _parted(node: str, compared: tuple[str, str, str], one: _Stop, other: _Stop) -> Parting:
    what, before, after = compared
    places = other.leg, other.number, one.leg, one.number
    return Parting(node, what, before or "nobody", after or "nobody", *places)


def _compared(a: Hop, b: Hop, by_turns: bool) -> Iterator[tuple[str, str, str]]:
    """(what, before, after) of all that makes a difference at a hop."""
    yield "who is met", a.node, b.node
    yield "where it left", _onward(a), _onward(b)
    if not _only_ports(a, b):
        yield "translation", a.translation or "none", b.translation or "none"
    was, now = _decision(a, "route"), _decision(b, "route")
    if was and now:
        yield "route", was.text, now.text
    was, now = _decision(a, "proxy"), _decision(b, "proxy")
    if was and now and was.object != now.object and not by_turns:
        yield "proxy", was.text, now.text


def _only_ports(a: Hop, b: Hop) -> bool:
    """Whether the hops rewrote to the same addresses; a source port is chosen by chance."""
    return all(
        (x.sent_as.source, x.sent_as.destination) == (a.sent_as.source, a.sent_as.destination) for x in (a, b)
    ) and (a.sent_as.destination_port == b.sent_as.destination_port)


def _onward(hop: Hop) -> str:
    return f"on by {hop.left}" if hop.left else "arrived"


def _decision(hop: Hop, what: str) -> Decision | None:
    return next((d for d in hop.decisions if d.what == what), None)


def _slower(pairs: Sequence[tuple[_Stop, _Stop]]) -> Parting | None:
    """The hop or link whose time grew most, if it grew by more than SLOWER_NS."""
    best: Parting | None = None
    most = SLOWER_NS
    for before, (one, other) in zip([None, *pairs[:-1]], pairs, strict=True):
        if one.hop is None or other.hop is None:
            continue
        stretches = [(f"inside {other.hop.node}", _inside(one.hop), _inside(other.hop))]
        if before is not None and (before[0].leg, before[1].leg) == (one.leg, other.leg):
            nodes = before[1].hop.node if before[1].hop else "", other.hop.node
            stretches.append((f"from {nodes[0]} to {nodes[1]}", _between(before[0], one), _between(before[1], other)))
        for where, was, now in stretches:
            if was is not None and now is not None and now - was > most:
                most = now - was
                best = _took(other.hop.node, where, was, now, one, other)
    return best


def _inside(hop: Hop) -> int | None:
    return None if hop.entered_ns is None or hop.left_ns is None else hop.left_ns - hop.entered_ns


def _between(one: _Stop, other: _Stop) -> int | None:
    if one.hop is None or other.hop is None or one.hop.left_ns is None or other.hop.entered_ns is None:
        return None
    return other.hop.entered_ns - one.hop.left_ns


def _took(node: str, where: str, was: int, now: int, one: _Stop, other: _Stop) -> Parting:
    return _parted(node, ("time taken", f"{was / 1e6:.3f} ms {where}", f"{now / 1e6:.3f} ms {where}"), one, other)


def culprits(
    part: Parting | None, before: Journey, after: Journey, change: Change, topology: Topology, blame: BlameEntry | None
) -> tuple[Culprit, ...]:
    """Who made the journeys part, the change's own line first; then what ended the flow there, if it is another."""
    if part is None:
        return ()
    if part.what == "proxy" and (gone := _gone_server(before, change)) is not None:
        return (_by_line(gone, (), (f"{part.node}: {part.before} → {part.after}",)),)
    found: list[Culprit] = []
    was, now = (
        _at(j, leg, hop) for j, leg, hop in ((before, part.before_leg, part.before_hop), (after, part.leg, part.hop))
    )
    decisions = [d for hop in (now, was) if hop is not None for d in hop.decisions]
    if after.end.node == part.node and after.end.decision is not None:
        decisions.insert(0, after.end.decision)
    evidence = f"{part.node}: {part.what}: {part.before} → {part.after}"
    line = _decided_line(decisions, change) or _line_near(part, decisions, change, topology, blame)
    if line is not None:
        found.append(_by_line(line, decisions, (evidence,)))
    elif (other := _by_other(part, change, topology)) is not None:
        found.append(other)
    last = after.end.decision
    if after.end.how is not Ended.DELIVERED and last is not None and not any(_same(last, c) for c in found):
        if last.what != "proxy" or not found:
            said = f"{after.end.how.value} at {after.end.node}: {after.end.reason}"
            found.append(_by_decision(last, change, (said,)))
    elif not found and decisions:
        found.append(_by_decision(decisions[0], change, (evidence,)))
    return tuple(found)


def _decided_line(decisions: Sequence[Decision], change: Change) -> Line | None:
    """The changed line on which one of the decisions was written."""
    added_first = sorted(change.lines, key=lambda line: line.sign == "-")
    for one in decisions:
        for line in added_first:
            alike = line.text.strip() == one.text.strip() or one.what != "rule"
            if alike and (line.node, _config(line), line.line) == (one.node, one.file, one.line):
                return line
    return None


def _line_near(
    part: Parting, decisions: Sequence[Decision], change: Change, topology: Topology, blame: BlameEntry | None
) -> Line | None:
    """A changed line of the kind that decides such things, at the node, or for routes on the nearest router."""
    acting = [line for line in change.lines if not is_remark(line.text)]
    if blame is not None and blame.line is not None:
        place = blame.node, blame.line
        told = [one for one in acting if (one.node, one.line) == place and _config(one) in (blame.file or "")]
        if told and (told[0].node == part.node or _config(told[0]) in _KINDS["route"]):
            return told[0]
    kinds = {file for d in decisions for file in _KINDS[d.what]}
    here = [line for line in acting if line.node == part.node and (_config(line) in kinds or not kinds)]
    here.sort(key=lambda line: line.sign == "-")
    if here:
        return here[0]
    if part.what in ("where it left", "route", "who is met", "how it ended"):
        away = [line for line in acting if _config(line) in _KINDS["route"]]
        if away:
            near = _distances(topology, part.node)
            return min(away, key=lambda line: (near.get(line.node, 99), line.sign == "-"))
    return None


def _gone_server(before: Journey, change: Change) -> Line | None:
    """The line of the server that was chosen before, if the change took it away."""
    was = _chosen(before)
    lines = (line for line in change.lines if line.sign == "-" and was is not None and line.node == was.node)
    return next((line for line in lines if was is not None and line.text.strip() == was.verdict), None)


def _distances(topology: Topology, node: str) -> dict[str, int]:
    """Links between a node and every other."""
    known, edge, step = {node: 0}, {node}, 0
    while edge:
        step += 1
        ends = [(link.a.node, link.b.node) for link in topology.links]
        edge = {y for a, b in ends for x, y in ((a, b), (b, a)) if x in edge} - known.keys()
        known |= dict.fromkeys(edge, step)
    return known


def _by_line(line: Line, decisions: Sequence[Decision], evidence: tuple[str, ...]) -> Culprit:
    own = next((d for d in decisions if (d.node, d.file, d.line) == (line.node, _config(line), line.line)), None)
    name = own.object if own else f"{'added' if line.sign == '+' else 'removed'} line"
    return Culprit(line.node, name, line.file, line.line, line.text.strip(), in_change=True, evidence=evidence)


def _by_other(part: Parting, change: Change, topology: Topology) -> Culprit | None:
    """A link or a command of the change at the node where the journeys part."""
    file = "change.yaml" if change.source.is_dir() else change.source.name
    evidence = (f"{part.node}: {part.what}: {part.before} → {part.after}",)
    for link in change.links:
        if part.node in (link.a[0], link.b[0]):
            name = f"link {link.a[0]}:{link.a[1]} – {link.b[0]}:{link.b[1]}"
            return Culprit(part.node, name, file, link.line, _told(link), True, evidence)
    near = _distances(topology, part.node)
    commands = sorted(change.commands, key=lambda command: near.get(command.node, 99))
    if commands:
        text = " ".join(commands[0].run)
        return Culprit(commands[0].node, "command", file, commands[0].line, text, True, evidence)
    return None


def _told(link: LinkChange) -> str:
    """What a link becomes, without what is as if nothing were said."""
    plain = Impairment()
    ways = (("there", link.a_to_b), ("back", link.b_to_a))
    told = [
        f"{field.name} {way} {value}"
        for way, impairment in ways
        for field in fields(Impairment)
        if (value := getattr(impairment, field.name)) != getattr(plain, field.name)
    ]
    return ", ".join([f"mtu {link.mtu}", *told])


def _by_decision(one: Decision, change: Change, evidence: tuple[str, ...]) -> Culprit:
    inside = _decided_line([one], change) is not None
    file = f"configs/{one.node}/{one.file}" if one.file else ""
    return Culprit(one.node, one.object, file, one.line, one.text, inside, evidence)


def _same(one: Decision, other: Culprit) -> bool:
    return (one.node, one.line) == (other.node, other.line) and other.file.endswith(one.file)


def _config(line: Line) -> str:
    """A changed line's file as the node's configs name it."""
    return line.file.removeprefix(f"configs/{line.node}/")


def _at(journey: Journey, leg: int, hop: int) -> Hop | None:
    if not 0 <= leg < len(journey.legs):
        return None
    hops = journey.legs[leg].hops
    return hops[hop] if 0 <= hop < len(hops) else None
