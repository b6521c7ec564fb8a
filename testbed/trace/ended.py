"""Where a journey ended, by what every capture point saw and what the node at the end tells of itself.

Pure.  Everything asked of nodes is asked before and comes as `Witness`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from replay.columns import ICMP, TCP
from testbed.devices.rule_trace import Step, culprit
from testbed.placement import END_POINTS
from testbed.trace.decided import ENDS_WITHOUT_A_ROUTE, rules_met
from testbed.trace.follow import FORWARD, Connection, Followed
from testbed.trace.journey import Decision, End, Ended
from testbed.trace.seen import Place, Sighting
from topologies.model import Topology

_RST, _SYN_ACK = 0x04, 0x12
_WORDS_4 = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 9): "network prohibited",
    (3, 10): "host prohibited",
    (3, 13): "communication prohibited",
    (11, 0): "hop limit exceeded",
}
_WORDS_6 = {
    (1, 0): "no route",
    (1, 1): "communication prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, 5): "source address failed policy",
    (1, 6): "route rejected",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
}
_TOO_BIG = frozenset({"fragmentation needed", "packet too big"})
_NOWHERE = frozenset({"network unreachable", "host unreachable", "no route", "address unreachable", "route rejected"})


@dataclass(frozen=True, slots=True)
class Witness:
    """What nodes told while the flow was sent: rules met, routes at (leg, hop), MTUs, queue drops, proxies' choices."""

    topology: Topology
    steps: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    routes: Mapping[tuple[int, int], Decision] = field(default_factory=dict)
    mtu_octets: Mapping[Place, int] = field(default_factory=dict)
    queue_drops: Mapping[Place, int] = field(default_factory=dict)
    proxied: Mapping[str, Decision] = field(default_factory=dict)
    completed: bool = False
    error: str = ""

    def dropping(self, node: str) -> Decision | None:
        """The rule that dropped a packet of the flow at a node."""
        step = culprit(self.steps.get(node, ()))
        return rules_met(node, [step])[0] if step is not None else None


def ended(legs: Sequence[Followed], connections: Sequence[Connection], witness: Witness) -> End:
    """The end of a journey; legs are in the order of a request and its answer: there, on to a server, and back."""
    forward = [number for number, one in enumerate(legs) if one.leg.direction == FORWARD]
    if not forward:
        node = legs[0].leg.hops[0].node if legs else ""
        return End(Ended.UNANSWERED, node, reason="the flow never left its client")
    answered = any(one.leg.direction != FORWARD for one in legs)
    tcp = legs[forward[0]].leg.hops[0].seen_as.protocol == TCP
    last = legs[forward[-1]].leg
    delivered = End(Ended.DELIVERED, last.hops[-1].node, leg=forward[-1], hop=len(last.hops) - 1)
    if witness.completed and (answered or tcp):
        return delivered
    for number in forward:
        found = _on_the_way(number, legs[number], connections[legs[number].leg.connection], witness)
        if found is not None:
            return found
    for number, one in enumerate(legs):
        if one.leg.direction == FORWARD:
            continue
        told = _told_by_icmp(number, one, connections[one.leg.connection], witness)
        if told is not None:
            return told
        if (at := _unfinished(one, witness)) is not None:
            return _stopped(number, one, *at, witness)
    if witness.completed or (not answered and not tcp):
        return replace(delivered, reason="" if witness.completed else f"no answer came ({witness.error})")
    node = last.hops[-1].node
    if (choice := witness.proxied.get(node)) is not None:
        return replace(delivered, how=Ended.NO_SERVER, reason=choice.text, decision=choice)
    why = f"the client's word: {witness.error}" if witness.error else ""
    return replace(delivered, how=Ended.UNANSWERED, reason=why)


def _on_the_way(number: int, one: Followed, own: Connection, witness: Witness) -> End | None:
    """The end of a forward leg, where it ended before anybody answered it as wanted."""
    told = _told_by_icmp(number, one, own, witness) or _refused(number, one, own, witness)
    if told is not None:
        return told
    if one.lost is not None:
        return _stopped(number, one, one.lost.at, one.lost.sighting, witness)
    hop = one.leg.hops[-1]
    owner = witness.topology.owner(hop.sent_as.destination)
    home = hop.kind in END_POINTS or hop.node in witness.proxied or bool(own.reverse)
    if owner is None or owner.name != hop.node or not home:
        return _stopped(number, one, len(one.points) - 1, own.forward[0], witness)
    if not own.reverse and (rule := witness.dropping(hop.node)) is not None:
        return End(Ended.DROPPED, hop.node, reason=rule.text, decision=rule, leg=number, hop=len(one.leg.hops) - 1)
    return None


def _unfinished(one: Followed, witness: Witness) -> tuple[int, Sighting] | None:
    """Where an answer was seen last that did not come to whom it was for."""
    if one.lost is not None:
        return one.lost.at, one.lost.sighting
    hop = one.leg.hops[-1]
    owner = witness.topology.owner(hop.sent_as.destination)
    if owner is not None and owner.name == hop.node:
        return None
    return len(one.points) - 1, one.last


def _told_by_icmp(number: int, one: Followed, own: Connection, witness: Witness) -> End | None:
    """By an ICMP error that quotes a packet of this direction."""
    names = {sent.packet for sent in own.way(one.leg.direction)}
    for sighting in own.errors:
        error = sighting.error
        if error is None or error.quoted not in names:
            continue
        known = _WORDS_4 if sighting.packet.protocol == ICMP else _WORDS_6
        said = known.get((error.kind, error.code), f"ICMP type {error.kind} code {error.code}")
        if said in _TOO_BIG:
            said, how = f"{said}, MTU {error.value} octets", Ended.TOO_BIG
        elif said == "hop limit exceeded":
            how = Ended.HOP_LIMIT
            said += ", the packet goes in a circle" if one.looped else ""
        else:
            how = Ended.NO_ROUTE if said in _NOWHERE else Ended.REFUSED
        hop = _hop_at(one, sighting.node)
        decision = witness.dropping(sighting.node) if how is Ended.REFUSED else witness.routes.get((number, hop))
        if how is Ended.NO_ROUTE and (rule := witness.dropping(sighting.node)) is not None:
            how, decision = Ended.REFUSED, rule
        return End(how, sighting.node, reason=said, decision=decision, leg=number, hop=hop)
    return None


def _refused(number: int, one: Followed, own: Connection, witness: Witness) -> End | None:
    """By a reset that came back."""
    reset = next((s for s in own.reverse if s.packet.protocol == TCP and s.flags & _RST), None)
    if reset is None:
        return None
    open_ = any(s.flags & _SYN_ACK == _SYN_ACK for s in own.reverse)
    node, hop = reset.node, _hop_at(one, reset.node)
    if open_ and one.lost is not None and one.lost.sighting.time_ns < reset.time_ns:
        return None
    rule = witness.dropping(node)
    said = "reset after it was open" if open_ else "connection refused"
    if (choice := witness.proxied.get(node)) is not None and rule is None:
        return End(Ended.NO_SERVER, node, reason=f"{said}: {choice.text}", decision=choice, leg=number, hop=hop)
    return End(Ended.REFUSED, node, reason=said, decision=rule, leg=number, hop=hop)


def _stopped(number: int, one: Followed, at: int, packet: Sighting, witness: Witness) -> End:
    """A packet that some point saw and the next did not."""
    node, interface, out = one.points[at]
    hop = _hop_of_point(one, at)
    end = End(Ended.DROPPED, node, leg=number, hop=hop)
    if out:
        return replace(end, how=Ended.LOST, interface=interface, reason=f"it left {node}:{interface} and never came")
    if (rule := witness.dropping(node)) is not None:
        return replace(end, reason=rule.text, decision=rule)
    route = witness.routes.get((number, hop))
    if route is not None and route.verdict in ENDS_WITHOUT_A_ROUTE.values():
        return replace(end, how=Ended.NO_ROUTE, reason=f"{route.object}: {route.verdict}", decision=route)
    left = one.leg.hops[hop].left
    mtu = witness.mtu_octets.get((node, left), 0) if left else 0
    if left and mtu and packet.octets > mtu:
        said = f"{packet.octets} octets at once for {left}, whose MTU is {mtu}, and no ICMP error came to be heeded"
        return replace(end, how=Ended.TOO_BIG, interface=left, reason=said)
    if packet.hop_limit <= 1:
        return replace(end, how=Ended.HOP_LIMIT, reason="hop limit exceeded")
    full = [interface for (owner, interface), count in witness.queue_drops.items() if owner == node and count]
    if full:
        return replace(end, interface=full[0], reason=f"the queue of {full[0]} was full")
    return replace(end, reason="no rule, route or queue of the node tells why")


def _hop_at(one: Followed, node: str) -> int:
    """The place of a node on a leg, the last hop where it is not on it."""
    names = [hop.node for hop in one.leg.hops]
    return names.index(node) if node in names else len(names) - 1


def _hop_of_point(one: Followed, at: int) -> int:
    """The hop that a point belongs to: hops have one point or two, in order."""
    seen = -1
    for number, hop in enumerate(one.leg.hops):
        seen += (hop.entered is not None) + (hop.left is not None)
        if seen >= at:
            return number
    return len(one.leg.hops) - 1
