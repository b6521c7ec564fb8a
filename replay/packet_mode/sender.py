"""Frames out of packet sockets, each at its own moment of the monotonic clock, and how late each left.

Knows no packet's meaning. Waits to absolute time with a short spin at the end, so nothing adds up over a window; what
is due together on one interface leaves in one system call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from replay.child import ChildFailed, enter_namespace, libc
from replay.columns import Int64, UInt8
from replay.packet_mode.plan import Program

SENT, TOO_LATE, BUFFER_FULL, REFUSED, FAILED = range(5)
FATES = ("sent", "too late to be sent", "the socket's buffer was full", "the first queue was full", "send failed")
"""What became of a frame at its sender, by number."""

MOST_AT_ONCE = 64
_LONG_NS, _LONG_SPINS = 5_000_000, 5
"""A processor that has slept so long takes longer to wake."""

_SOL_PACKET, _QDISC_BYPASS = 263, 20
_SEND_BUFFER = 4 << 20
_DONT_WAIT = 0x40
_VECTOR = np.dtype([("base", "u8"), ("octets", "u8")])
_MESSAGE = np.dtype(
    [
        ("name", "u8"),
        ("name_octets", "u8"),
        ("vector", "u8"),
        ("vectors", "u8"),
        ("control", "u8"),
        ("control_octets", "u8"),
        ("flags", "u8"),
        ("sent", "u8"),
    ]
)
"""struct iovec and struct mmsghdr of a 64-bit kernel, padding included (sendmmsg(2))."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How frames are timed: the spin before each moment, and beyond which lateness one is not sent at all.

    A window ends `drain_ns` after its last frame, so that queues on the way have emptied into the taps.
    `bypass_queue` goes past the interface's queueing discipline (PACKET_QDISC_BYPASS), and so past any rate, delay or
    loss that the link was given there: faster, and for links without impairment only.
    """

    spin_ns: int = 60_000
    too_late_ns: int = 1_000_000_000
    drain_ns: int = 250_000_000
    bypass_queue: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sender did: when each frame left (monotonic ns, 0: never) and its fate (an index into FATES)."""

    anchor_ns: int
    ended_ns: int
    left_ns: Int64
    fate: UInt8
    cpu_ns: int


class Sockets:
    """One packet socket an interface, each opened in its node's namespace; they receive nothing."""

    def __init__(self, namespaces: Mapping[str, int], ports: tuple[tuple[str, int], ...], bypass_queue: bool) -> None:
        self._sockets = [self._opened(namespaces, node, index, bypass_queue) for node, index in ports]

    def descriptors(self) -> list[int]:
        """By port number."""
        return [sock.fileno() for sock in self._sockets]

    def close(self) -> None:
        """Close them all."""
        for sock in self._sockets:
            sock.close()

    @staticmethod
    def _opened(namespaces: Mapping[str, int], node: str, index: int, bypass_queue: bool) -> socket.socket:
        try:
            enter_namespace(namespaces[node])
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind((socket.if_indextoname(index), 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if bypass_queue:
                sock.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
                if sock.getsockopt(_SOL_PACKET, _QDISC_BYPASS) != 1:
                    raise ChildFailed(f"{node}: this kernel does not let packets pass the queue")
        except OSError as error:
            raise ChildFailed(f"{node}: no packet socket on interface {index}: {error}") from error
        return sock


class Sender:
    """A program, laid out in memory as the kernel wants it; `send` it as often as you like."""

    def __init__(self, program: Program, descriptors: list[int]) -> None:
        if ctypes.sizeof(ctypes.c_void_p) != 8:
            raise ChildFailed("packet mode lays out structures of a 64-bit kernel, and this one is not")
        self._octets = np.frombuffer(program.octets, np.uint8)
        self._vectors = np.zeros(len(program), _VECTOR)
        self._vectors["base"] = (self._octets.ctypes.data if len(program) else 0) + program.at
        self._vectors["octets"] = program.length
        self._messages = np.zeros(len(program), _MESSAGE)
        self._messages["vector"] = self._vectors.ctypes.data + np.arange(len(program)) * _VECTOR.itemsize
        self._messages["vectors"] = 1
        self._due_ns: list[int] = program.due_ns.tolist()
        self._port: list[int] = program.port.tolist()
        self._run_end: list[int] = _run_ends(program.port).tolist()
        self._descriptors = descriptors

    def send(self, anchor_ns: int, timing: Timing) -> Sent:
        """Send every frame at `anchor_ns` plus its moment; returns when the last has left."""
        count = len(self._due_ns)
        left, fate = np.zeros(count, np.int64), np.full(count, SENT, np.uint8)
        due, clock, spin_ns = self._due_ns, time.monotonic_ns, timing.spin_ns
        began_cpu_ns = time.thread_time_ns()
        self._warm_up()
        row = 0
        while row < count:
            moment = anchor_ns + due[row]
            now = clock()
            if now < moment:
                spin = spin_ns if moment - now < _LONG_NS else _LONG_SPINS * spin_ns
                if moment - now > spin:
                    time.sleep((moment - now - spin) / 1e9)
                while now < moment:
                    now = clock()
            elif now - moment > timing.too_late_ns:
                fate[row] = TOO_LATE
                row += 1
                continue
            end, most = row + 1, min(self._run_end[row], row + MOST_AT_ONCE)
            while end < most and anchor_ns + due[end] <= now:
                end += 1
            taken, code = self._handed_over(row, end)
            if taken:
                left[row : row + taken] = now
                row += taken
            elif code != errno.EINTR:
                fate[row] = _fate(code)
                row += 1
        return Sent(anchor_ns, clock(), left, fate, time.thread_time_ns() - began_cpu_ns)

    def _warm_up(self) -> None:
        """Touch every octet and call the kernel for nothing, so that the first frame is not late for that."""
        self._octets.max(initial=0)
        for descriptor in self._descriptors:
            libc.sendmmsg(descriptor, ctypes.c_void_p(self._messages.ctypes.data), 0, _DONT_WAIT)

    def _handed_over(self, begin: int, end: int) -> tuple[int, int]:
        """How many frames of a run the kernel took, and the error that stopped it at the first."""
        address = self._messages.ctypes.data + begin * _MESSAGE.itemsize
        descriptor = self._descriptors[self._port[begin]]
        taken: int = libc.sendmmsg(descriptor, ctypes.c_void_p(address), end - begin, _DONT_WAIT)
        return (taken, 0) if taken > 0 else (0, ctypes.get_errno())


def _fate(code: int) -> int:
    if code in (errno.EAGAIN, errno.EWOULDBLOCK):
        return BUFFER_FULL
    if code == errno.ENOBUFS:
        return REFUSED
    if code in (errno.ENETDOWN, errno.ENXIO, errno.EMSGSIZE, errno.EIO):
        return FAILED
    raise ChildFailed(f"sending frames: {os.strerror(code)}")


def _run_ends(port: Int64) -> Int64:
    """For each frame, where the run of frames on its interface ends."""
    if not len(port):
        return np.zeros(0, np.int64)
    borders = np.append(np.flatnonzero(np.diff(port)) + 1, len(port))
    ends: Int64 = borders[np.searchsorted(borders, np.arange(len(port)), side="right")].astype(np.int64)
    return ends
