"""The player: one process that speaks for every node, client and server side, window by window.

The only place that sleeps or sends. It is forked once, with every namespace and listener, answers
health checks from then on, and plays a window whenever its parent says so, so that the parent can
change the network meanwhile. Only the client side decides how a flow went.

Same five-tuples again: client sockets have SO_REUSEADDR, and `tcp_max_tw_buckets` is set to 0 in
the player's own namespaces, so an orderly close (FIN both ways, every byte acknowledged) leaves no
TIME_WAIT behind. What has no captured close is reset when the window is over, so that middle boxes
forget it too and the next SYN is new to them.
"""

import gc
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import pandas as pd

from replay.child import Channel, Child, ChildFailed, ChildOwner, ask_real_time
from replay.conversation import Patience, TcpConversation
from replay.exchange import UdpExchange
from replay.observed import Accepted, Attempt, Notes, Transfer
from replay.reactor import Namespaces, Reactor
from replay.schedule import TCP, FlowScript, Schedule
from replay.servers import Listener, Servers

__all__ = ["Listener", "Patience", "Play", "PlayResult", "Player", "PlayerFailed"]

PlayerFailed = ChildFailed
_REAL_TIME_PRIORITY = 20
_LEAD_NS = 20_000_000
_DESCRIPTORS_OF_OUR_OWN = 200
_TIME_WAIT = Path("/proc/sys/net/ipv4/tcp_max_tw_buckets")


@dataclass(frozen=True, slots=True)
class PlayResult:
    """What one window's replay did; every moment is CLOCK_REALTIME, as the taps' stamps are.

    `attempts`: a row a flow (what was tried, from which port, how it went, how late).
    `transfers`: a row a message and side, by stream offset. `accepted`: a row a connection that
    arrived at a server. `lateness`: flow_id and lateness_ns of every scheduled event.
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


class Player(ChildOwner):
    """A player process for a whole run; enter it, `play` windows, leave it.

    Raises PlayerFailed when the process cannot start, or more flows are open at once than
    RLIMIT_NOFILE permits (both ends of a flow are sockets of this process).
    """

    def __init__(
        self,
        schedule: Schedule,
        namespaces: Mapping[str, int],
        listeners: Sequence[Listener],
        patience: Patience | None = None,
        overrun_ns: int = 10_000_000_000,
    ) -> None:
        self._schedule = schedule
        self._patience = patience or Patience()
        self._realtime = False
        self._check_descriptors(listeners)
        stage = _Director(schedule, namespaces, tuple(listeners), self._patience, overrun_ns)
        self._child = Child("player", stage.run)

    @property
    def pid(self) -> int:
        """The player's process id."""
        return self._child.pid

    def start(self) -> None:
        """Fork the process; returns when every listener is open."""
        self._realtime = bool(self._child.start())

    def play(self, window: int, only: Iterable[str] | None = None, patience: Patience | None = None) -> "Play":
        """Begin a window now, of all flows or `only` those (flows or probes) of these ids; returns at once.

        Chosen ones make a window that ends with them, not with the schedule; `patience` is this window's own.
        """
        chosen = None if only is None else frozenset(only)
        self._child.send(("play", window, chosen, patience))
        return Play(self._child, window, self._schedule, self._realtime)

    def _check_descriptors(self, listeners: Sequence[Listener]) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        open_flows = self._schedule.concurrency(self._patience.message_timeout_ns)
        wanted = 2 * open_flows + 2 * len(listeners) + _DESCRIPTORS_OF_OUR_OWN
        if hard != resource.RLIM_INFINITY and wanted > hard:
            raise PlayerFailed(
                f"{open_flows} flows at once need {wanted} open files, this machine allows {hard}: "
                "lower the speed or replay fewer flows"
            )


class Play:
    """A window that is being played."""

    def __init__(self, child: Child, window: int, schedule: Schedule, realtime: bool) -> None:
        self.window = window
        self._child = child
        self._schedule = schedule
        self._realtime = realtime

    def wait(self, timeout_s: float | None = None) -> PlayResult:
        """The window's result once it is over; raises TimeoutError, PlayerFailed."""
        raw = cast("dict[str, Any]", self._child.receive("played", timeout_s))
        attempts = _frame(raw["attempts"], _ATTEMPT_COLUMNS)
        arrived = attempts["flow_id"].map(raw["server_octets"])
        attempts["server_octets"] = arrived.fillna(0).astype("int64")
        return PlayResult(
            window=raw["window"],
            speed=self._schedule.speed,
            started_ns=raw["started_ns"],
            ended_ns=raw["ended_ns"],
            attempts=attempts,
            transfers=_frame(raw["transfers"], Transfer._fields),
            accepted=_frame(raw["accepted"], Accepted._fields),
            lateness=_frame(raw["lateness"], ("flow_id", "lateness_ns")),
            offered=raw["offered"],
            sent=raw["sent"],
            realtime=self._realtime,
            unplayable=self._schedule.unplayable,
        )


_ATTEMPT_COLUMNS = tuple(f.name for f in fields(Attempt))


def _frame(rows: list[tuple[object, ...]], columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame.from_records(rows, columns=list(columns))


_Command = tuple[str, int, frozenset[str] | None, Patience | None]


class _Director:
    """Lives in the child: owns the reactor, the servers and the window in progress."""

    def __init__(
        self,
        schedule: Schedule,
        namespaces: Mapping[str, int],
        listeners: tuple[Listener, ...],
        patience: Patience,
        overrun_ns: int,
    ) -> None:
        self.schedule = schedule
        self.namespaces = Namespaces(namespaces)
        self.patience = patience
        self.overrun_ns = overrun_ns
        self._listeners = listeners

    def run(self, channel: Channel) -> None:
        """Everything the child does until its parent is gone."""
        realtime = ask_real_time(_REAL_TIME_PRIORITY)
        self.reactor = Reactor()
        self.servers = Servers(self.reactor, self.namespaces)
        for node in self.namespaces:
            self.namespaces.enter(node)
            _forgo_time_wait()
        self.servers.listen(self._listeners)
        self._channel = channel
        self._playing: _Playing | None = None
        self.reactor.watch_fd(channel.fileno(), self._on_command)
        channel.send(("ready", realtime))
        while True:
            self.reactor.turn()

    def _on_command(self, _events: int) -> None:
        command, window, only, patience = cast("_Command", self._channel.receive(0))
        if command != "play" or self._playing is not None:
            raise ChildFailed(f"cannot {command} window {window} now")
        self._playing = _Playing(self, window, only, patience or self.patience)

    def over(self, result: dict[str, Any]) -> None:
        """The window in progress is over."""
        self._playing = None
        self._channel.send(("played", result))
        gc.collect()  # automatic collection is off: it would make sends late


class _Playing:
    """One window: starts every script at its moment, ends when all have ended."""

    def __init__(self, director: _Director, window: int, only: frozenset[str] | None, patience: Patience) -> None:
        self._director = director
        self._window = window
        self.reactor = director.reactor
        self.namespaces = director.namespaces
        self.patience = patience
        self.notes = Notes()
        self._open: dict[str, TcpConversation | UdpExchange] = {}
        self._idle: set[str] = set()
        self._over = False
        schedule = director.schedule
        everything = (*schedule.scripts, *schedule.probes)
        scripts = list(schedule.scripts) if only is None else [s for s in everything if s.flow_id in only]
        self.reactor.lateness = []
        director.servers.begin(self.notes)
        self._anchor_ns = time.monotonic_ns() + _LEAD_NS
        self._clock_offset_ns = director.servers.clock_offset_ns
        self._scripts = scripts
        self._left = len(scripts)
        self.notes.offered += len(scripts)
        self._next = 0
        chosen_ns = max((s.start_ns + s.busy_ns for s in scripts), default=0)
        self._end_ns = self._anchor_ns + (schedule.duration_ns if only is None else chosen_ns)
        self._begin_next()
        self.reactor.at(self._end_ns, self._maybe_over)
        self.reactor.at(self._end_ns + director.overrun_ns, self._cut_all)

    def _begin_next(self) -> None:
        """Put the next start on the clock; only one at a time, the heap stays small."""
        if self._next < len(self._scripts):
            script = self._scripts[self._next]
            self._next += 1
            due = self._anchor_ns + script.start_ns
            self.reactor.at(due, lambda: self._begin(script, due), script.flow_id)

    def _begin(self, script: FlowScript, due_ns: int) -> None:
        self._begin_next()
        attempt = Attempt(
            flow_id=script.flow_id,
            protocol=script.protocol,
            node=script.source_node,
            source_address=script.source[0],
            source_port=script.source[1],
            target_address=script.target[0],
            target_port=script.target[1],
            outcome=script.outcome,
            exchanges=script.exchanges,
            due_ns=due_ns,
        )
        self.notes.attempts.append(attempt)
        if script.source_node not in self.namespaces or self._over:
            attempt.started_ns = attempt.ended_ns = time.monotonic_ns()
            self.finished(script.flow_id)
            return
        kind = TcpConversation if script.protocol == TCP else UdpExchange
        conversation = kind(self, script, attempt)
        self._open[script.flow_id] = conversation
        self._director.servers.recogniser.started(script)
        conversation.start()

    def finished(self, flow_id: str) -> None:
        """A flow's sockets are closed."""
        self._open.pop(flow_id, None)
        self._idle.discard(flow_id)
        self._left -= 1
        self._maybe_over()

    def idle(self, flow_id: str) -> None:
        """A flow only stays open."""
        self._idle.add(flow_id)
        self._maybe_over()

    def silent(self, script: FlowScript, *, satisfied: bool) -> None:
        """A flow says nothing more, because it heard all it was to hear or because it gave up."""
        self._director.servers.recogniser.ended(script, satisfied=satisfied)

    def _maybe_over(self) -> None:
        done = self._left == len(self._idle)
        if done and not self._over and time.monotonic_ns() >= self._end_ns:
            self._close()

    def _cut_all(self) -> None:
        if not self._over:
            self._close()

    def _close(self) -> None:
        self._over = True
        for conversation in list(self._open.values()):
            conversation.cut("timeout")
        self._director.servers.end()
        self._director.over(self._result())

    def _result(self) -> dict[str, Any]:
        offset, notes = self._clock_offset_ns, self.notes
        for attempt in notes.attempts:
            attempt.due_ns += offset
            attempt.started_ns += offset
            attempt.ended_ns += offset
        names = _ATTEMPT_COLUMNS
        return {
            "window": self._window,
            "started_ns": self._anchor_ns + offset,
            "ended_ns": time.time_ns(),
            "attempts": [tuple(getattr(a, name) for name in names) for a in notes.attempts],
            "transfers": notes.transfers,
            "accepted": list(notes.accepted.values()),
            "lateness": self.reactor.lateness,
            "server_octets": notes.server_octets,
            "offered": notes.offered,
            "sent": notes.sent,
        }


def _forgo_time_wait() -> None:
    """No TIME_WAIT in this namespace; where /proc is read-only, tcp_tw_reuse has to do."""
    try:
        _TIME_WAIT.write_text("0")
    except OSError:
        return
