"""Inside a player process: the reactor, the servers, and the window in progress.

The only place that starts flows. It is told when a window begins, and by whom it is shared: which flows are this
process's own is settled once, from the schedule and from what the nodes' kernels say of their addresses.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from replay.child import Channel, ChildFailed
from replay.conversation import Conversation, Patience, Stage, TcpConversation
from replay.echo import EchoConversation
from replay.effort import EffortMeter
from replay.exchange import UdpExchange
from replay.http_conversation import HttpConversation
from replay.observed import Attempt, Notes
from replay.played import ShardResult
from replay.promptness import Promptness, ask_promptness
from replay.reactor import Namespaces, Reactor
from replay.responder import Endpoint
from replay.schedule import ECHO, TCP, FlowScript, Schedule
from replay.servers import Listener, Servers
from replay.shards import Mates, direct_targets, shard_of
from replay.tls_conversation import tls_conversation
from replay.tls_line import TlsClients, Trust

LEAD_NS = 20_000_000
"""How long after it is told a window begins."""

_BREATH_NS = 1_000_000
_REAL_TIME_PRIORITY = 20
_TIME_WAIT = Path("/proc/sys/net/ipv4/tcp_max_tw_buckets")

MakeConversation = Callable[[Stage, FlowScript, Attempt], Conversation]


def kind_of(script: FlowScript, tls: TlsClients) -> MakeConversation:
    """What plays the client side of a flow; a new protocol is a kind of its own, and a line here."""
    if script.tls is not None:
        return tls_conversation(tls)
    if script.protocol in ECHO:
        return EchoConversation
    if script.protocol != TCP:
        return UdpExchange
    return HttpConversation if script.tagged else TcpConversation


@dataclass(frozen=True, slots=True)
class Order:
    """Begin this window at `anchor_ns` (monotonic), with all flows or `only` those of these ids."""

    window: int
    anchor_ns: int
    only: frozenset[str] | None
    patience: Patience | None


@dataclass(frozen=True, slots=True)
class Ready:
    """A process's first word: whether it has real-time priority, and which targets its nodes own themselves."""

    realtime: bool
    direct: frozenset[tuple[int, str, int]]


class Director:
    """Lives in the child; one a shard."""

    def __init__(
        self,
        schedule: Schedule,
        namespaces: Mapping[str, int],
        listeners: tuple[Listener, ...],
        patience: Patience,
        overrun_ns: int,
        mates: Mates | None = None,
        direct: frozenset[tuple[int, str, int]] | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.schedule = schedule
        self.namespaces = Namespaces(namespaces)
        self.patience = patience
        self.overrun_ns = overrun_ns
        self._listeners = listeners
        self._mates = mates or Mates()
        self._direct = direct
        self._trust = trust or Trust()
        self.shared = bool(self._mates.lines)

    def run(self, channel: Channel) -> None:
        """Everything the child does until its parent is gone."""
        realtime = ask_promptness(_REAL_TIME_PRIORITY) is Promptness.REAL_TIME
        self.reactor = Reactor()
        self.servers = Servers(self.reactor, self.namespaces, self._mates, self._trust.identities)
        for node in self.namespaces:
            self.namespaces.enter(node)
            _forgo_time_wait()
        self.servers.listen(self._listeners)
        self._share_out()
        self.tls = TlsClients(self._trust)
        self.tls.prepare(script.tls for script in (*self.scripts, *self.probes) if script.tls is not None)
        self._channel = channel
        self._playing: _Playing | None = None
        self.reactor.watch_level(channel.fileno(), self._on_command)
        channel.send(("ready", Ready(realtime, self._direct or frozenset())))
        gc.collect()
        gc.freeze()
        while True:
            self.reactor.turn()

    def _share_out(self) -> None:
        """Which scripts are this shard's; asked of the kernels once, by HOME, so that all shards agree."""
        shards = len(self._mates.lines) + 1
        everything = (*self.schedule.scripts, *self.schedule.probes)
        if shards > 1 and self._direct is None:
            listening: dict[tuple[int, int], list[str]] = {}
            for listener in self._listeners:
                listening.setdefault((listener.protocol, listener.port), []).append(listener.node)
            self._direct = direct_targets(everything, listening, self._owns)
        direct = self._direct or frozenset()
        own = self._mates.own
        self.scripts = [s for s in self.schedule.scripts if shard_of(s, shards, direct) == own]
        self.probes = [s for s in self.schedule.probes if shard_of(s, shards, direct) == own]

    def _owns(self, node: str, address: str) -> bool:
        """Whether an address is the node's own, AnyIP included: only such can be bound."""
        self.namespaces.enter(node)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                return str(probe.getsockname()[0]) == address
        except OSError:
            return False

    def _on_command(self, _events: int) -> None:
        order = self._channel.receive(0)
        if not isinstance(order, Order) or self._playing is not None:
            raise ChildFailed(f"cannot do {order} now")
        self._playing = _Playing(self, order)

    def over(self, result: ShardResult) -> None:
        """The window in progress is over."""
        self._playing = None
        self.reactor.waits = []
        self._channel.send(("played", result))
        gc.collect()  # automatic collection is off: it would make sends late


class _Playing:
    """One window: starts every script at its moment, ends when all have ended."""

    def __init__(self, director: Director, order: Order) -> None:
        self._director = director
        self._window = order.window
        self.reactor = director.reactor
        self.namespaces = director.namespaces
        self.patience = order.patience or director.patience
        self.notes = Notes()
        self._open: dict[str, Conversation] = {}
        self._idle: set[str] = set()
        self._last_on: dict[tuple[int, Endpoint, Endpoint], str] = {}
        self._over = False
        self._meter = EffortMeter(self.namespaces)
        scripts = director.scripts
        if order.only is not None:
            scripts = [s for s in (*scripts, *director.probes) if s.flow_id in order.only]
        self.reactor.lateness, self.reactor.waits = [], []
        director.servers.begin(self.notes)
        # processes that share a window share its beginning; one alone may begin a little later
        self._anchor_ns = order.anchor_ns if director.shared else max(order.anchor_ns, time.monotonic_ns() + _BREATH_NS)
        self._clock_offset_ns = director.servers.clock_offset_ns
        self._scripts = scripts
        self._left = len(scripts)
        self.notes.offered += len(scripts)
        self._next = 0
        chosen_ns = max((s.start_ns + s.busy_ns for s in scripts), default=0)
        self._end_ns = self._anchor_ns + (director.schedule.duration_ns if order.only is None else chosen_ns)
        self._await_next()
        self.reactor.at(self._end_ns, self._maybe_over)
        self.reactor.at(self._end_ns + director.overrun_ns, self._cut_all)

    def _await_next(self) -> None:
        """Put the next start on the clock; only one at a time, the heap stays small."""
        if self._next < len(self._scripts):
            script = self._scripts[self._next]
            self.reactor.at(self._anchor_ns + script.start_ns, self._begin, script.flow_id)

    def _begin(self) -> None:
        script = self._scripts[self._next]
        self._next += 1
        self._await_next()
        attempt = Attempt(script, self._anchor_ns + script.start_ns, script.source[1])
        self.notes.attempts.append(attempt)
        if script.source_node not in self.namespaces or self._over:
            attempt.started_ns = attempt.ended_ns = time.monotonic_ns()
            self.finished(script.flow_id)
            return
        self._make_room(script)
        conversation = kind_of(script, self._director.tls)(self, script, attempt)
        self._open[script.flow_id] = conversation
        self._director.servers.recogniser.started(script)
        conversation.start()

    def _make_room(self, script: FlowScript) -> None:
        """Reset the flow before on this five-tuple if it only stays open: the capture shows that it was given up."""
        five_tuple = (script.protocol, script.source, script.target)
        before = self._last_on.get(five_tuple, "")
        if before in self._idle:
            self._open[before].cut("")
        self._last_on[five_tuple] = script.flow_id

    def finished(self, flow_id: str) -> None:
        """A flow's sockets are closed."""
        self._open.pop(flow_id, None)
        self._idle.discard(flow_id)
        self._left -= 1
        if self._left == len(self._idle):
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

    def _result(self) -> ShardResult:
        offset, notes = self._clock_offset_ns, self.notes
        effort = self._meter.effort(notes.blocked, self.reactor.waits)
        return ShardResult(
            window=self._window,
            started_ns=self._anchor_ns + offset,
            ended_ns=time.time_ns(),
            attempts=[attempt.row(offset) for attempt in notes.attempts],
            transfers=notes.all_transfers(),
            accepted=notes.all_accepted(),
            lateness=self.reactor.lateness,
            server_octets=notes.server_octets,
            offered=notes.offered,
            sent=notes.sent,
            effort=effort,
        )


def _forgo_time_wait() -> None:
    """No TIME_WAIT in this namespace; where /proc is read-only, tcp_tw_reuse has to do."""
    try:
        _TIME_WAIT.write_text("0")
    except OSError:
        return
