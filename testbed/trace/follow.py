"""One connection followed through all capture points: its packets under every name translators gave them.

Pure: sightings in, legs of hops out.  A packet is known again by its mark; once a place has shown one packet
under new addresses, all packets with these addresses belong to the flow, so that segments which the kernel cut
or joined on the way are found too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from replay.columns import TCP
from testbed.trace.journey import FORWARD, REVERSE, Hop, Leg, Tuple
from testbed.trace.seen import Place, Sighting
from topologies.model import Topology

Point = tuple[str, str, bool]
"""(node, interface, whether it leaves there)."""

Span = tuple[int, int]


@dataclass(slots=True)
class Connection:
    """The packets of one connection, both ways; `lost` has, by direction, where the first packet lost was last seen."""

    forward: list[Sighting] = field(default_factory=list)
    reverse: list[Sighting] = field(default_factory=list)
    errors: list[Sighting] = field(default_factory=list)

    def way(self, direction: str) -> list[Sighting]:
        """The packets of one direction."""
        return self.forward if direction == FORWARD else self.reverse


def connection(sightings: Sequence[Sighting], start: Tuple, node: str) -> Connection:
    """All of the connection that leaves `node` as `start`; sightings are in order of time.

    An echo has its request's mark, so a packet that answers a known one is an answer before it is anything else.
    """
    found = Connection()
    there, back = {start}, {start.reverse}
    marks: tuple[set[int], set[int]] = (set(), set())
    begun = False
    for one in sightings:
        if one.error is not None:
            if one.error.quoted in there or one.error.quoted in back:
                found.errors.append(one)
            continue
        if not begun:
            # another flow may have had the same packet before: it begins where it begins
            begun = (one.node, one.out, one.packet) == (node, True, start)
            if not begun:
                continue
        if one.packet in there:
            side = 0
        elif one.packet in back:
            side = 1
        elif one.packet.protocol == start.protocol and one.mark in marks[0]:
            side = 0
            there.add(one.packet)
            back.add(one.packet.reverse)
        elif one.packet.protocol == start.protocol and one.mark in marks[1]:
            side = 1
            back.add(one.packet)
            there.add(one.packet.reverse)
        else:
            continue
        marks[side].add(one.mark)
        (found.forward, found.reverse)[side].append(one)
    return found


@dataclass(frozen=True, slots=True)
class Lost:
    """The first packet that did not come to the next point: seen last at point number `at` of the way."""

    at: int
    sighting: Sighting


@dataclass(frozen=True, slots=True)
class Followed:
    """One direction as a leg, its points in order, and the first packet lost on the way, if one was for good.

    `last` is the first packet at the last point; `looped` tells that a packet passed a point twice.
    """

    leg: Leg
    points: tuple[Point, ...]
    lost: Lost | None
    last: Sighting
    looped: bool


def followed(
    packets: Sequence[Sighting], number: int, direction: str, topology: Topology, start_ns: int
) -> Followed | None:
    """One direction of a connection; None when nothing went that way."""
    if not packets:
        return None
    at: dict[Point, list[Sighting]] = {}
    for one in packets:
        at.setdefault((one.node, one.interface, one.out), []).append(one)
    points = tuple(at)
    hops = []
    for node, own in _grouped(points):
        coming = next((p for p in own if not p[2]), None)
        going = next((p for p in reversed(own) if p[2]), None)
        first_in, first_out = (at[p][0] if p is not None else None for p in (coming, going))
        known = first_in or first_out
        assert known is not None
        hops.append(
            Hop(
                node,
                topology.node(node).kind,
                coming[1] if coming else None,
                going[1] if going else None,
                first_in.time_ns - start_ns if first_in else None,
                first_out.time_ns - start_ns if first_out else None,
                len(at[coming]) if coming else 0,
                len(at[going]) if going else 0,
                (first_in or known).packet,
                (first_out or known).packet,
            )
        )
    chain = [at[p] for p in points]
    looped = any(len({one.hop_limit for one in seen if one.mark == seen[0].mark}) > 1 for seen in chain)
    leg = Leg(number, direction, tuple(hops), sum(_missing(a, b) for a, b in pairwise(chain)))
    return Followed(leg, points, _first_lost(chain), chain[-1][0], looped)


def _grouped(points: Iterable[Point]) -> list[tuple[str, list[Point]]]:
    """Points of one node that follow each other are one hop; one that is entered again is another."""
    groups: list[tuple[str, list[Point]]] = []
    for point in points:
        if groups and groups[-1][0] == point[0] and (point[2] or not groups[-1][1]):
            groups[-1][1].append(point)
        else:
            groups.append((point[0], [point]))
    return groups


def _missing(here: Sequence[Sighting], there: Sequence[Sighting]) -> int:
    """How many packets seen here were not seen there; none where segments were cut or joined between."""
    counts: dict[int, int] = {}
    for one in here:
        counts[one.mark] = counts.get(one.mark, 0) + 1
    for one in there:
        if one.mark not in counts:
            return 0
        counts[one.mark] -= 1
    return sum(count for count in counts.values() if count > 0)


def _first_lost(chain: Sequence[Sequence[Sighting]]) -> Lost | None:
    """The earliest packet that some point saw and the one after it never did, not even sent again."""
    found: Lost | None = None
    for number, (here, there) in enumerate(pairwise(chain)):
        marks = {one.mark for one in there}
        spans = covered((one.sequence, one.data) for one in there if one.data)
        for one in here:
            if one.mark in marks or (one.packet.protocol == TCP and _came(one, spans)):
                continue
            if found is None or one.time_ns < found.sighting.time_ns:
                found = Lost(number, one)
            break
    return found


def _came(one: Sighting, spans: Sequence[Span]) -> bool:
    """Whether all octets of a segment came; a bare acknowledgement that is lost is no loss, a reset is."""
    if not one.data:
        return not one.flags & 4
    return any(low <= one.sequence and one.sequence + one.data <= high for low, high in spans)


def covered(pieces: Iterable[Span]) -> list[Span]:
    """(begin, length) pieces of a stream as (begin, end) spans without gaps; sequence numbers are not wrapped."""
    spans: list[Span] = []
    for begin, length in sorted(pieces):
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], begin + length))
        else:
            spans.append((begin, begin + length))
    return spans


def place_of(point: Point) -> Place:
    """Where a point is."""
    return point[:2]


__all__ = ["FORWARD", "REVERSE", "Connection", "Followed", "Lost", "connection", "covered", "followed", "place_of"]
