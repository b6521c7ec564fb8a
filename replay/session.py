"""The player: processes that speak for every node, client and server side, window by window.

They are the only ones that sleep or send. They are forked once, with every namespace and listener, answer
health checks from then on, and play a window whenever their parent says so, so that the parent can
change the network meanwhile. Only the client side decides how a flow went.

Same five-tuples again: client sockets have SO_REUSEADDR, and `tcp_max_tw_buckets` is set to 0 in
the player's own namespaces, so an orderly close (FIN both ways, every byte acknowledged) leaves no
TIME_WAIT behind. What has no captured close is reset when the window is over, so that middle boxes
forget it too and the next SYN is new to them.
"""

import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from replay.child import Child, ChildFailed, ChildOwner
from replay.conversation import Patience
from replay.director import LEAD_NS, Director, Order, Ready
from replay.played import PlayResult, ShardResult, joined
from replay.schedule import Schedule
from replay.servers import Listener
from replay.shards import HOME, Lines, processors, shards_for
from replay.tls_line import Trust

__all__ = ["Listener", "Patience", "Play", "PlayResult", "Player", "PlayerFailed", "Trust", "open_files"]

PlayerFailed = ChildFailed
_DESCRIPTORS_OF_OUR_OWN = 200
_LEAD_A_NODE_NS = 500_000
_UNEVEN = 1.2
"""How much fuller than its even share a shard may be."""


class Player(ChildOwner):
    """The player processes of a whole run; enter it, `play` windows, leave it.

    `shards` says how many processes share the flows; left out, a load that one can carry gets one, a heavier one as
    many as there are processors. `trust` is what clients of TLS trust. Raises PlayerFailed when a process cannot start,
    or more flows are open at once than RLIMIT_NOFILE permits (both ends of a flow are sockets of one process).
    """

    def __init__(
        self,
        schedule: Schedule,
        namespaces: Mapping[str, int],
        listeners: Sequence[Listener],
        patience: Patience | None = None,
        overrun_ns: int = 10_000_000_000,
        shards: int | None = None,
        trust: Trust | None = None,
    ) -> None:
        self._schedule = schedule
        self._namespaces = dict(namespaces)
        self._listeners = tuple(listeners)
        self._patience = patience or Patience()
        self._overrun_ns = overrun_ns
        self._shards = shards or shards_for(_events_per_s(schedule), processors())
        self._trust = trust
        self._realtime = False
        self._children: list[Child] = []
        self._check_descriptors(listeners)

    @property
    def pid(self) -> int:
        """The first player's process id."""
        return self.pids[0]

    @property
    def pids(self) -> tuple[int, ...]:
        """The process id of every shard."""
        return tuple(child.pid for child in self._children)

    def start(self) -> None:
        """Fork the processes; returns when every listener is open."""
        lines = Lines(self._shards)
        direct: frozenset[tuple[int, str, int]] | None = None
        try:
            for shard in range(self._shards):
                mates = lines.of(shard)
                director = Director(
                    self._schedule,
                    self._namespaces,
                    self._listeners,
                    self._patience,
                    self._overrun_ns,
                    mates,
                    direct,
                    self._trust,
                )
                name = "player" if self._shards == 1 else f"player {shard}"
                child = Child(name, director.run, keep=(*self._namespaces.values(), *mates.filenos))
                self._children.append(child)
                # one after the other: the kernel counts the sockets of a port in the order in which they were bound
                ready = cast("Ready", child.start())
                if shard == HOME:
                    self._realtime, direct = ready.realtime, ready.direct
        except BaseException:
            self.stop()
            raise
        finally:
            lines.close()

    def stop(self) -> None:
        """End the processes."""
        for child in self._children:
            child.stop()
        self._children.clear()

    def play(self, window: int, only: Iterable[str] | None = None, patience: Patience | None = None) -> "Play":
        """Begin a window now, of all flows or `only` those (flows or probes) of these ids; returns at once.

        Chosen ones make a window that ends with them, not with the schedule; `patience` is this window's own.
        """
        chosen = None if only is None else frozenset(only)
        order = Order(window, time.monotonic_ns() + self._lead_ns(), chosen, patience)
        if not self._children:
            raise PlayerFailed("the player was not started")
        for child in self._children:
            child.send(order)
        return Play(tuple(self._children), window, self._schedule, self._realtime)

    def _lead_ns(self) -> int:
        """Long enough for every process to read the counters of every node first."""
        return LEAD_NS + _LEAD_A_NODE_NS * len(self._namespaces)

    def _check_descriptors(self, listeners: Sequence[Listener]) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        wanted = open_files(self._schedule, len(listeners), self._patience, self._shards)
        if hard != resource.RLIM_INFINITY and wanted > hard:
            open_flows = self._schedule.concurrency(self._patience.message_timeout_ns)
            raise PlayerFailed(
                f"{open_flows} flows at once need {wanted} open files, this machine allows {hard}: "
                "lower the speed or replay fewer flows"
            )


def open_files(schedule: Schedule, listeners: int, patience: Patience, shards: int | None = None) -> int:
    """How many files one process of a player has open when most flows are: both ends of a flow are sockets of it."""
    shards = shards or shards_for(_events_per_s(schedule), processors())
    open_flows = schedule.concurrency(patience.message_timeout_ns)
    share = open_flows if shards == 1 else int(open_flows / shards * _UNEVEN)
    return 2 * share + 2 * listeners + _DESCRIPTORS_OF_OUR_OWN


def _events_per_s(schedule: Schedule) -> float:
    """Scheduled events a second: starts and messages, both sides."""
    events = len(schedule.scripts) + schedule.messages
    return events * 1e9 / max(schedule.duration_ns, 1_000_000_000)


class Play:
    """A window that is being played."""

    def __init__(self, children: tuple[Child, ...], window: int, schedule: Schedule, realtime: bool) -> None:
        self.window = window
        self._children = children
        self._schedule = schedule
        self._realtime = realtime
        self._parts: list[ShardResult] = []

    def wait(self, timeout_s: float | None = None) -> PlayResult:
        """The window's result once it is over; raises TimeoutError, PlayerFailed."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while len(self._parts) < len(self._children):
            left = None if until is None else max(0.0, until - time.monotonic())
            child = self._children[len(self._parts)]
            self._parts.append(cast("ShardResult", child.receive("played", left)))
        return joined(self._parts, self._schedule.speed, self._schedule.unplayable, realtime=self._realtime)
