"""Impairments in user space, for kernels without netem: every direction that needs it passes one child process.

It lays the ways to the child, hands it transmitters and settings, and believes only what the child and the kernel
say back.  Netem's meaning of each setting is kept; where the rate is set too, the queue comes before the delay.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from replay.child import Child, ChildFailed
from testbed.errors import NotOurs, NotReady, Unsupported
from testbed.network.delay_line import words as said
from testbed.network.delay_line.fate import takes_super_frames
from testbed.network.delay_line.loop import Loop
from testbed.network.delay_line.ring import opened_transmitter
from testbed.network.delay_line.sink import LineNamespace, Sink
from testbed.network.link import Port
from testbed.network.promptness import Promptness
from topologies.model import Impairment

ANSWER_SECONDS = 10.0
DRAIN_SECONDS = 60.0

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LineReport:
    """What an engine did to one direction since the last report.

    `lost` left by chance and `queue_dropped` by a full queue, as asked; `refused` met an interface that was down.
    `overflowed` is instrument error: frames that the line as a whole did not read in time.  The excess is how long
    frames were held beyond their due time, in ns: instrument error too.
    """

    engine: str
    frames: int = 0
    lost: int = 0
    queue_dropped: int = 0
    refused: int = 0
    overflowed: int = 0
    excess_p50_ns: int = 0
    excess_p99_ns: int = 0
    excess_max_ns: int = 0
    promptness: Promptness = Promptness.ORDINARY
    seeded: bool = True

    @property
    def real_time(self) -> bool:
        """Whether the line ran at real-time priority."""
        return self.promptness is Promptness.REAL_TIME


class DelayLine:
    """One child for all directions: `apply` settings in place, `remove` a direction without losing a frame.

    The child starts with the first direction, and the kernel ends it with the thread that brought that one.  Leaving
    the block takes every filter and sink away.
    """

    ENGINE = "delay line"

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._sinks: dict[Key, Sink] = {}
        self._child: Child | None = None
        self._promptness = Promptness.ORDINARY

    def __contains__(self, key: Key) -> bool:
        return key in self._sinks

    @property
    def pid(self) -> int:
        """The child's process id, 0 while it is not wanted."""
        return self._child.pid if self._child is not None else 0

    def apply(self, port: Port, impairment: Impairment) -> None:
        """Let what leaves `port` pass the line with these settings, which the line says back; raises Unsupported."""
        key = (port.namespace.name, port.name)
        with self._lock:
            sink = self._sinks.get(key)
            if sink is None:
                self._bring(key, port, impairment)
                return
            sink.take_super_frames(takes_super_frames(impairment))
            self._compare(key, impairment, self._ask(said.Change(sink.far_index, impairment)))

    def remove(self, port: Port) -> None:
        """Let what is on the way arrive in its time and order, then let frames pass straight and leave no trace."""
        key = (port.namespace.name, port.name)
        with self._lock:
            sink = self._sinks[key]
            self._ask(said.Change(sink.far_index, Impairment()))
            self._ask(said.Drain(sink.far_index), DRAIN_SECONDS)
            sink.shut()
            # frames that were redirected before the filter went
            self._ask(said.Drain(sink.far_index), DRAIN_SECONDS)
            del self._sinks[key]
            sink.remove()
            self._ask(said.Detach(sink.far_index))

    def reports(self) -> Mapping[Key, LineReport]:
        """Every direction's counters, which begin anew."""
        with self._lock:
            if not self._sinks:
                return {}
            told = self._ask(said.Report())
            assert isinstance(told, said.Told)
            counted = {counters.index: counters for counters in told.counted}
            return {key: self._report(counted[sink.far_index], told.overflowed) for key, sink in self._sinks.items()}

    def restart(self) -> None:
        """Begin every sequence of chance anew, so that windows meet the same fates."""
        with self._lock:
            if self._sinks:
                self._ask(said.Restart())

    def close(self) -> None:
        """Take every way to the line out at once, with what is on it, and end the child."""
        with self._lock:
            for sink in self._sinks.values():
                with suppress(OSError, NotOurs):  # an interface that is gone took its way along
                    sink.shut()
            if self._sinks:
                self._line.remove_pairs()
            self._end()

    def abandon(self) -> None:
        """End the child and leave the rest to the end of the namespaces."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._sinks.clear()
        if self._child is not None:
            with suppress(ChildFailed, TimeoutError):  # it ends without a word
                self._child.send(said.Leave())
                self._child.receive("done", ANSWER_SECONDS)
            self._child.stop()
            self._child = None
            self._line.close()
            self._sockets.close()

    def _bring(self, key: Key, port: Port, impairment: Impairment) -> None:
        self._start()
        sink = Sink.laid(port, self._line)
        try:
            sink.take_super_frames(takes_super_frames(impairment))
            transmitter = port.namespace.inside(lambda: opened_transmitter(sink.port_index))
            with transmitter:
                socket.send_fds(self._sockets, [b"t"], [transmitter.fileno()])
            runs = self._ask(said.Attach(sink.far_index, *key, impairment, self._seed))
            self._compare(key, impairment, runs)
            sink.open()
        except BaseException:
            sink.remove()
            raise
        self._sinks[key] = sink

    def _start(self) -> None:
        if self._child is not None:
            return
        self._line = LineNamespace()
        self._sockets, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._child = Child(self.ENGINE, Loop(self._line.net_fd, theirs).run)
        try:
            granted = self._child.start()
            assert isinstance(granted, Promptness)
            self._promptness = granted
        except ChildFailed as failure:
            self._end()
            raise Unsupported(
                f"this kernel lets no delay line start: {failure}", "use a kernel with packet sockets (PACKET)"
            ) from None
        finally:
            theirs.close()

    def _ask(self, request: object, seconds: float = ANSWER_SECONDS) -> object:
        child = self._child
        assert child is not None
        try:
            child.send(request)
            return child.receive("done", seconds)
        except TimeoutError:
            raise NotReady("the delay line to answer", f"no answer to {request}") from None
        except ChildFailed as failure:  # every frame of its directions is lost since it ended
            raise NotReady("the delay line to answer", str(failure)) from None

    def _compare(self, key: Key, wanted: Impairment, runs: object) -> None:
        if runs != wanted:
            raise Unsupported(f"{key[0]}:{key[1]} took {runs}, not {wanted}", "use another impairment")

    def _report(self, counted: said.Counted, overflowed: int) -> LineReport:
        p50_ns, p99_ns = (_percentile_ns(counted.excess, share) for share in (0.5, 0.99))
        return LineReport(
            self.ENGINE,
            counted.frames,
            counted.lost,
            counted.queue_dropped,
            counted.refused,
            overflowed,
            p50_ns,
            p99_ns,
            counted.worst_ns,
            self._promptness,
        )


def _percentile_ns(excess: Mapping[int, int], share: float) -> int:
    """The upper edge of the bucket that holds that share of the frames; 0 where there were none."""
    wanted = share * sum(excess.values())
    seen = 0
    for bucket in sorted(excess):
        seen += excess[bucket]
        if seen >= wanted:
            return (bucket + 1) * said.BUCKET_NS
    return 0
