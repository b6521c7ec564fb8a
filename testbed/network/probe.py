"""Numbered datagrams between two nodes, timed by the kernel at both ends.

A datagram's departure is the kernel's stamp when the sender's stack hands it to the interface (SO_TIMESTAMPING,
scheduler stamp: before every queue and impairment), its arrival the stamp of the receiver's interface.  Numbers are
those of linux/net_tstamp.h and errqueue.h.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from testbed.network.namespace import Namespace

PORT = 9_100
SO_TIMESTAMPNS, SO_TIMESTAMPING, SO_RCVBUFFORCE = 35, 37, 33
TX_SCHED, SOFTWARE, OPT_ID, OPT_TSONLY = 1 << 8, 1 << 4, 1 << 7, 1 << 11
SEQUENCE = struct.Struct("!I")
LONGEST_WAIT_S = 3.0


@dataclass(slots=True)
class Probe:
    """What became of numbered datagrams."""

    sent: int
    departed_ns: dict[int, int] = field(default_factory=dict)
    arrivals: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Number, stamp in ns, payload: in the order of arrival."""

    @property
    def numbers(self) -> list[int]:
        """What arrived, in that order."""
        return [number for number, _, _ in self.arrivals]

    @property
    def lost(self) -> set[int]:
        """What never arrived."""
        return set(range(self.sent)) - set(self.numbers)

    @property
    def delays_ns(self) -> list[int]:
        """One-way delays, in the order of arrival."""
        return [stamp_ns - self.departed_ns[n] for n, stamp_ns, _ in self.arrivals if n in self.departed_ns]


def probe(
    sender: Namespace,
    receiver: Namespace,
    address: str,
    count: int,
    gap_s: float = 0.0,
    octets: int = 64,
    linger_s: float = 0.3,
    port: int = PORT,
) -> Probe:
    """Send `count` numbered datagrams; listen until `linger_s` after the last that arrives."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ear = receiver.inside(lambda: _ear(family, address, port))
    mouth = sender.inside(lambda: _mouth(family, address, port))
    done = Probe(count)
    with ear, mouth:
        listening = threading.Thread(target=_listen, args=(ear, done, linger_s))
        listening.start()
        due = time.monotonic()
        for number in range(count):
            mouth.send(SEQUENCE.pack(number) + bytes(octets - SEQUENCE.size))
            due += gap_s
            if gap_s:
                time.sleep(max(0.0, due - time.monotonic()))
            if number % 32 == 31:
                _departures(mouth, done)
        _departures(mouth, done)
        listening.join()
    return done


def _ear(family: int, address: str, port: int) -> socket.socket:
    line = socket.socket(family, socket.SOCK_DGRAM)
    line.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    try:
        line.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64_000_000)
    except PermissionError:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64_000_000)
    line.bind((address, port))
    return line


def _mouth(family: int, address: str, port: int) -> socket.socket:
    line = socket.socket(family, socket.SOCK_DGRAM)
    line.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SCHED | SOFTWARE | OPT_ID | OPT_TSONLY)
    line.connect((address, port))
    return line


def _listen(ear: socket.socket, done: Probe, linger_s: float) -> None:
    ear.settimeout(LONGEST_WAIT_S)
    while True:
        try:
            payload, extras, _, _ = ear.recvmsg(65_536, 256)
        except TimeoutError:
            return
        ear.settimeout(linger_s)
        for level, kind, value in extras:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, ns = struct.unpack("qq", value)
                done.arrivals.append((SEQUENCE.unpack_from(payload)[0], seconds * 1_000_000_000 + ns, payload))


def _departures(mouth: socket.socket, done: Probe) -> None:
    mouth.setblocking(False)
    while True:
        try:
            _, extras, _, _ = mouth.recvmsg(0, 512, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            break
        stamp, number = None, None
        for level, _, value in extras:
            if level == socket.SOL_SOCKET:
                seconds, ns = struct.unpack_from("qq", value)
                stamp = seconds * 1_000_000_000 + ns
            else:
                number = struct.unpack_from("IBBBBII", value)[6]
        if stamp is not None and number is not None:
            done.departed_ns[number] = stamp
    mouth.setblocking(True)
