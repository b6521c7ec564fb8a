"""The packet player: one process that sends for every node, both sides of every flow, window by window.

Like the session player it is forked once and told what to do. It knows next hops only as it is told: `ways` asks for
them anew before every window, because a change may have moved them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from replay.child import Channel, Child, ChildFailed, ChildOwner, ask_real_time
from replay.columns import Int64, UInt8
from replay.packet_mode.plan import Hop, PacketPlan, Program, Way, program
from replay.packet_mode.sender import SENT, Sender, Sent, Sockets, Timing

PacketPlayerFailed = ChildFailed
Ways = Callable[[Sequence[Hop]], Mapping[Hop, Way | str]]
"""What answers every hop with the way there, or with the reason why there is none."""

_REAL_TIME_PRIORITY = 20
_LEAD_NS = 20_000_000


@dataclass(frozen=True, slots=True)
class PacketResult:
    """What one window's packet mode did; every moment is CLOCK_REALTIME, as the taps' stamps are.

    `left_ns` is when each frame of the program was handed to the kernel (0: never), `fate` an index into
    `replay.packet_mode.sender.FATES`. Where frames were not stamped as they left, `left_ns` is the plan's and only
    the taps know better.
    """

    window: int
    program: Program
    started_ns: int
    ended_ns: int
    left_ns: Int64
    fate: UInt8
    cpu_ns: int
    realtime: bool
    stamped: bool = True

    @property
    def lateness_ns(self) -> Int64:
        """How long after its moment each frame that left was handed over."""
        mine = self.fate == SENT
        lateness: Int64 = self.left_ns[mine] - self.started_ns - self.program.due_ns[mine]
        return lateness

    @property
    def end_drift_ns(self) -> int:
        """How much later than planned the last frame left, 0 when none did."""
        lateness = self.lateness_ns
        return int(lateness[-1]) if len(lateness) else 0


class PacketPlayer(ChildOwner):
    """A packet player for a whole run; enter it, `play` windows, leave it.

    `ask` asks the scheduler for a priority and tells whether it is real time. Raises PacketPlayerFailed when the
    process cannot start or a node gives it no packet socket.
    """

    def __init__(
        self,
        plan: PacketPlan,
        namespaces: Mapping[str, int],
        ways: Ways,
        timing: Timing | None = None,
        ask: Callable[[int], bool] = ask_real_time,
    ) -> None:
        self.plan = plan
        self._ways = ways
        self._realtime = False
        self._program: Program | None = None
        self._known: Mapping[Hop, Way | str] | None = None
        self._child = Child("packet player", _Sending(dict(namespaces), timing or Timing(), ask).run)

    def start(self) -> None:
        """Fork the process; returns when it is ready."""
        self._realtime = bool(self._child.start())

    def arm(self) -> Program:
        """Ask for the ways and hand the program over, where they have changed; `play` does it when nobody did."""
        known = self._ways(self.plan.hops())
        if self._program is None or known != self._known:
            self._program, self._known = program(self.plan, known), known
            self._child.send(("load", self._program))
            self._child.receive("loaded", 60.0)
        return self._program

    def play(self, window: int, *, armed: bool = False) -> PacketPlay:
        """Begin a window now; returns at once (`armed`: without asking for the ways again)."""
        loaded = self._program if armed else self.arm()
        if loaded is None:
            raise ValueError("not armed")
        self._child.send(("play", window))
        return PacketPlay(self._child, window, loaded, self._realtime)


class PacketPlay:
    """A window that is being played."""

    def __init__(self, child: Child, window: int, loaded: Program, realtime: bool) -> None:
        self._child, self._window, self._program, self._realtime = child, window, loaded, realtime

    def wait(self, timeout_s: float | None = None) -> PacketResult:
        """The window's result once the last packet has had time to arrive; raises TimeoutError, PacketPlayerFailed."""
        sent, offset_ns = cast("tuple[Sent, int]", self._child.receive("played", timeout_s))
        return PacketResult(
            window=self._window,
            program=self._program,
            started_ns=sent.anchor_ns + offset_ns,
            ended_ns=sent.ended_ns + offset_ns,
            left_ns=np.where(sent.fate == SENT, sent.left_ns + offset_ns, 0),
            fate=sent.fate,
            cpu_ns=sent.cpu_ns,
            realtime=self._realtime,
        )


class _Sending:
    """Lives in the child."""

    def __init__(self, namespaces: Mapping[str, int], timing: Timing, ask: Callable[[int], bool]) -> None:
        self._namespaces, self._timing, self._ask = namespaces, timing, ask

    def run(self, channel: Channel) -> None:
        """Everything the child does until its parent is gone."""
        channel.send(("ready", self._ask(_REAL_TIME_PRIORITY)))
        sockets: Sockets | None = None
        sender: Sender | None = None
        while True:
            command, content = cast("tuple[str, Program | int]", channel.receive())
            if command == "load" and isinstance(content, Program):
                if sockets is not None:
                    sockets.close()
                sockets = Sockets(self._namespaces, content.ports, self._timing.bypass_queue)
                sender = Sender(content, sockets.descriptors())
                channel.send(("loaded", None))
            elif command == "play" and sender is not None:
                offset_ns = time.time_ns() - time.monotonic_ns()
                sent = sender.send(time.monotonic_ns() + _LEAD_NS, self._timing)
                time.sleep(self._timing.drain_ns / 1e9)
                channel.send(("played", (sent, offset_ns)))
            else:
                raise ChildFailed(f"cannot {command} now")
