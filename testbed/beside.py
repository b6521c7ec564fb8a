"""What goes on in every window beside the flows that are played over sockets: packets sent, background load.

The port that `testbed.measure` knows, and how a part's own record joins the window's.  It knows no part by kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import pandas as pd

from analysis.window import Role
from replay.instrument import Instrument
from replay.tap import Tapped
from testbed.paths import Atlas

_NOTHING_PLAYED = "no flow was attempted"


@dataclass(frozen=True, slots=True)
class Part:
    """What one part adds to a window: KPI rows, and its share of the instrument's record.

    `reason` says why the part was not what was planned, so that the window is not judged.
    """

    kpis: pd.DataFrame | None = None
    offered: int = 0
    sent: int = 0
    lateness_us: Sequence[float] = field(default=())
    reason: str = ""


class Beside(Protocol):
    """A part of every window; `begin` and `end` are called while the taps listen."""

    def arm(self) -> None:
        """Do what takes time before the window begins."""

    def begin(self, window: int) -> None:
        """Begin now; returns at once."""

    def end(self) -> None:
        """Wait for the end, or make it: the flows over sockets have ended."""

    def part(self, window: int, role: Role, seen: Tapped, atlas: Atlas) -> Part:
        """What it came to, by the taps of the window."""


def joined(told: Instrument, parts: Sequence[Part]) -> Instrument:
    """The window's record with its parts in it: sums, the worst lateness, every reason.

    A window without a flow over sockets is still a window when packets were sent.
    """
    played = [part for part in parts if part.offered]
    reasons = [reason for reason in told.reason.split("; ") if reason]
    if played:
        reasons = [reason for reason in reasons if reason != _NOTHING_PLAYED]
    reasons += [part.reason for part in parts if part.reason]
    quantiles = [(told.lateness_p50_us, told.lateness_p99_us, told.lateness_max_us)]
    for part in played:
        lateness = pd.Series(part.lateness_us, dtype="float64")
        if len(lateness):
            p50, p99 = (float(lateness.quantile(q)) for q in (0.5, 0.99))
            quantiles.append((p50, p99, float(lateness.max())))
    p50, p99, most = (max(column) for column in zip(*quantiles, strict=True))
    return replace(
        told,
        lateness_p50_us=p50,
        lateness_p99_us=p99,
        lateness_max_us=most,
        offered=told.offered + sum(part.offered for part in parts),
        sent=told.sent + sum(part.sent for part in parts),
        valid=not reasons,
        reason="; ".join(reasons),
    )
