"""What the player writes down while it plays: attempts, transfers, accepted flows. Plain records.

Knows no socket. Stream offsets count octets of one side's own connection from the window's start
(datagrams, for UDP), so that a tap's segments can be joined to them.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

CLIENT = 0
SERVER = 1


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


class Accepted(NamedTuple):
    """One connection (or UDP peer) as the server side saw it; `flow_id` is "" when shared."""

    connection: int
    node: str
    protocol: int
    local_address: str
    local_port: int
    peer_address: str
    peer_port: int
    accepted_ns: int
    flow_id: str


@dataclass(slots=True)
class Attempt:
    """How one flow went, as its client side saw it; times are monotonic until reported."""

    flow_id: str
    protocol: int
    node: str
    source_address: str
    source_port: int
    target_address: str
    target_port: int
    outcome: str
    exchanges: int
    due_ns: int
    started_ns: int = 0
    ended_ns: int = 0
    error: str = "not_started"
    connected: bool = False
    completed: bool = False
    source_port_kept: bool = True
    sent_octets: int = 0
    received_octets: int = 0
    missed_messages: int = 0


@dataclass(slots=True)
class Notes:
    """Everything written down in one window."""

    attempts: list[Attempt] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    accepted: dict[int, Accepted] = field(default_factory=dict)
    server_octets: dict[str, int] = field(default_factory=dict)
    offered: int = 0
    sent: int = 0
