"""The client side of one ICMP echo flow: every request at its own moment, and what answered it.

The target's own kernel answers, so there is no server side here. Requests do not wait for answers, as those of `ping`
do not. A raw socket keeps the captured identifier and the captured octets; sequence numbers count from 1, because the
flow table has none.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from itertools import accumulate

from replay.conversation import Stage, client_socket, error_name
from replay.observed import CLIENT, Attempt, Transfer
from replay.reactor import READ
from replay.schedule import FORWARD, ICMP, ICMPV6, REVERSE, FlowScript

_ASK, _ANSWER = {ICMP: 8, ICMPV6: 128}, {ICMP: 0, ICMPV6: 129}
_ICMP_FILTER, _ICMP6_FILTER = 1, 1
_SOL_RAW = 255
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_HEADER = struct.Struct("!BBHHH")
_READS_AT_ONCE = 64
_ANSWERED_LEAST = 0.5
_NO_ROOM = (errno.ENOBUFS, errno.EAGAIN)
_ERROR_NUMBER = struct.Struct("=I")


class EchoConversation:
    """One echo flow from its first request to its last answer; `start` once, `cut` at the window's end."""

    def __init__(self, stage: Stage, script: FlowScript, attempt: Attempt) -> None:
        self._stage = stage
        self.script = script
        self.attempt = attempt
        self._sock: socket.socket | None = None
        messages = script.messages
        moments = accumulate(message.gap_ns for message in messages)
        self._requests = [
            (place, at_ns)
            for place, (message, at_ns) in enumerate(zip(messages, moments, strict=True))
            if message.direction == FORWARD
        ]
        self._next = 0
        self._sent: list[int] = []
        self._arrivals = 0
        self._answered: set[int] = set()
        self._refused: dict[int, str] = {}

    def start(self) -> None:
        """Open the socket at the captured address; ask the first."""
        self.attempt.started_ns = time.monotonic_ns()
        script = self.script
        try:
            self._stage.namespaces.enter(script.source_node)
            sock = client_socket(script, socket.SOCK_RAW, keep_port=True)
        except OSError:
            self._conclude("not_started")
            return
        self._sock = sock
        self._hear_only_answers(sock)
        self._stage.notes.sent += 1
        code = sock.connect_ex((script.target[0], 0))
        if code:
            self._conclude(error_name(code))
            return
        self._stage.reactor.watch(sock, READ, self._on_event)
        self._stage.notes.offered += len(self._requests)
        self._await_next()

    def cut(self, error: str) -> None:
        """The window is over."""
        self._conclude(error if self._next < len(self._requests) else "")

    def _hear_only_answers(self, sock: socket.socket) -> None:
        """Let the kernel keep everything but echo replies and errors from this socket."""
        answer = _ANSWER[self.script.protocol]
        if self.script.protocol == ICMP:
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFF_FFFF ^ 1 << answer))
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            return
        blocked = [0xFFFF_FFFF] * 8
        blocked[answer >> 5] ^= 1 << (answer & 31)
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)

    def _await_next(self) -> None:
        """Put the next request on the clock, or the end of patience when there is none."""
        if self._next < len(self._requests):
            at_ns = self.attempt.started_ns + self._requests[self._next][1]
            if at_ns <= time.monotonic_ns() and not self._next:
                self._ask()
            else:
                self._stage.reactor.at(at_ns, self._ask, self.script.flow_id)
            return
        patience = self._stage.patience
        expected = self.script.outcome == "accepted"
        wait_ns = patience.message_timeout_ns if expected else patience.unanswered_timeout_ns
        self._stage.reactor.after(wait_ns, self._give_up)
        self._end_when_told()

    def _ask(self) -> None:
        sock = self._sock
        if sock is None:
            return
        place = self._requests[self._next][0]
        number = self._next = self._next + 1
        packet = self._request(number, self.script.messages[place].payload)
        self._stage.notes.sent += 1
        try:
            self._send(sock, packet)
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._stage.notes.blocked += 1
            elif error.errno != errno.EMSGSIZE:
                self._refused[number] = error_name(error.errno or 0)
        else:
            ordinal = len(self._sent)
            self._sent.append(number)
            self.attempt.sent_octets += len(packet) - _HEADER.size
            answer = self._answer_place(number) if self.script.outcome == "accepted" else -1
            self._note(place, FORWARD, ordinal, answer)
        self._await_next()

    def _send(self, sock: socket.socket, packet: bytes) -> None:
        """Send; what went wrong with a request before is told by the next call, which has not sent anything."""
        try:
            sock.send(packet)
        except OSError:
            if not self._read_errors(sock):
                raise
            sock.send(packet)

    def _request(self, number: int, payload: bytes) -> bytes:
        """An echo request; the kernel fills in the checksum of ICMPv6, which covers addresses."""
        kind, identifier = _ASK[self.script.protocol], self.script.source[1]
        plain = _HEADER.pack(kind, 0, 0, identifier, number & 0xFFFF) + payload
        if self.script.protocol == ICMPV6:
            return plain
        return _HEADER.pack(kind, 0, checksum(plain), identifier, number & 0xFFFF) + payload

    def _answer_place(self, number: int) -> int:
        """Where the answer to a request stands: behind all captured messages, because any of those may be missing."""
        return len(self.script.messages) + number - 1

    def _note(self, sequence: int, direction: int, ordinal: int, answer: int) -> None:
        self._stage.notes.transfers.append(
            Transfer(CLIENT, -1, self.script.flow_id, sequence, direction, ordinal, ordinal + 1, answer)
        )

    def _on_event(self, _events: int) -> None:
        for _ in range(_READS_AT_ONCE):
            sock = self._sock
            if sock is None:
                return
            try:
                octets = sock.recv_into(self._stage.reactor.buffer)
            except BlockingIOError:
                self._read_errors(sock)
                self._end_when_told()
                return
            except OSError:
                self._read_errors(sock)
                continue
            self._on_packet(bytes(memoryview(self._stage.reactor.buffer)[:octets]))
        self._stage.reactor.after(0, self._read_on)

    def _read_on(self) -> None:
        self._on_event(READ)

    def _on_packet(self, packet: bytes) -> None:
        if self.script.protocol == ICMP:
            packet = packet[(packet[0] & 0xF) * 4 :]
        number = self._number_in(packet, _ANSWER[self.script.protocol])
        if number is None:
            return
        ordinal = self._arrivals
        self._arrivals += 1
        self.attempt.connected = True
        self.attempt.received_octets += len(packet) - _HEADER.size
        if number not in self._answered:
            self._answered.add(number)
            self._note(self._answer_place(number), REVERSE, ordinal, -1)
        self._end_when_told()

    def _number_in(self, packet: bytes, kind: int) -> int | None:
        """Which request of ours an ICMP header speaks of: the latest sent one with that sequence number."""
        if len(packet) < _HEADER.size:
            return None
        found, _, _, identifier, sequence = _HEADER.unpack_from(packet)
        if (found, identifier) != (kind, self.script.source[1]):
            return None
        number = self._next - ((self._next - sequence) & 0xFFFF)
        return number if number > 0 else None

    def _read_errors(self, sock: socket.socket) -> bool:
        """Take in the ICMP errors that the kernel has for this socket; whether there was any."""
        any_read = False
        while True:
            try:
                quoted, control, _, _ = sock.recvmsg(2_048, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return any_read
            any_read = True
            number = self._number_in(quoted, _ASK[self.script.protocol])
            for _, _, data in control:
                (code,) = _ERROR_NUMBER.unpack_from(data)
                if number is not None and code != errno.EMSGSIZE:
                    self._refused[number] = error_name(code)

    def _end_when_told(self) -> None:
        """The flow is over when every request has met its fate."""
        told = len(self._answered | self._refused.keys())
        if self._sock is not None and self._next == len(self._requests) <= told:
            self._conclude("")

    def _give_up(self) -> None:
        if self._sock is not None:
            self._conclude("")

    def _conclude(self, error: str) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._stage.reactor.close(sock)
        attempt = self.attempt
        attempt.missed_messages = max(len(self._sent) - len(self._answered), 0)
        attempt.error = error or self._judged()
        attempt.completed = attempt.error == "none"
        attempt.ended_ns = time.monotonic_ns()
        self._stage.silent(self.script, satisfied=False)
        self._stage.finished(self.script.flow_id)

    def _judged(self) -> str:
        if len(self._answered) >= _ANSWERED_LEAST * len(self._requests):
            return "none"
        if self._answered:
            return "truncated"
        return next(iter(self._refused.values()), "timeout")


def checksum(packet: bytes) -> int:
    """The Internet checksum (RFC 1071) of a packet whose checksum field is 0."""
    padded = packet + b"\0" * (len(packet) & 1)
    return 0xFFFF - int.from_bytes(padded, "big") % 0xFFFF
