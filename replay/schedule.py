"""Which flow starts where and when, and what each side says: the plan of a window.

Pure: no socket, no clock, no namespace. Flow and message tables go in, scripts come out.
Offsets and gaps are already divided by the speed; the player only adds them to its anchor.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import groupby
from typing import Any, Protocol

import pandas as pd

from replay.client_hello import TlsOffer
from replay.flow_priority import PRIORITIES
from replay.http_framing import one_request, one_response, tagged
from replay.synthesis import synthesised

ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58
ECHO = (ICMP, ICMPV6)
FORWARD = 0
REVERSE = 1
_RANK = {priority: rank for rank, priority in enumerate(PRIORITIES)}
_IP_AND_TCP_HEADER_OCTETS = 52
_IP_AND_UDP_HEADER_OCTETS = 28


class Payloads(Protocol):
    """The payload store: reference in, bytes out."""

    def __getitem__(self, ref: int, /) -> bytes:
        """The bytes of one message."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says, and how long after the event before it (think time)."""

    direction: int
    gap_ns: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class FlowScript:
    """One flow to be re-enacted; a message's sequence is its index in `messages`.

    `tagged` flows are cleartext HTTP: every run of forward messages is one request that carries the
    shadow header, and every run of reverse messages is one response. With `tls` they are said inside TLS that the
    client makes anew, offering that.
    """

    flow_id: str
    protocol: int
    source_node: str
    source: tuple[str, int]
    target: tuple[str, int]
    start_ns: int
    messages: tuple[Message, ...]
    close: str
    outcome: str
    application: str
    priority: str
    tagged: bool = False
    tls: TlsOffer | None = None

    @property
    def busy_ns(self) -> int:
        """How long the script keeps its sockets if the network took no time at all."""
        return sum(message.gap_ns for message in self.messages)

    def last_of_run(self, sequence: int) -> int:
        """The last message that the same side says without a word of the other after `sequence`."""
        messages = self.messages
        while sequence + 1 < len(messages) and messages[sequence + 1].direction == messages[sequence].direction:
            sequence += 1
        return sequence

    @property
    def exchanges(self) -> int:
        """How many of its messages expect an answer."""
        said = enumerate(self.messages)
        return sum(1 for i, m in said if m.direction == FORWARD and self.answer_to(i) >= 0)

    def answer_to(self, sequence: int) -> int:
        """The sequence of the first reverse message that answers `sequence`, or -1."""
        following = sequence + 1
        if following < len(self.messages) and self.messages[following].direction == REVERSE:
            return following
        return -1


@dataclass(frozen=True, slots=True)
class Schedule:
    """All scripts of a window in order of their start, and what cannot be played and why.

    `probes` are no part of a window: they are played when they are named (`Player.play(only=…)`).
    """

    scripts: tuple[FlowScript, ...]
    speed: float
    duration_ns: int
    unplayable: tuple[tuple[str, str], ...] = field(default=())
    probes: tuple[FlowScript, ...] = ()

    @property
    def messages(self) -> int:
        """How many messages the window offers."""
        return sum(len(script.messages) for script in self.scripts)

    def concurrency(self, linger_ns: int) -> int:
        """The most flows open at once when each holds its sockets `linger_ns` beyond its script.

        Flows captured without a close stay open until the window ends.
        """
        moments: list[tuple[int, int]] = []
        for script in self.scripts:
            end = script.start_ns + script.busy_ns + linger_ns
            if script.close == "none":
                end = max(end, self.duration_ns)
            moments += [(script.start_ns, 1), (end, -1)]
        moments.sort()
        peak = open_now = 0
        for _, change in moments:
            open_now += change
            peak = max(peak, open_now)
        return peak

    def services(self, place: Callable[[str], str | None]) -> frozenset[tuple[str, int, int]]:
        """(node, protocol, port) of every captured target that answered, where it has a node.

        UDP targets that never answered count too: without a listener they would refuse. What answers an echo is a
        kernel. Proxies and firewalls among the nodes are for the caller to leave out.
        """
        return frozenset(
            (node, script.protocol, script.target[1])
            for script in self.scripts
            if script.protocol not in ECHO
            and (script.outcome == "accepted" or (script.protocol, script.outcome) == (UDP, "unanswered"))
            and (node := place(script.target[0])) is not None
        )


def schedule(
    flows: pd.DataFrame,
    messages: pd.DataFrame,
    payloads: Payloads,
    place: Callable[[str], str | None],
    speed: float = 1.0,
) -> Schedule:
    """The plan that re-enacts `flows`, `speed` times as fast as they were captured.

    `place` says which node owns an address. Flows that cannot be played are listed with the
    reason, never dropped silently. Raises ValueError when the speed is not positive.
    """
    if speed <= 0:
        raise ValueError(f"speed must be positive, found {speed}")
    said = _messages_by_flow(messages, payloads)
    scripts: list[FlowScript] = []
    unplayable: list[tuple[str, str]] = []
    epoch = int(flows["start_ns"].min()) if len(flows) else 0
    duration = 0
    for row in _in_order(flows).to_dict("records"):
        flow = _Flow.of(row)
        node = place(flow.source[0])
        reason = _unplayable(flow, node)
        if reason or node is None:
            unplayable.append((flow.flow_id, reason))
            continue
        turns = said.get(flow.flow_id) or (_from_totals(flow) if flow.grade == "totals" else [])
        if flow.protocol in ECHO and all(turn.direction == REVERSE for turn in turns):
            unplayable.append((flow.flow_id, "the answers to an echo without its requests"))
            continue
        script = FlowScript(
            flow_id=flow.flow_id,
            protocol=flow.protocol,
            source_node=node,
            source=flow.source,
            target=flow.target,
            start_ns=int((flow.start_ns - epoch) / speed),
            messages=tuple(_filled(flow, turns, speed)),
            close=flow.close,
            outcome=flow.outcome,
            application=flow.application,
            priority=flow.priority,
        )
        scripts.append(as_http(script) if flow.application == "http" else script)
        duration = max(duration, int((flow.end_ns - epoch) / speed))
    return Schedule(tuple(scripts), speed, duration, tuple(unplayable))


def _in_order(flows: pd.DataFrame) -> pd.DataFrame:
    """By start, and of one start by priority: where the player is late, the more important flow goes first."""
    rank = flows["priority"].map(_RANK).fillna(_RANK["normal"])
    return flows.assign(_rank=rank).sort_values(["start_ns", "_rank"], kind="stable").drop(columns="_rank")


@dataclass(frozen=True, slots=True)
class _Flow:
    flow_id: str
    protocol: int
    source: tuple[str, int]
    target: tuple[str, int]
    start_ns: int
    end_ns: int
    octets: tuple[int, int]
    packets: tuple[int, int]
    close: str
    outcome: str
    application: str
    label: str
    priority: str
    grade: str

    @classmethod
    def of(cls, row: Mapping[Hashable, Any]) -> "_Flow":
        return cls(
            str(row["flow_id"]),
            int(row["protocol"]),
            (str(row["source_address"]), int(row["source_port"])),
            (str(row["destination_address"]), int(row["destination_port"])),
            int(row["start_ns"]),
            int(row["end_ns"]),
            (int(row["forward_octets"]), int(row["reverse_octets"])),
            (int(row["forward_packets"]), int(row["reverse_packets"])),
            str(row["close"]),
            str(row["outcome"]),
            str(row["application"]),
            str(row["label"]),
            str(row["priority"]),
            str(row.get("grade", "totals")),
        )


@dataclass(frozen=True, slots=True)
class _Turn:
    direction: int
    gap_ns: int
    octets: int
    payload: bytes | None


def _unplayable(flow: _Flow, node: str | None) -> str:
    if flow.protocol not in (TCP, UDP, *ECHO):
        return f"protocol {flow.protocol} has no session to re-enact"
    if flow.protocol in ECHO and not flow.source[1]:
        return "ICMP without an echo's identifier has no session to re-enact"
    if node is None:
        return f"no node owns the source address {flow.source[0]}"
    if not flow.source[1] or not flow.target[1]:
        return "no port"
    source, target = ip_address(flow.source[0]), ip_address(flow.target[0])
    if target.is_multicast or str(target) == "255.255.255.255":
        return f"{target} is a group, not a peer"
    if source.is_link_local or target.is_link_local:
        return "link-local address"
    if source.is_unspecified:
        return "unspecified source address"
    return ""


def _messages_by_flow(messages: pd.DataFrame, payloads: Payloads) -> dict[str, list[_Turn]]:
    said: dict[str, list[_Turn]] = {}
    ordered = messages.sort_values(["flow_id", "sequence"], kind="stable")
    for flow_id, direction, gap_ns, octets, ref in zip(
        *(ordered[name].tolist() for name in _MESSAGE_COLUMNS), strict=True
    ):
        payload = payloads[int(ref)] if ref >= 0 else None
        said.setdefault(str(flow_id), []).append(_Turn(int(direction), max(int(gap_ns), 0), int(octets), payload))
    return said


_MESSAGE_COLUMNS = ("flow_id", "direction", "gap_ns", "octets", "payload_ref")


def _from_totals(flow: _Flow) -> list[_Turn]:
    """A flow known by its totals alone: one request, one response, over its duration."""
    if flow.outcome != "accepted" and flow.protocol == TCP:
        return []
    header = _IP_AND_TCP_HEADER_OCTETS if flow.protocol == TCP else _IP_AND_UDP_HEADER_OCTETS
    sizes = [max(octets - header * packets, 0) for octets, packets in zip(flow.octets, flow.packets, strict=True)]
    think = (flow.end_ns - flow.start_ns) // 2
    return [_Turn(direction, think if direction else 0, size, None) for direction, size in enumerate(sizes) if size]


def _filled(flow: _Flow, turns: Iterable[_Turn], speed: float) -> Iterator[Message]:
    """Every message with bytes: the captured ones, or synthesised ones of the recorded size."""
    turns = list(turns)
    if flow.application == "http" and any(turn.payload is None for turn in turns):
        turns = list(_merged(turns, directions=(FORWARD, REVERSE)))
    for sequence, turn in enumerate(turns):
        said = turn.payload or b""
        if len(said) < turn.octets:
            said += synthesised(
                turn.octets - len(said),
                seed=f"{flow.flow_id}:{sequence}",
                application=flow.application if not said else "",
                label=flow.label,
                direction=turn.direction,
                first=sequence == 0,
            )
        yield Message(turn.direction, int(turn.gap_ns / speed), said)


def _merged(turns: Iterable[_Turn], directions: tuple[int, ...]) -> Iterator[_Turn]:
    for direction, run in groupby(turns, key=lambda turn: turn.direction):
        same = list(run)
        if direction not in directions:
            yield from same
            continue
        known = [turn.payload for turn in same if turn.payload is not None]
        yield _Turn(
            direction,
            same[0].gap_ns,
            sum(turn.octets for turn in same),
            b"".join(known) if len(known) == len(same) else None,
        )


def _whole_first_line(pieces: list[Message]) -> tuple[Message, list[Message]]:
    """The pieces of a request, the first of which holds its request line, behind which the shadow header goes."""
    said = b""
    for number, piece in enumerate(pieces, 1):
        said += piece.payload
        if b"\r\n" in said:
            return replace(pieces[0], payload=said), pieces[number:]
    return replace(pieces[0], payload=said), []


def as_http(script: FlowScript) -> FlowScript:
    """The script with tagged requests when every turn is one request and one response."""
    marked: list[Message] = []
    for direction, run in groupby(script.messages, key=lambda message: message.direction):
        pieces = list(run)
        whole = b"".join(piece.payload for piece in pieces)
        if direction == FORWARD:
            head = one_request(whole)
            if head is None:
                return script
            method = head.method
            start, rest = _whole_first_line(pieces)
            marked.append(replace(start, payload=tagged(start.payload, f"{script.flow_id}-{len(marked)}")))
            marked += rest
        else:
            if not marked or one_response(whole, method) is None:
                return script
            marked += pieces
    return replace(script, messages=tuple(marked), tagged=bool(marked))
