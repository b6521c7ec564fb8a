"""Every window of a pair begins alike: nothing tracked, no neighbour known, no proxy session open; and what was left.

It knows no traffic, no change and no verdict.  Caches of path MTUs, firewalls' connections and the chance of links are
begun anew before every window of any run (`Shadow.forget`); here is what only pairs need.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from testbed.devices.base import Reading
from testbed.network.neighbours import forget_neighbours
from testbed.shadow import Shadow

QUIET_SECONDS = 3.0
POLL_SECONDS = 0.05

Readings = Mapping[str, Sequence[Reading]]
"""What every node tells of itself, by node."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What earlier windows left when a window began, over all nodes.

    `connections` and `neighbours` may be there though all were dropped: a health check or a routing protocol made them
    at once, in every arm alike. `sessions` are a proxy's; one of an earlier window is no equal start.
    """

    connections: int = 0
    neighbours: int = 0
    sessions: int = 0

    @property
    def reason(self) -> str:
        """Why the window did not begin like the others; "" when it did."""
        return f"{self.sessions} proxy sessions of an earlier window were still open" if self.sessions else ""

    def record(self) -> dict[str, int]:
        """As in the window's instrument record."""
        return {
            "left_connections": self.connections,
            "left_neighbours": self.neighbours,
            "left_sessions": self.sessions,
        }


def begin_alike(shadow: Shadow, known: Readings) -> int:
    """Wait for proxies to have no session, drop tracked connections and neighbours; returns neighbours known at once.

    `known` tells which nodes are proxies and which track connections: any reading of theirs, however old. Raises
    CommandFailed when connections cannot be dropped, OSError when the kernel keeps a neighbour.
    """
    proxies = _telling(known, "proxy")
    deadline = time.monotonic() + QUIET_SECONDS
    while _sessions(_asked(shadow, name) for name in proxies) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for name in _telling(known, "conntrack"):
        shadow.boxes[name].run(["conntrack", "-F"])
    return sum(forget_neighbours(box.namespace) for box in shadow.boxes.values())


def left_over(readings: Readings, neighbours: int) -> Leftover:
    """What is there when a window begins, read back after everything was dropped."""
    entries = sum(one.value for one in chain(*readings.values()) if one.kind == "conntrack" and one.metric == "entries")
    return Leftover(int(entries), neighbours, _sessions(readings.values()))


def _telling(readings: Readings, kind: str) -> list[str]:
    return [name for name, told in readings.items() if any(one.kind == kind for one in told)]


def _asked(shadow: Shadow, name: str) -> Sequence[Reading]:
    return shadow.device(name).readings(shadow.boxes[name], shadow.configs[name])


def _sessions(readings: Iterable[Sequence[Reading]]) -> int:
    """Of frontends, which hold the sessions that a proxy's backends and servers count again."""
    return int(
        sum(
            one.value
            for one in chain(*readings)
            if one.kind == "proxy" and one.metric == "scur" and one.object.endswith("/FRONTEND")
        )
    )
