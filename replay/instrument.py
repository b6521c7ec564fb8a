"""Whether a window may be believed: how late, how complete and how well seen its replay was.

Pure. A busy machine is no network: what the player did late is told here and judged nowhere else.
"""

from dataclasses import dataclass

import numpy as np

from replay.session import PlayResult


@dataclass(frozen=True, slots=True)
class Bounds:
    """Beyond these a window is invalid.

    50 ms of lateness is tolerable because KPIs come from kernel stamps, which it does not touch;
    beyond that the order and the overlap of flows are no longer those of the capture.
    """

    lateness_p99_us: float = 50_000.0
    sent_ratio: float = 0.99
    capture_drops: int = 0
    not_started: int = 0


@dataclass(frozen=True, slots=True)
class Instrument:
    """The instrument's own record of one window; `valid` is False with a reason for people."""

    lateness_p50_us: float
    lateness_p99_us: float
    offered: int
    sent: int
    capture_drops: int
    realtime: bool
    valid: bool
    reason: str


def instrument(result: PlayResult, capture_drops: int, bounds: Bounds | None = None) -> Instrument:
    """The record of a window; empty windows are invalid, because nothing was measured."""
    bounds = bounds or Bounds()
    lateness_us = result.lateness["lateness_ns"].to_numpy(dtype=np.float64) / 1_000
    p50, p99 = (float(np.percentile(lateness_us, q)) if len(lateness_us) else 0.0 for q in (50, 99))
    reasons = []
    if not len(result.attempts):
        reasons.append("no flow was attempted")
    if result.offered and result.sent < bounds.sent_ratio * result.offered:
        share = 100 * result.sent / result.offered
        reasons.append(f"only {share:.1f} % of the scheduled events were sent (bound {bounds.sent_ratio:.0%})")
    if p99 > bounds.lateness_p99_us:
        limit = bounds.lateness_p99_us / 1_000
        reasons.append(f"1 % of the events left more than {p99 / 1_000:.1f} ms late (bound {limit:.0f} ms)")
    if capture_drops > bounds.capture_drops:
        reasons.append(f"the taps dropped {capture_drops} packets")
    missing = int((result.attempts["error"] == "not_started").sum())
    if missing > bounds.not_started:
        reasons.append(f"{missing} flows could not be started on this machine")
    return Instrument(
        lateness_p50_us=p50,
        lateness_p99_us=p99,
        offered=result.offered,
        sent=result.sent,
        capture_drops=capture_drops,
        realtime=result.realtime,
        valid=not reasons,
        reason="; ".join(reasons),
    )
