"""What a journey is: the hops of a flow in each direction, what decided at each, where it ended, and its KPIs.

Frozen values and their JSON form.  This file may not know how a journey was captured nor how it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum

FORWARD, REVERSE = "forward", "reverse"


class Ended(StrEnum):
    """How a journey can end."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    REFUSED = "refused"
    NO_ROUTE = "no route"
    HOP_LIMIT = "hop limit"
    TOO_BIG = "too big"
    LOST = "lost on link"
    UNANSWERED = "unanswered"
    NO_SERVER = "no server"


@dataclass(frozen=True, slots=True)
class Tuple:
    """A packet's protocol, addresses and ports as one place saw them; ports are 0 where there are none."""

    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int

    @property
    def reverse(self) -> Tuple:
        """That of the answers."""
        return Tuple(self.protocol, self.destination, self.destination_port, self.source, self.source_port)


@dataclass(frozen=True, slots=True)
class Decision:
    """A rule, a route or a proxy's choice that a packet met, and the line it was written on, where there is one.

    `what` is "rule", "route" or "proxy"; `file` is the node's config by name.
    """

    what: str
    node: str
    object: str
    text: str
    verdict: str
    file: str = ""
    line: int | None = None

    @property
    def place(self) -> str:
        """`file:line`, as far as known."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file


@dataclass(frozen=True, slots=True)
class Hop:
    """One node on the way; times are nanoseconds since the journey's first packet, None where it was not seen.

    `entered` and `left` are interfaces by production's name, None where the packet began or ended here.
    `seen_as` is the packet as it came, `sent_as` as it went on: they differ where an address was translated.
    """

    node: str
    kind: str
    entered: str | None
    left: str | None
    entered_ns: int | None
    left_ns: int | None
    packets_in: int
    packets_out: int
    seen_as: Tuple
    sent_as: Tuple
    decisions: tuple[Decision, ...] = ()

    @property
    def translation(self) -> str:
        """What was rewritten here, as `destination 203.0.113.10:443 → 10.2.0.10:443`; empty if nothing was."""
        if self.entered is None or self.left is None:
            return ""
        told = []
        for end in ("source", "destination"):
            before, after = (
                end_text(getattr(one, end), getattr(one, f"{end}_port")) for one in (self.seen_as, self.sent_as)
            )
            if before != after:
                told.append(f"{end} {before} → {after}")
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Leg:
    """One direction of one connection: from the client, or from a proxy to the server it chose."""

    connection: int
    direction: str
    hops: tuple[Hop, ...]
    lost_packets: int = 0
    """Packets that were seen to leave a place and never came to the next, sent again or not."""


@dataclass(frozen=True, slots=True)
class End:
    """Where and how a journey ended; `leg` and `hop` count from 0 in the journey's own."""

    how: Ended
    node: str
    interface: str = ""
    reason: str = ""
    decision: Decision | None = None
    leg: int = 0
    hop: int = 0


@dataclass(frozen=True, slots=True)
class Journey:
    """One sending of the flow."""

    legs: tuple[Leg, ...]
    end: End
    kpis: Mapping[str, float | bool | str | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    capture_drops: int = 0


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two journeys part, in words; `leg` and `hop` count in the journey `after`, -1 where that has none."""

    node: str
    what: str
    before: str
    after: str
    leg: int
    hop: int
    before_leg: int = 0
    before_hop: int = 0


@dataclass(frozen=True, slots=True)
class Culprit:
    """What made the journeys part; `in_change` tells the change's own line from a latent fault."""

    node: str
    object: str
    file: str
    line: int | None
    text: str
    in_change: bool
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TracedFlow:
    """A flow's identity, as its capture and the run have it."""

    flow_id: str
    flow_class: str
    priority: str
    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int
    captured: str


@dataclass(frozen=True, slots=True)
class Trace:
    """The document: two journeys of one flow, where they part and who did it."""

    run: str
    change: str
    flow: TracedFlow
    before: Journey
    after: Journey
    parting: Parting | None = None
    culprits: tuple[Culprit, ...] = ()
    notes: tuple[str, ...] = ()
    restored: bool = True

    def document(self) -> dict[str, object]:
        """As JSON, schema 1: keys are the fields' names, a hop has its `translation` too."""
        return {"schema": 1, **_plain_fields(self)}


def end_text(address: str, port: int) -> str:
    """`10.0.0.1:80`, `[2001:db8::1]:80`, or the bare address where there is no port."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_fields(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity"
    return value


def _plain_fields(value: object) -> dict[str, object]:
    told = {one.name: _plain(getattr(value, one.name)) for one in fields(value)}  # type: ignore[arg-type]
    if isinstance(value, Hop):
        told["translation"] = value.translation
    return told
