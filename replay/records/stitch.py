"""Records that are halves or stretches of flows, put together as biflows. Pure; knows no format and no table.

    A → B  SYN ──┐                    ┌── later stretch
    B → A  SYN-ACK ──┴── one flow ──┴── later stretch

Records of one five-tuple belong to one flow until a timeout, or until an end that had finished opens again. What
several observers saw of one flow is not added up: each direction is told by whoever saw most of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace

from replay.biflow import Timeouts
from replay.columns import ACK, FIN, RST, SYN, TCP
from replay.records.piece import Details, Initiator, Piece

UNTIMED = Timeouts()
_WELL_KNOWN_PORTS = 1024
_End = tuple[str, int]


@dataclass(slots=True)
class _Group:
    """The records of one flow so far, all with forward from the same end."""

    pieces: list[Piece] = field(default_factory=list)
    end_ns: int = -1
    finished: set[tuple[str, bool]] = field(default_factory=set)
    cut_by: str = ""

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.end_ns = max(self.end_ns, piece.end_ns)
        for flags, reverse in ((piece.forward_flags, False), (piece.reverse_flags, True)):
            if flags & (FIN | RST):
                self.finished.add((piece.details.observer, reverse))

    def ended_by(self, piece: Piece, timeouts: Timeouts) -> str:
        """The IPFIX reason for which this record is of another flow, or nothing."""
        for flags, reverse in ((piece.forward_flags, False), (piece.reverse_flags, True)):
            if flags & SYN and (piece.details.observer, reverse) in self.finished:
                return "end_of_flow"
        if timeouts.idle_ns is not None and piece.start_ns - self.end_ns > timeouts.idle_ns:
            return "idle"
        if timeouts.active_ns is not None and piece.start_ns - self.pieces[0].start_ns > timeouts.active_ns:
            return "active"
        return ""


def stitched(pieces: Iterable[Piece], timeouts: Timeouts = UNTIMED) -> list[Piece]:
    """Biflows of the records, forward from the initiator, in the order of their start.

    The initiator is who the exporter names, else who sent a SYN without ACK, else who was seen first when both
    SYNs were, else who is not at the well-known port, else who was seen first, else who is at the higher port.
    """
    by_tuple: defaultdict[tuple[int, _End, _End], list[Piece]] = defaultdict(list)
    for piece in pieces:
        source, destination = _ends(piece)
        low, high = sorted((source, destination))
        by_tuple[piece.protocol, low, high].append(piece if source == low else piece.turned())
    flows = [_joined(group) for same in by_tuple.values() for group in _groups(same, timeouts)]
    return sorted(flows, key=lambda flow: (flow.start_ns, flow.end_ns))


def outcome(flow: Piece) -> str:
    """accepted, denied, reset or unanswered: the exporter's word, else what counts and flags tell.

    A TCP flow was reset when its SYN was met with a RST and neither a SYN-ACK nor an ACK of the initiator was seen.
    """
    if flow.outcome:
        return flow.outcome
    if flow.refused:
        return "denied"
    if flow.protocol != TCP:
        return "accepted" if flow.reverse_packets else "unanswered"
    shaken = flow.reverse_flags & SYN or flow.forward_flags & ACK
    if flow.forward_flags & SYN and flow.reverse_flags & RST and not shaken:
        return "reset"
    return "accepted" if flow.reverse_packets or shaken else "unanswered"


def first_close(pieces: Sequence[Piece]) -> str:
    """Who ended a TCP flow first, as far as totals tell; none when nobody did.

    A FIN comes before a RST. Of two FINs or two RSTs the earlier is first when each is a record of its own; else the
    first FIN was of the end that was seen for longer, as it still acknowledges the other's.
    """
    for bit, kind in ((FIN, "fin"), (RST, "rst")):
        ended_ns: dict[bool, int] = {}
        last_ns: dict[bool, int] = {}
        alone = True
        for piece in pieces:
            for reverse, flags, packets in _sides(piece):
                last_ns[reverse] = max(last_ns.get(reverse, 0), piece.end_ns) if packets else last_ns.get(reverse, 0)
                if piece.protocol == TCP and flags & bit:
                    ended_ns[reverse] = min(ended_ns.get(reverse, piece.end_ns), piece.end_ns)
                    alone &= packets == 1
        if ended_ns:
            latest = len(ended_ns) == 2 and kind == "fin" and not alone
            first = min(sorted(ended_ns), key=lambda way: -last_ns[way] if latest else ended_ns[way])
            return f"{kind}_{'reverse' if first else 'forward'}"
    return "none"


def _ends(piece: Piece) -> tuple[_End, _End]:
    return (piece.source_address, piece.source_port), (piece.destination_address, piece.destination_port)


def _groups(same: list[Piece], timeouts: Timeouts) -> list[_Group]:
    groups: list[_Group] = []
    for piece in sorted(same, key=lambda one: (one.start_ns, one.end_ns)):
        reason = groups[-1].ended_by(piece, timeouts) if groups else "first"
        if reason:
            if groups:
                groups[-1].cut_by = reason
            groups.append(_Group())
        groups[-1].add(piece)
    return groups


def _joined(group: _Group) -> Piece:
    pieces = group.pieces
    if _opened_by_other_end(pieces):
        pieces = [piece.turned() for piece in pieces]
    forward_packets, forward_octets = _most_seen(pieces, reverse=False)
    reverse_packets, reverse_octets = _most_seen(pieces, reverse=True)
    forward_flags, reverse_flags = 0, 0
    for piece in pieces:
        forward_flags |= piece.forward_flags
        reverse_flags |= piece.reverse_flags
    answered = any(piece.reverse_packets and not piece.refused for piece in pieces)
    return replace(
        pieces[0],
        start_ns=min(piece.start_ns for piece in pieces),
        end_ns=max(piece.end_ns for piece in pieces),
        forward_packets=forward_packets,
        forward_octets=forward_octets,
        reverse_packets=reverse_packets,
        reverse_octets=reverse_octets,
        forward_flags=forward_flags,
        reverse_flags=reverse_flags,
        initiator=Initiator.SOURCE,
        refused=not answered and any(piece.refused for piece in pieces),
        outcome=_first(piece.outcome for piece in pieces),
        close=_first(piece.close for piece in pieces) or first_close(pieces),
        end_reason=group.cut_by or _first(piece.end_reason for piece in reversed(pieces)),
        application=_first(piece.application for piece in pieces),
        details=_details(pieces),
    )


def _opened_by_other_end(pieces: Sequence[Piece]) -> bool:
    for piece in pieces:
        if piece.initiator is not Initiator.UNKNOWN:
            return piece.initiator is Initiator.DESTINATION
    asks = {way for piece in pieces for way, flags in _flags(piece) if flags & (SYN | ACK) == SYN}
    if len(asks) == 1:
        return asks == {True}
    forward_ns = min((piece.start_ns for piece in pieces if piece.forward_packets), default=None)
    reverse_ns = min((piece.start_ns for piece in pieces if piece.reverse_packets), default=None)
    seen_apart = forward_ns is not None and reverse_ns is not None and forward_ns != reverse_ns
    earlier = seen_apart and (reverse_ns or 0) < (forward_ns or 0)
    opened = {way for piece in pieces for way, flags in _flags(piece) if flags & SYN}
    if seen_apart and len(opened) == 2:
        return earlier
    source, destination = pieces[0].source_port, pieces[0].destination_port
    if (source < _WELL_KNOWN_PORTS) != (destination < _WELL_KNOWN_PORTS):
        return source < _WELL_KNOWN_PORTS
    if seen_apart:
        return earlier
    if source != destination:
        return source < destination
    return forward_ns is None


def _flags(piece: Piece) -> tuple[tuple[bool, int], tuple[bool, int]]:
    return (False, piece.forward_flags), (True, piece.reverse_flags)


def _sides(piece: Piece) -> tuple[tuple[bool, int, int], tuple[bool, int, int]]:
    return (False, piece.forward_flags, piece.forward_packets), (True, piece.reverse_flags, piece.reverse_packets)


def _most_seen(pieces: Sequence[Piece], reverse: bool) -> tuple[int, int]:
    packets: Counter[str] = Counter()
    octets: Counter[str] = Counter()
    for piece in pieces:
        packets[piece.details.observer] += piece.reverse_packets if reverse else piece.forward_packets
        octets[piece.details.observer] += piece.reverse_octets if reverse else piece.forward_octets
    best = max(sorted(packets), key=lambda observer: (packets[observer], octets[observer]))
    return packets[best], octets[best]


def _details(pieces: Sequence[Piece]) -> Details:
    if all(piece.details is pieces[0].details for piece in pieces):
        return pieces[0].details
    observers = sorted({piece.details.observer for piece in pieces} - {""})
    told = {one.name: _first(getattr(piece.details, one.name) for piece in pieces) for one in fields(Details)}
    return Details(**{**told, "observer": ",".join(observers)})


def _first(words: Iterable[str]) -> str:
    return next((word for word in words if word), "")
