"""A possible culprit: the blame as it would be told, how strongly it is held, and which flows it explains.

Knows no device.  The grounds are ordered: what a counter saw weighs more than what a diff suggests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from analysis.verdict import Blame
from testbed.change.model import Line


class Ground(IntEnum):
    """Why somebody is suspected, the weakest first; the numbers weigh against how many flows are explained."""

    ONLY_NEAR = 10
    LATENT = 20
    UNSEEN = 30
    TOUCHED = 40
    PLAUSIBLE = 60
    LINK_SEEN = 74
    PROXY_SEEN = 80
    ROUTE_MOVED = 82
    BLACKHOLE = 86
    RULE_GONE = 90
    RULE_HIT = 94


GUESSED = frozenset({Ground.ONLY_NEAR, Ground.TOUCHED, Ground.PLAUSIBLE})
"""Grounds on which no counter and no table speaks for the line itself."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """One candidate for one finding; `place` breaks ties, small first.

    Without a `line` of the change it is a fault that was there before, at `file` and `number`.
    """

    ground: Ground
    node: str
    object: str
    line: Line | None
    evidence: tuple[str, ...]
    flows: frozenset[str]
    place: tuple[float, ...] = ()
    file: str | None = None
    number: int | None = None
    text: str = ""

    def score(self, of: int) -> float:
        """The ground, a third less when no flow is explained; `of` is the number of flows of the finding."""
        return self.ground * (0.65 + 0.35 * len(self.flows) / max(of, 1))

    def blame(self, more: Iterable[str] = ()) -> Blame:
        """The blame to tell, with the evidence of others after its own."""
        evidence = tuple(dict.fromkeys((*self.evidence, *more)))
        held = "diff" if self.ground in GUESSED else "counters"
        if self.line is None:
            return Blame(self.node, self.object, self.file, self.number, self.text, evidence, held, in_change=False)
        line = self.line
        return Blame(self.node, self.object, line.file, line.line, line.text, evidence, held)


def where(line: Line) -> str:
    """A changed line as people quote it: `+ configs/fw1/iptables.rules:12 "-A FORWARD …"`."""
    return f'{line.sign}{line.file}:{line.line} "{line.text.strip()}"'
