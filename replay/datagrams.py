"""The server side of UDP flows: one socket a family and port, any number of peers behind it.

The answer leaves from the address that was asked (IP_PKTINFO), because an edge node answers for
whole prefixes. A datagram's stream offset is its ordinal among that peer's datagrams.
"""

import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Protocol

from replay.datagram_order import DatagramOrder
from replay.desk import Desk
from replay.observed import SERVER, Accepted, Transfer
from replay.reactor import READ
from replay.schedule import FORWARD, REVERSE, UDP, FlowScript

_IP_PKTINFO = 8
_IPV6_FREEBIND = 78
_IP_FREEBIND = 15
_SO_REUSEPORT = 15
_READS_AT_ONCE = 64
_DATAGRAM_OCTETS = 65_536


def datagram_socket(family: int, port: int, *, shared: bool = False) -> socket.socket:
    """A bound UDP socket that reports which address each datagram was sent to; raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT if shared else socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            sock.bind(("0.0.0.0", port))
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            sock.bind(("::", port))
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Datagram:
    """One that arrived: what it says, who sent it, which address it asked, and which shards it has been to."""

    said: bytes
    sender: tuple[str, int]
    asked: bytes
    visited: int = 0


class PassDatagram(Protocol):
    """How a datagram that none of this shard's flows explains goes to a shard that may know it."""

    def __call__(self, server: "DatagramServer", datagram: Datagram) -> bool:
        """Give it away; False when nobody else can know it."""


@dataclass(slots=True)
class Peer:
    """One peer's conversation with a service address."""

    script: FlowScript
    number: int
    cursor: int = 0
    arrived: int = 0
    left: int = 0
    order: DatagramOrder = field(init=False)

    def __post_init__(self) -> None:
        self.order = DatagramOrder(self.script.messages, FORWARD)


class DatagramServer:
    """One UDP service of one node and address family."""

    def __init__(self, desk: Desk, sock: socket.socket, node: str, pass_on: PassDatagram) -> None:
        self._desk = desk
        self._sock = sock
        self._pass_on = pass_on
        self.node = node
        self.family = sock.family
        self.port = sock.getsockname()[1]
        self.peers: dict[tuple[str, int, str], Peer] = {}
        desk.reactor.watch(sock, READ, self._on_event)

    def _on_event(self, _events: int) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                said, control, _, sender = self._sock.recvmsg(_DATAGRAM_OCTETS, 256)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an answer that nobody wanted
            asked = _asked_address(control)
            if asked is not None:
                self.on_datagram(Datagram(said, (sender[0], sender[1]), asked))
        self._desk.reactor.after(0, lambda: self._on_event(READ))

    def on_datagram(self, datagram: Datagram) -> None:
        """Take in a datagram, from the socket or from another shard."""
        local = socket.inet_ntop(_family(datagram.asked), datagram.asked)
        key = (*datagram.sender, local)
        peer = self.peers.get(key)
        if peer is None or self._is_new_flow(peer, datagram, local):
            script = self._recognise(datagram, local)
            if script is None:
                if peer is None:
                    self._pass_on(self, datagram)
                return
            peer = self.peers[key] = Peer(script, self._desk.number())
            self._desk.recogniser.take(script, (local, self.port))
            self._desk.notes.accepted[peer.number] = Accepted(
                peer.number,
                self.node,
                UDP,
                local,
                self.port,
                *datagram.sender,
                time.time_ns(),
                script.flow_id,
            )
        self._desk.notes.arrived(peer.script.flow_id, len(datagram.said))
        self._arrived(peer, datagram)

    def _is_new_flow(self, peer: Peer, datagram: Datagram, local: str) -> bool:
        """Whether a known peer's datagram begins another flow from the same address and port."""
        return not peer.order.expects(datagram.said) and self._recognise(datagram, local) is not None

    def _recognise(self, datagram: Datagram, local: str) -> FlowScript | None:
        recogniser, here = self._desk.recogniser, (local, self.port)
        found = recogniser.by_source(UDP, datagram.sender, here)
        return found or recogniser.by_datagram(datagram.said, UDP, here)

    def _arrived(self, peer: Peer, datagram: Datagram) -> None:
        sequence = peer.order.arrived(datagram.said, peer.cursor)
        ordinal = peer.arrived
        peer.arrived += 1
        if sequence < 0:
            return
        self._note(peer, sequence, FORWARD, ordinal)
        peer.cursor = max(peer.cursor, sequence + 1)
        if peer.script.answer_to(sequence) > 0:
            self._answer_later(peer, sequence + 1, datagram)

    def _note(self, peer: Peer, sequence: int, direction: int, ordinal: int) -> None:
        self._desk.notes.transfers.append(
            Transfer(SERVER, peer.number, peer.script.flow_id, sequence, direction, ordinal, ordinal + 1, -1)
        )

    def _answer_later(self, peer: Peer, sequence: int, asked: Datagram) -> None:
        desk, script = self._desk, peer.script
        message = script.messages[sequence]
        desk.notes.offered += 1

        def answer() -> None:
            desk.notes.sent += 1
            peer.cursor = max(peer.cursor, sequence + 1)
            try:
                self._sock.sendmsg([message.payload], [_from(asked.asked)], 0, asked.sender)
            except BlockingIOError:
                desk.notes.blocked += 1
                return
            except OSError:
                return  # no way back: the client will miss it, which is what is measured
            self._note(peer, sequence, REVERSE, peer.left)
            peer.left += 1
            if script.answer_to(sequence) > 0:
                self._answer_later(peer, sequence + 1, asked)

        if message.gap_ns <= 0 and script.messages[sequence - 1].direction == FORWARD:
            answer()
        else:
            desk.reactor.after(message.gap_ns, answer, script.flow_id)


def _asked_address(control: list[tuple[int, int, bytes]]) -> bytes | None:
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return data[8:12]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return data[:16]
    return None


def _family(address: bytes) -> int:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def _from(address: bytes) -> tuple[int, int, bytes]:
    if len(address) == 4:
        return socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("i4s4s", 0, address, b"\0" * 4)
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("16si", address, 0)
