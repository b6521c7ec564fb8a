"""The words a judgement ends in: verdict, severity, finding, blame.

May not know how a finding was found, nor what a topology, a file system or a clock is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

PRIORITIES = ("critical", "high", "normal", "low")


class Verdict(Enum):
    """What a run says about a change; the larger value is the worse one."""

    PASS = 0
    INCONCLUSIVE = 1
    FAIL = 2

    @classmethod
    def worst(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """The worst of several verdicts; of none at all it is INCONCLUSIVE, because nothing measured is not a pass."""
        return max(verdicts, key=lambda verdict: verdict.value, default=cls.INCONCLUSIVE)


class Severity(Enum):
    """What one finding means for the verdict: FAIL gates, WARN deserves a look, INFO is told."""

    INFO = 0
    WARN = 1
    FAIL = 2


class Scope(StrEnum):
    """How far a finding reaches."""

    FLOW = "flow"
    CLASS = "class"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Blame:
    """The object that did it: where it stands, and evidence that a sceptic can check.

    `decided_by` says how it is known: "trace" (the kernel's account of one flow), "counters" (what devices counted and
    told before and after), "checker" (a daemon's own check), "probe" (an access tried before and after) or "diff" (a
    guess by the change alone).  `in_change` is false for a fault that was there before and was only met now.
    """

    node: str
    object: str
    file: str | None = None
    line: int | None = None
    text: str = ""
    evidence: tuple[str, ...] = ()
    decided_by: str = ""
    in_change: bool = True

    def to_json(self) -> dict[str, Json]:
        """The blame as the `blame` object of `verdict.json`."""
        return {
            "node": self.node,
            "object": self.object,
            "file": self.file,
            "line": self.line,
            "text": self.text,
            "evidence": list(self.evidence),
            "decided_by": self.decided_by,
            "in_change": self.in_change,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged effect of the change on a flow, a class of flows or the network.

    `before` and `after` are in `unit`; an infinite delay means lost or never answered.
    """

    finding_id: str
    scope: Scope
    subject: str
    kpi: str
    before: float
    after: float
    unit: str
    deviation_percent: float
    effect: str
    priority: str
    verdict: Severity
    flows: tuple[str, ...] = ()
    interval_low: float | None = None
    interval_high: float | None = None
    q_value: float | None = None
    blame: Blame | None = field(default=None)

    def with_blame(self, blame: Blame) -> Finding:
        """The same finding, with the culprit named."""
        return replace(self, blame=blame)

    def to_json(self) -> dict[str, Json]:
        """The finding as in `verdict.json`; JSON has no such numbers, so infinite is "Infinity" and NaN is null."""
        return {
            "finding_id": self.finding_id,
            "scope": self.scope.value,
            "subject": self.subject,
            "kpi": self.kpi,
            "before": json_number(self.before),
            "after": json_number(self.after),
            "unit": self.unit,
            "deviation_percent": json_number(self.deviation_percent),
            "effect": self.effect,
            "interval_low": json_number(self.interval_low),
            "interval_high": json_number(self.interval_high),
            "q_value": json_number(self.q_value),
            "priority": self.priority,
            "verdict": self.verdict.name,
            "flows": list(self.flows),
            "blame": None if self.blame is None else self.blame.to_json(),
        }


def json_number(value: float | None) -> float | str | None:
    """A number that JSON can carry: null for NaN, the strings "Infinity" and "-Infinity" for the infinite."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def priority_rank(priority: str) -> int:
    """0 for critical up to 3 for low; an unknown word counts as normal."""
    return PRIORITIES.index(priority if priority in PRIORITIES else "normal")


def finding_id(*parts: str) -> str:
    """A short name for a finding that stays the same when the same data are judged again."""
    return hashlib.blake2s("\x1f".join(parts).encode(), digest_size=5).hexdigest()
