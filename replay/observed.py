"""What the player writes down while it plays: attempts, transfers, accepted flows. Plain records.

Knows no socket. Stream offsets count octets of one side's own connection from the window's start
(datagrams, for UDP), so that a tap's segments can be joined to them. While traffic runs a flow that is sent as
captured is written down once, as how far its script was walked; its transfers follow from the script.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from replay.schedule import FORWARD, FlowScript

CLIENT = 0
SERVER = 1
UNKNOWN = -1
"""Of a count or a time that the kernel was not asked for."""

_TCP_INFO_OCTETS = 152
_TOTAL_RETRANS_AT = 100
_TCP_INFO = struct.Struct("=I44xI")
"""tcpi_total_retrans, and tcpi_min_rtt at octet 148."""

_NEVER_US = 0xFFFF_FFFF


class Transfer(NamedTuple):
    """One message as one side sent or received it: octets [start, end) of that direction."""

    side: int
    connection: int
    flow_id: str
    sequence: int
    direction: int
    start: int
    end: int
    answer: int


class Walked(NamedTuple):
    """How far one side of a TCP flow walked its script: `messages[:cursor]` were sent or received, octet for octet."""

    side: int
    connection: int
    script: FlowScript
    cursor: int


class Accepted(NamedTuple):
    """One connection (or UDP peer) as the server side saw it; `flow_id` is "" when shared.

    `retransmits` is its own kernel's count at its close (TCP_INFO), UNKNOWN when it was not asked.
    """

    connection: int
    node: str
    protocol: int
    local_address: str
    local_port: int
    peer_address: str
    peer_port: int
    accepted_ns: int
    flow_id: str
    retransmits: int = UNKNOWN


ATTEMPT_COLUMNS = (
    "flow_id",
    "protocol",
    "node",
    "source_address",
    "source_port",
    "target_address",
    "target_port",
    "outcome",
    "exchanges",
    "due_ns",
    "started_ns",
    "ended_ns",
    "error",
    "connected",
    "completed",
    "source_port_kept",
    "sent_octets",
    "received_octets",
    "missed_messages",
    "retransmits",
    "min_rtt_ns",
)


@dataclass(slots=True)
class Attempt:
    """How one flow went, as its client side saw it; times are monotonic until they become a row.

    `retransmits` and `min_rtt_ns` are the kernel's own, read at the close (TCP_INFO), UNKNOWN when it was not asked.
    """

    script: FlowScript
    due_ns: int
    source_port: int
    started_ns: int = 0
    ended_ns: int = 0
    error: str = "not_started"
    connected: bool = False
    completed: bool = False
    source_port_kept: bool = True
    sent_octets: int = 0
    received_octets: int = 0
    missed_messages: int = 0
    retransmits: int = UNKNOWN
    min_rtt_ns: int = UNKNOWN

    def row(self, clock_offset_ns: int) -> tuple[object, ...]:
        """Its ATTEMPT_COLUMNS, times since 1970."""
        script = self.script
        return (
            script.flow_id,
            script.protocol,
            script.source_node,
            script.source[0],
            self.source_port,
            *script.target,
            script.outcome,
            script.exchanges,
            self.due_ns + clock_offset_ns,
            self.started_ns + clock_offset_ns,
            self.ended_ns + clock_offset_ns,
            self.error,
            self.connected,
            self.completed,
            self.source_port_kept,
            self.sent_octets,
            self.received_octets,
            self.missed_messages,
            self.retransmits,
            self.min_rtt_ns,
        )


@dataclass(slots=True)
class Notes:
    """Everything written down in one window.

    `retransmits` has what a server side connection's kernel said at its close, by the connection's number; `blocked`
    counts datagrams that the sender's own queue had no room for.
    """

    attempts: list[Attempt] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    walked: list[Walked] = field(default_factory=list)
    accepted: dict[int, Accepted] = field(default_factory=dict)
    retransmits: dict[int, int] = field(default_factory=dict)
    server_octets: dict[str, int] = field(default_factory=dict)
    offered: int = 0
    sent: int = 0
    blocked: int = 0

    def arrived(self, flow_id: str, octets: int) -> None:
        """Application octets of a flow that arrived at a server."""
        self.server_octets[flow_id] = self.server_octets.get(flow_id, 0) + octets

    def all_accepted(self) -> list[Accepted]:
        """Every connection that arrived, with its retransmits."""
        told = self.retransmits
        return [one._replace(retransmits=told[n]) if n in told else one for n, one in self.accepted.items()]

    def all_transfers(self) -> list[Transfer]:
        """Every transfer, those that follow from scripts too."""
        return [*self.transfers, *transfers_of(self.walked)]


def transfers_of(walked: Iterable[Walked]) -> Iterator[Transfer]:
    """The transfers of streams that were carried exactly as scripted."""
    for side, connection, script, cursor in walked:
        offsets = [0, 0]
        for sequence, message in enumerate(script.messages[:cursor]):
            direction = message.direction
            start = offsets[direction]
            end = offsets[direction] = start + len(message.payload)
            answer = script.answer_to(sequence) if side == CLIENT and direction == FORWARD else -1
            yield Transfer(side, connection, script.flow_id, sequence, direction, start, end, answer)


def tcp_info(raw: bytes) -> tuple[int, int]:
    """Packets sent again and the least round-trip time in ns, out of linux/tcp.h's struct tcp_info."""
    if len(raw) < _TCP_INFO_OCTETS:
        return UNKNOWN, UNKNOWN
    again, least_us = _TCP_INFO.unpack_from(raw, _TOTAL_RETRANS_AT)
    return again, UNKNOWN if least_us == _NEVER_US else least_us * 1_000
