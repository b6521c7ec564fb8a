"""One player process a core: how flows are split among them, and how what arrives finds its flow's process.

Both ends of a flow belong in one process: there its arrival is recognised, and there is one clock and no talk. Each
shard listens on every port (SO_REUSEPORT), and a program in the kernel (classic BPF) gives an arrival to the shard
that its source port says, which is how the flows were split. A proxy or a source NAT changes that port: a shard that
cannot explain an arrival passes it on, socket and all. Flows that are told by order of start or by an HTTP header stay
together in one shard, HOME, which also has the last word.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from replay.datagrams import Datagram
from replay.responder import Endpoint
from replay.schedule import FORWARD, FlowScript

HOME = 0
EVENTS_A_SHARD = 12_000.0
"""Scheduled events a second that one shard is given before there is another: a third of what it can do."""

_SO_REUSEPORT = 15
_SO_ATTACH_REUSEPORT_CBPF = 51
_NETWORK_HEADER = 0xFFF0_0000
_LOAD_OCTET, _LOAD_HALF, _SHIFT_RIGHT, _MODULO, _RETURN_A = 0x30, 0x28, 0x74, 0x94, 0x16
_JUMP_IF_EQUAL, _JUMP_ALWAYS = 0x15, 0x05
_PORT_IN_IPV4, _PORT_IN_IPV6 = 20, 40
_MESSAGE_OCTETS = 200_000


@dataclass(frozen=True, slots=True)
class Stranger:
    """A connection that changes shards: its socket travels beside this."""

    node: str
    peer: Endpoint
    said: bytes
    visited: int


@dataclass(frozen=True, slots=True)
class StrayDatagram:
    """A datagram that changes shards, and which socket it arrived at."""

    node: str
    family: int
    port: int
    datagram: Datagram


def shards_for(events_per_s: float, processors: int) -> int:
    """How many processes a load is worth; small ones stay in one."""
    return max(1, min(processors, int(events_per_s / EVENTS_A_SHARD) + 1))


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def shard_of(script: FlowScript, shards: int, direct: frozenset[tuple[int, str, int]]) -> int:
    """The shard that plays both ends of a flow; `direct` are the (protocol, address, port) that end points answer at.

    What is not direct passes a device that may change its ports, and what the server begins is told by order: both
    stay at HOME.
    """
    if shards == 1:
        return HOME
    told_by_order = not script.messages or script.messages[0].direction != FORWARD
    if told_by_order and script.outcome == "accepted":
        return HOME
    if (script.protocol, *script.target) not in direct and script.outcome == "accepted":
        return HOME
    return script.source[1] % shards


def steer(sock: socket.socket, shards: int) -> None:
    """Let the kernel choose among the sockets that share this one's port by the arrival's source port.

    The order in which they were bound must be the order of the shards. Raises OSError.
    """
    program = b"".join(
        struct.pack("HBBI", code, true, false, value)
        for code, true, false, value in (
            (_LOAD_OCTET, 0, 0, _NETWORK_HEADER),
            (_SHIFT_RIGHT, 0, 0, 4),
            (_JUMP_IF_EQUAL, 2, 0, 6),
            (_LOAD_HALF, 0, 0, _NETWORK_HEADER + _PORT_IN_IPV4),
            (_JUMP_ALWAYS, 0, 0, 1),
            (_LOAD_HALF, 0, 0, _NETWORK_HEADER + _PORT_IN_IPV6),
            (_MODULO, 0, 0, shards),
            (_RETURN_A, 0, 0, 0),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    filtered = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, filtered)


def share_port(sock: socket.socket) -> None:
    """Let every shard bind this socket's port."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT, 1)


class Lines:
    """The sockets between all shards, made before they are forked: a pair for every two of them."""

    def __init__(self, shards: int) -> None:
        self._ends: dict[tuple[int, int], socket.socket] = {}
        for one in range(shards):
            for other in range(one + 1, shards):
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
                self._ends[one, other], self._ends[other, one] = pair
        self._shards = shards

    def of(self, shard: int) -> Mates:
        """The ends that one shard holds."""
        return Mates(shard, {other: end for (own, other), end in self._ends.items() if own == shard})

    def close(self) -> None:
        """Close them here, once every shard has its own."""
        for end in self._ends.values():
            end.close()


class Mates:
    """The other shards, as one of them sees them."""

    def __init__(self, own: int = HOME, lines: Mapping[int, socket.socket] | None = None) -> None:
        self.own = own
        self.lines = dict(lines or {})

    @property
    def filenos(self) -> list[int]:
        """The descriptors that the shard's process must keep."""
        return [line.fileno() for line in self.lines.values()]

    def next_for(self, visited: int, *, http: bool) -> int | None:
        """Who should look at what this shard cannot explain; None when this shard has the last word."""
        if http:
            return None if self.own == HOME else HOME
        left = [mate for mate in sorted(self.lines) if mate != HOME and not visited >> mate & 1]
        if left:
            return left[0]
        return None if self.own == HOME else HOME

    def seen_by(self, visited: int) -> int:
        """The shards that have looked, this one too."""
        return visited | 1 << self.own

    def give(self, mate: int, what: Stranger | StrayDatagram, sockets: Sequence[socket.socket] = ()) -> bool:
        """Hand something over; False when the other's queue is full."""
        try:
            socket.send_fds(self.lines[mate], [pickle.dumps(what)], [sock.fileno() for sock in sockets])
        except (BlockingIOError, OSError):
            return False
        return True

    def taken(self, mate: int) -> Iterable[tuple[Stranger | StrayDatagram, list[int]]]:
        """What a mate has handed over, with the descriptors that came with it."""
        while True:
            try:
                raw, fds, _, _ = socket.recv_fds(self.lines[mate], _MESSAGE_OCTETS, 1)
            except BlockingIOError:
                return
            if not raw:
                return
            yield pickle.loads(raw), fds


def direct_targets(
    scripts: Iterable[FlowScript],
    listening: Mapping[tuple[int, int], Sequence[str]],
    owns: Callable[[str, str], bool],
) -> frozenset[tuple[int, str, int]]:
    """The captured targets at which some node that listens on that very port owns the address.

    `listening` has the nodes by (protocol, port); `owns` asks a node's kernel.
    """
    wanted = {(script.protocol, *script.target) for script in scripts}
    return frozenset(
        (protocol, address, port)
        for protocol, address, port in wanted
        if any(owns(node, address) for node in listening.get((protocol, port), ()))
    )
