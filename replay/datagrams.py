"""The server side of UDP flows: one socket a family and port, any number of peers behind it.

The answer leaves from the address that was asked (IP_PKTINFO), because an edge node answers for
whole prefixes. A datagram's stream offset is its ordinal among that peer's datagrams.
"""

import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replay.observed import SERVER, Accepted, Transfer
from replay.reactor import READ
from replay.schedule import FORWARD, REVERSE, UDP, FlowScript

if TYPE_CHECKING:
    from replay.servers import Servers

_IP_PKTINFO = 8
_IPV6_FREEBIND = 78
_IP_FREEBIND = 15
_READS_AT_ONCE = 64
_DATAGRAM_OCTETS = 65_536


def datagram_socket(family: int, port: int) -> socket.socket:
    """A bound UDP socket that reports which address each datagram was sent to; raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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


@dataclass(slots=True)
class Peer:
    """One peer's conversation with a service address."""

    script: FlowScript
    number: int
    cursor: int = 0
    arrived: int = 0
    left: int = 0


class DatagramServer:
    """One UDP service of one node and address family."""

    def __init__(self, servers: "Servers", sock: socket.socket, node: str) -> None:
        self._servers = servers
        self._sock = sock
        self._node = node
        self.peers: dict[tuple[str, int, str], Peer] = {}
        self._port = sock.getsockname()[1]
        servers.reactor.watch(sock, READ, self._on_event)

    def _on_event(self, _events: int) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                said, control, _, sender = self._sock.recvmsg(_DATAGRAM_OCTETS, 256)
            except OSError:
                return  # nothing left, or an ICMP error of an answer that nobody wanted
            asked = _asked_address(control)
            if asked is not None:
                self._on_datagram(said, (sender[0], sender[1]), asked)

    def _on_datagram(self, said: bytes, sender: tuple[str, int], asked: bytes) -> None:
        local = socket.inet_ntop(_family(asked), asked)
        key = (*sender, local)
        peer = self.peers.get(key)
        if peer is None or self._is_new_flow(peer, said, sender, local):
            script = self._recognise(said, sender, local)
            if script is None:
                return
            peer = self.peers[key] = Peer(script, self._servers.number())
            self._servers.recogniser.take(script, (local, self._port))
            self._servers.notes.accepted[peer.number] = Accepted(
                peer.number,
                self._node,
                UDP,
                local,
                self._port,
                *sender,
                time.time_ns(),
                script.flow_id,
            )
        self._servers.count(peer.script, len(said))
        self._arrived(peer, said, sender, asked)

    def _is_new_flow(self, peer: Peer, said: bytes, sender: tuple[str, int], local: str) -> bool:
        """Whether a known peer's datagram begins another flow from the same address and port."""
        remaining = peer.script.messages[peer.cursor :]
        if any(m.direction == FORWARD and m.payload == said for m in remaining):
            return False
        return self._recognise(said, sender, local) is not None

    def _recognise(self, said: bytes, sender: tuple[str, int], local: str) -> FlowScript | None:
        recogniser = self._servers.recogniser
        here = (local, self._port)
        return recogniser.by_source(UDP, sender, here) or recogniser.by_datagram(said, UDP, here)

    def _arrived(self, peer: Peer, said: bytes, sender: tuple[str, int], asked: bytes) -> None:
        messages = peer.script.messages
        forward = [i for i, m in enumerate(messages) if m.direction == FORWARD]
        ahead = [i for i in forward if i >= peer.cursor]
        exact = next((i for i in ahead if messages[i].payload == said), None)
        sequence = exact if exact is not None else next(iter(ahead), -1)
        ordinal = peer.arrived
        peer.arrived += 1
        if sequence < 0:
            return
        script = peer.script
        self._servers.note(Transfer(SERVER, peer.number, script.flow_id, sequence, FORWARD, ordinal, ordinal + 1, -1))
        peer.cursor = sequence + 1
        if script.answer_to(sequence) > 0:
            self._answer_later(peer, sequence + 1, sender, asked)

    def _answer_later(self, peer: Peer, sequence: int, sender: tuple[str, int], asked: bytes) -> None:
        servers, script = self._servers, peer.script
        message = script.messages[sequence]
        servers.notes.offered += 1

        def answer() -> None:
            servers.notes.sent += 1
            peer.cursor = max(peer.cursor, sequence + 1)
            try:
                self._sock.sendmsg([message.payload], [_from(asked)], 0, sender)
            except OSError:
                return  # no way back: the client will miss it, which is what is measured
            servers.note(
                Transfer(
                    SERVER,
                    peer.number,
                    script.flow_id,
                    sequence,
                    REVERSE,
                    peer.left,
                    peer.left + 1,
                    -1,
                )
            )
            peer.left += 1
            if script.answer_to(sequence) > 0:
                self._answer_later(peer, sequence + 1, sender, asked)

        if message.gap_ns <= 0 and script.messages[sequence - 1].direction == FORWARD:
            answer()
        else:
            servers.reactor.after(message.gap_ns, answer, script.flow_id)


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
