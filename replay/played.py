"""What one window's replay came to: the tables that its player processes hand back, as one.

Pure. It knows no process and no socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from replay.effort import Effort
from replay.observed import ATTEMPT_COLUMNS, Accepted, Transfer


@dataclass(frozen=True, slots=True)
class ShardResult:
    """One player process's part of a window, as rows: what crosses to its parent."""

    window: int
    started_ns: int
    ended_ns: int
    attempts: list[tuple[object, ...]]
    transfers: list[Transfer]
    accepted: list[Accepted]
    lateness: list[tuple[str, int]]
    server_octets: dict[str, int]
    offered: int
    sent: int
    effort: Effort


@dataclass(frozen=True, slots=True)
class PlayResult:
    """What one window's replay did; every moment is CLOCK_REALTIME, as the taps' stamps are.

    `attempts`: a row a flow (what was tried, from which port, how it went, how late).
    `transfers`: a row a message and side, by stream offset. `accepted`: a row a connection that
    arrived at a server. `lateness`: flow_id and lateness_ns of every scheduled event. `effort`: what it cost.
    """

    window: int
    speed: float
    started_ns: int
    ended_ns: int
    attempts: pd.DataFrame
    transfers: pd.DataFrame
    accepted: pd.DataFrame
    lateness: pd.DataFrame
    offered: int
    sent: int
    realtime: bool
    unplayable: tuple[tuple[str, str], ...]
    effort: Effort = field(default_factory=Effort)


def joined(
    parts: Sequence[ShardResult], speed: float, unplayable: tuple[tuple[str, str], ...], *, realtime: bool
) -> PlayResult:
    """The parts of a window as one result; attempts in order of their moment."""
    attempts = _frame([row for part in parts for row in part.attempts], ATTEMPT_COLUMNS)
    if len(parts) > 1:
        attempts = attempts.sort_values("due_ns", kind="stable", ignore_index=True)
    octets: dict[str, int] = {}
    for part in parts:
        for flow_id, count in part.server_octets.items():
            octets[flow_id] = octets.get(flow_id, 0) + count
    attempts["server_octets"] = attempts["flow_id"].map(octets).fillna(0).astype("int64")
    return PlayResult(
        window=parts[0].window,
        speed=speed,
        started_ns=min(part.started_ns for part in parts),
        ended_ns=max(part.ended_ns for part in parts),
        attempts=attempts,
        transfers=_frame([row for part in parts for row in part.transfers], Transfer._fields),
        accepted=_frame([row for part in parts for row in part.accepted], Accepted._fields),
        lateness=_frame([row for part in parts for row in part.lateness], ("flow_id", "lateness_ns")),
        offered=sum(part.offered for part in parts),
        sent=sum(part.sent for part in parts),
        realtime=realtime,
        unplayable=unplayable,
        effort=Effort.of_all(part.effort for part in parts),
    )


def _frame(rows: Sequence[tuple[object, ...]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame.from_records(rows, columns=list(columns))
