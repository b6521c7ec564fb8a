"""Every window of a pair begins alike: nothing tracked, no neighbour known, no proxy session open; and what was left.

It knows no traffic, no change and no verdict.  Caches of path MTUs, firewalls' connections and the chance of links are
begun anew before every window of any run (`Shadow.forget`); here is what only pairs need.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.devices.base import Reading
from testbed.network.neighbours import forget_neighbours
from testbed.shadow import Shadow

QUIET_SECONDS = 3.0
POLL_SECONDS = 0.05


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


def begin_alike(shadow: Shadow) -> Leftover:
    """Wait for proxies to have no session, drop tracked connections and neighbours, and read back what is there.

    Raises CommandFailed when connections cannot be dropped, OSError when the kernel keeps a neighbour.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    readings = shadow.readings()
    while _sum(readings, "proxy", "scur") and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        readings = shadow.readings()
    tracking = [name for name, told in readings.items() if any(one.kind == "conntrack" for one in told)]
    for name in tracking:
        shadow.boxes[name].run(["conntrack", "-F"])
    neighbours = sum(forget_neighbours(box.namespace) for box in shadow.boxes.values())
    after = shadow.readings()
    return Leftover(int(_sum(after, "conntrack", "entries")), neighbours, int(_sum(after, "proxy", "scur")))


def _sum(readings: Mapping[str, Sequence[Reading]], kind: str, metric: str) -> float:
    """Over all nodes; of a proxy its frontends, which hold the sessions that its backends and servers count again."""
    return sum(
        one.value
        for told in readings.values()
        for one in told
        if one.kind == kind and one.metric == metric and (kind != "proxy" or one.object.endswith("/FRONTEND"))
    )
