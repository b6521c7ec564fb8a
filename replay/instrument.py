"""Whether a window may be believed: how late, how complete and how well seen its replay was.

Pure. A busy machine is no network: what the player did late is told here and judged nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from replay.effort import Effort
from replay.played import PlayResult


@dataclass(frozen=True, slots=True)
class Bounds:
    """Beyond these a window is invalid.

    50 ms of lateness is tolerable because KPIs come from kernel stamps, which it does not touch;
    beyond that the order and the overlap of flows are no longer those of the capture. What an end point's own kernel
    dropped (at a tap, in a full receive or accept queue) would look like the network's loss: none of it is tolerable.
    """

    lateness_p99_us: float = 50_000.0
    sent_ratio: float = 0.99
    capture_drops: int = 0
    not_started: int = 0
    udp_receive_drops: int = 0
    listen_drops: int = 0
    send_blocked_ratio: float = 0.01
    reaction_p99_us: float = 50_000.0
    player_cpu_percent: float = 97.0
    player_waited_percent: float = 80.0


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
    lateness_max_us: float = 0.0
    effort: Effort = field(default_factory=Effort)


def instrument(result: PlayResult, capture_drops: int, bounds: Bounds | None = None) -> Instrument:
    """The record of a window; empty windows are invalid, because nothing was measured."""
    bounds = bounds or Bounds()
    lateness_us = result.lateness["lateness_ns"].to_numpy(dtype=np.float64) / 1_000
    p50, p99, most = (float(np.percentile(lateness_us, q)) if len(lateness_us) else 0.0 for q in (50, 99, 100))
    reasons = [*_schedule_reasons(result, p99, bounds), *_dropped(result, capture_drops, bounds)]
    return Instrument(
        lateness_p50_us=p50,
        lateness_p99_us=p99,
        offered=result.offered,
        sent=result.sent,
        capture_drops=capture_drops,
        realtime=result.realtime,
        valid=not reasons,
        reason="; ".join(reasons),
        lateness_max_us=most,
        effort=result.effort,
    )


def _schedule_reasons(result: PlayResult, p99_us: float, bounds: Bounds) -> Iterator[str]:
    """Why what was played is not what was planned."""
    effort = result.effort
    if not len(result.attempts):
        yield "no flow was attempted"
    if result.offered and result.sent < bounds.sent_ratio * result.offered:
        share = 100 * result.sent / result.offered
        yield f"only {share:.1f} % of the scheduled events were sent (bound {bounds.sent_ratio:.0%})"
    if p99_us > bounds.lateness_p99_us:
        limit = bounds.lateness_p99_us / 1_000
        yield f"1 % of the events left more than {p99_us / 1_000:.1f} ms late (bound {limit:.0f} ms)"
    if effort.reaction_p99_us > bounds.reaction_p99_us:
        limit = bounds.reaction_p99_us / 1_000
        yield (
            f"1 % of what arrived may have waited more than {effort.reaction_p99_us / 1_000:.1f} ms for the player "
            f"(bound {limit:.0f} ms)"
        )
    if effort.player_cpu_percent > bounds.player_cpu_percent:
        yield (
            f"the player used {effort.player_cpu_percent:.0f} % of its processor "
            f"(bound {bounds.player_cpu_percent:.0f} %)"
        )
    if effort.player_waited_percent > bounds.player_waited_percent:
        yield (
            f"the player waited for a processor for {effort.player_waited_percent:.0f} % of the window "
            f"(bound {bounds.player_waited_percent:.0f} %)"
        )
    missing = int((result.attempts["error"] == "not_started").sum())
    if missing > bounds.not_started:
        yield f"{missing} flows could not be started on this machine"


def _dropped(result: PlayResult, capture_drops: int, bounds: Bounds) -> Iterator[str]:
    """Why what was seen is not what passed, or what was lost was not lost by the network."""
    effort = result.effort
    if capture_drops > bounds.capture_drops:
        yield f"the taps dropped {capture_drops} packets"
    if effort.udp_receive_drops > bounds.udp_receive_drops:
        yield f"{effort.udp_receive_drops} datagrams arrived and found the end points' receive queues full"
    if effort.listen_drops > bounds.listen_drops:
        yield f"{effort.listen_drops} connections arrived and found the end points' accept queues full"
    if effort.send_blocked > bounds.send_blocked_ratio * max(1, result.sent):
        yield f"{effort.send_blocked} datagrams found no room in their sender's own queue"
