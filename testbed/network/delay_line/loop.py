"""The delay line's own process: reads stamped frames, holds each until it is due, and lets it go.

It knows frames, fates and time; who laid the sinks and filters that bring the frames here is not its business.
One loop on absolute time serves all directions.  It wakes a little early, by as much as it has lately been late, and
spins the rest.  While every direction's delay is long it reads in gulps: no frame can be due before the next one.
"""

from __future__ import annotations

import ctypes
import errno
import heapq
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

from replay.child import Channel, enter_namespace, libc
from testbed.network.delay_line.fate import UNTURNED, Fate
from testbed.network.delay_line.ring import Frame, Ring, turned
from testbed.network.delay_line.words import (
    BUCKET_NS,
    Attach,
    Change,
    Counted,
    Detach,
    Drain,
    Leave,
    Report,
    Restart,
    Told,
)
from testbed.network.promptness import ask_promptness

PRIORITY = 20
READ_AT_ONCE, LET_GO_AT_ONCE = 128, 128
GULP_NS, LONG_DELAY_NS = 1_000_000, 3_000_000
MOST_LEAD_NS = 120_000
RETRY_NS = 100_000
PATIENCE_NS = 2_000_000_000
CLOSERS = 32
READ_TOGETHER_NS, CLOCK_READINGS = 2_000, 5
_POLLIN = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Pollfd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Way:
    """One direction as the loop has it."""

    __slots__ = ("excess", "fate", "frames", "line", "on_the_way", "refused", "send", "worst_ns")

    def __init__(self, fate: Fate, line: socket.socket) -> None:
        self.fate, self.line, self.send = fate, line, line.send
        self.on_the_way = 0
        self.clear()

    def clear(self) -> None:
        """Begin to count anew."""
        self.frames, self.refused, self.worst_ns = 0, 0, 0
        self.excess: dict[int, int] = {}

    def counted(self, index: int) -> Counted:
        """The counters, which begin anew."""
        losses = self.fate.counted()
        told = Counted(index, self.frames, losses.by_chance, losses.by_queue, self.refused, self.excess, self.worst_ns)
        self.clear()
        return told


class Loop:
    """Lives in the child: `run` until the parent is gone.

    `netns_fd` is the line's namespace; transmitters arrive on `sockets`, one before each Attach.
    """

    def __init__(self, netns_fd: int, sockets: socket.socket) -> None:
        self._netns_fd, self._sockets = netns_fd, sockets
        self._ways: dict[int, _Way] = {}
        self._held: list[tuple[int, int, _Way, bytes]] = []
        self._number = 0
        self._lead_ns = 20_000
        self._least_delay_ns = 0
        self._draining: int | None = None

    def run(self, channel: Channel) -> None:
        """Everything the child does."""
        _let_go_of_all_but({channel.fileno(), self._netns_fd, self._sockets.fileno()})
        enter_namespace(self._netns_fd)
        self._short, self._long = Ring(small=True), Ring(small=False)
        watched = (channel, self._short.line, self._long.line)
        self._fds = (_Pollfd * 3)(*(_Pollfd(each.fileno(), _POLLIN, 0) for each in watched))
        channel.send(("ready", ask_promptness(PRIORITY)))
        while True:
            taken = self._take()
            self._let_go()
            self._answer_drained(channel)
            if self._wait(taken):
                self._obey(channel)

    def _take(self) -> int:
        offset_ns = _clock_offset_ns()
        frames = self._short.take(READ_AT_ONCE)
        if longer := self._long.take(READ_AT_ONCE):
            frames = sorted(frames + longer, key=itemgetter(0)) if frames else longer
        if frames:
            self._hold(frames, offset_ns)
        return len(frames)

    def _hold(self, frames: list[Frame], offset_ns: int) -> None:
        ways, held, push, number = self._ways, self._held, heapq.heappush, self._number
        for stamp_ns, index, octets, frame in frames:
            way = ways.get(index)
            if way is None:
                continue  # what the line's own namespace says on an interface it is about to lose
            way.frames += 1
            for due_ns, bit in way.fate.meet(stamp_ns + offset_ns, octets):
                number += 1
                way.on_the_way += 1
                push(held, (due_ns, number, way, frame if bit == UNTURNED else turned(frame, bit)))
        self._number = number

    def _let_go(self) -> None:
        held, clock, pop = self._held, time.monotonic_ns, heapq.heappop
        now = clock()
        for _ in range(LET_GO_AT_ONCE):
            if not held or held[0][0] > now:
                return
            due_ns, number, way, frame = pop(held)
            try:
                way.send(frame)
            except OSError as refusal:
                if refusal.errno == errno.EAGAIN:  # the next hop's queue is full of ours
                    heapq.heappush(held, (now + RETRY_NS, number, way, frame))
                    continue
                way.refused += 1  # the interface or its peer is down
            way.on_the_way -= 1
            late_ns = now - due_ns
            bucket = late_ns // BUCKET_NS
            way.excess[bucket] = way.excess.get(bucket, 0) + 1
            way.worst_ns = max(way.worst_ns, late_ns)
            now = clock()

    def _wait(self, taken: int) -> bool:
        """Sleep until something can be done; whether the parent has said something."""
        gulping = taken and self._least_delay_ns >= LONG_DELAY_NS
        now = time.monotonic_ns()
        until = self._held[0][0] - self._lead_ns if self._held else now + 1_000_000_000
        if taken:
            until = min(until, now + GULP_NS) if gulping else now
        left_ns = max(0, until - now)
        self._fds[0].revents = 0
        timeout = _Timespec(left_ns // 1_000_000_000, left_ns % 1_000_000_000)
        ready = libc.ppoll(self._fds, 1 if gulping else len(self._fds), ctypes.byref(timeout), None)
        if ready == 0 and left_ns:
            late_ns = time.monotonic_ns() - until
            if late_ns < MOST_LEAD_NS:  # beyond it another process had the processor: to spin would not help
                # rise at once, fall slowly: to spin is cheaper than to be late
                self._lead_ns += (late_ns - self._lead_ns) // (2 if late_ns > self._lead_ns else 16)
        return bool(self._fds[0].revents)

    def _obey(self, channel: Channel) -> None:
        said = channel.receive(0)
        if isinstance(said, Drain):
            self._draining = said.index
            self._hasten(self._ways[said.index])
            return
        if isinstance(said, Leave):
            # the kernel waits for its readers at each close: side by side they wait together
            with ThreadPoolExecutor(CLOSERS) as closers:
                list(closers.map(socket.socket.close, [way.line for way in self._ways.values()]))
            os._exit(0)
        channel.send(("done", self._done(said)))

    def _done(self, said: object) -> object:
        answer: object = None
        if isinstance(said, Attach):
            _, fds, _, _ = socket.recv_fds(self._sockets, 1, 1)
            line = socket.socket(fileno=fds[0])
            line.setblocking(False)
            self._ways[said.index] = _Way(Fate(said.node, said.interface, said.impairment, said.seed), line)
            answer = self._ways[said.index].fate.impairment
        elif isinstance(said, Change):
            fate = self._ways[said.index].fate
            fate.change(said.impairment)
            answer = fate.impairment
        elif isinstance(said, Detach):
            self._ways.pop(said.index).line.close()
        elif isinstance(said, Restart):
            for way in self._ways.values():
                way.fate.restart()
        elif isinstance(said, Report):
            answer = Told(
                tuple(way.counted(index) for index, way in self._ways.items()),
                self._short.drops() + self._long.drops(),
            )
        self._least_delay_ns = min((way.fate.least_delay_ns for way in self._ways.values()), default=0)
        return answer

    def _hasten(self, way: _Way) -> None:
        """Nobody waits long for a queue of a slow link to end: the rest of it leaves early, in order."""
        limit_ns = time.monotonic_ns() + PATIENCE_NS
        way.fate.hasten(limit_ns)
        self._held = [
            (min(due_ns, limit_ns) if of is way else due_ns, number, of, frame)
            for due_ns, number, of, frame in self._held
        ]
        heapq.heapify(self._held)

    def _answer_drained(self, channel: Channel) -> None:
        if self._draining is None:
            return
        way = self._ways[self._draining]
        if way.on_the_way == 0:
            self._draining = None
            channel.send(("done", None))


def _clock_offset_ns() -> int:
    """What is added to a stamp to have it on the monotonic clock, too much rather than too little.

    Both clocks are read more than once: whoever is interrupted between two readings sees a wrong difference.
    """
    closest_ns, offset_ns = READ_TOGETHER_NS, 0
    for _ in range(CLOCK_READINGS):
        before_ns, stamp_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if not offset_ns or after_ns - before_ns < closest_ns:
            closest_ns, offset_ns = after_ns - before_ns, after_ns - stamp_ns
        if closest_ns < READ_TOGETHER_NS:
            break
    return offset_ns


def _let_go_of_all_but(kept: set[int]) -> None:
    """Close what a fork inherits: a socket of the parent's would otherwise never be seen to close."""
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in kept:
            with suppress(OSError):  # the listing's own
                os.close(descriptor)
