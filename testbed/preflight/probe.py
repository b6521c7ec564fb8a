"""A probe: one short flow, what it stands for, and what production did with such flows.  Frozen values, no socket."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from replay.schedule import ECHO, FlowScript
from testbed.change.model import Line

PROTOCOL_WORDS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
Stand = tuple[str, int, int]
"""(node, protocol, port) where a probe may arrive and nobody may be listening."""


class Kind(StrEnum):
    """What a probe is made of: an observed class, a declared way, a rule, a refused class, a known service."""

    CLASS = "class"
    DECLARED = "declared"
    RULE = "rule"
    REFUSED = "refused"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe; `flows` is how many captured ones it stands for, `expected` what became of them (None: unknown).

    `members` are the flow_ids of those, `origin` is the line of the change that it was made of, `stands` where
    stand-ins have to listen for it.
    """

    kind: Kind
    script: FlowScript
    subject: str
    flow_class: str
    priority: str
    flows: int = 0
    expected: str | None = None
    origin: Line | None = None
    stands: tuple[Stand, ...] = ()
    members: tuple[str, ...] = ()

    @property
    def probe_id(self) -> str:
        """The flow_id of its script."""
        return self.script.flow_id

    @property
    def service(self) -> str:
        """`tcp/443`; `icmp/echo`, because an identifier is no service."""
        if self.script.protocol in ECHO:
            return f"{PROTOCOL_WORDS[self.script.protocol]}/echo"
        return f"{PROTOCOL_WORDS.get(self.script.protocol, str(self.script.protocol))}/{self.script.target[1]}"


@dataclass(frozen=True, slots=True)
class Survey:
    """All probes of a run, and how many more there would have been, by what they were made of."""

    classes: tuple[Probe, ...]
    exposures: tuple[Probe, ...]
    left_out: int = 0

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Classes first."""
        return (*self.classes, *self.exposures)

    @property
    def scripts(self) -> tuple[FlowScript, ...]:
        """What the player has to know."""
        return tuple(probe.script for probe in self.probes)
