"""The client side of one UDP flow: every datagram on time, and what came back.

A datagram may be lost: the conversation waits for an answer once, then goes on without it.
"""

import errno
import socket
import time

from replay.conversation import Stage, client_socket, error_name
from replay.datagram_order import DatagramOrder
from replay.observed import CLIENT, Attempt, Transfer
from replay.reactor import READ
from replay.schedule import FORWARD, REVERSE, FlowScript

_READS_AT_ONCE = 64
_TRUNCATED_BELOW = 0.5
_NO_ROOM = (errno.ENOBUFS, errno.EAGAIN)


class UdpExchange:
    """One UDP flow from its first datagram to its last; `start` once, `cut` at the window's end."""

    def __init__(self, stage: Stage, script: FlowScript, attempt: Attempt) -> None:
        self._stage = stage
        self.script = script
        self.attempt = attempt
        self._sock: socket.socket | None = None
        self._cursor = 0
        self._sent = 0
        self._datagrams = 0
        self._arrived = 0
        self._thinking = False
        self._limit_ns = 0
        self._refusal = ""
        self._order = DatagramOrder(script.messages, REVERSE)

    def start(self) -> None:
        """Bind the captured address and port; say what is first."""
        self.attempt.started_ns = time.monotonic_ns()
        try:
            self._stage.namespaces.enter(self.script.source_node)
            self._sock = self._bound()
        except OSError:
            self._conclude("not_started")
            return
        self._stage.notes.sent += 1
        code = self._sock.connect_ex(self.script.target)
        if code:
            self._conclude(error_name(code))
            return
        self.attempt.source_port = self._sock.getsockname()[1]
        self._stage.reactor.watch(self._sock, READ, self._on_event)
        self._advance()

    def cut(self, error: str) -> None:
        """The window is over."""
        self._conclude(error if self._cursor < len(self.script.messages) else "")

    def _bound(self) -> socket.socket:
        try:
            return client_socket(self.script, socket.SOCK_DGRAM, keep_port=True)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        self.attempt.source_port_kept = False
        return client_socket(self.script, socket.SOCK_DGRAM, keep_port=False)

    def _advance(self) -> None:
        messages = self.script.messages
        while self._sock is not None and not self._thinking:
            if self._cursor >= len(messages):
                self._linger()
                return
            message = messages[self._cursor]
            if message.direction == REVERSE:
                self._wait(message.gap_ns)
                return
            self._stage.notes.offered += 1
            if message.gap_ns > 0:
                self._thinking = True
                self._stage.reactor.after(message.gap_ns, self._said, self.script.flow_id)
                return
            self._say()

    def _said(self) -> None:
        self._thinking = False
        self._say()
        self._advance()

    def _say(self) -> None:
        if self._sock is None:
            return
        payload = self.script.messages[self._cursor].payload
        self._stage.notes.sent += 1
        try:
            self._sock.send(payload)
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._stage.notes.blocked += 1
            else:
                self._refusal = error_name(error.errno or 0)
        else:
            self._note(self._cursor, FORWARD, self._sent)
            self._sent += 1
            self.attempt.sent_octets += len(payload)
        self._cursor += 1

    def _note(self, sequence: int, direction: int, ordinal: int) -> None:
        answer = self.script.answer_to(sequence) if direction == FORWARD else -1
        self._stage.notes.transfers.append(
            Transfer(CLIENT, -1, self.script.flow_id, sequence, direction, ordinal, ordinal + 1, answer)
        )

    def _wait(self, gap_ns: int) -> None:
        patience = self._stage.patience
        expected = self.script.outcome == "accepted"
        self._await(gap_ns + (patience.message_timeout_ns if expected else patience.unanswered_timeout_ns))

    def _await(self, wait_ns: int) -> None:
        """Wait so long from now for something to arrive; it puts the limit off."""
        self._limit_ns = time.monotonic_ns() + wait_ns
        self._stage.reactor.at(self._limit_ns, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        """These answers do not come: go on with what this side says next, or end when there is nothing."""
        if self._sock is None or not self._limit_ns or time.monotonic_ns() < self._limit_ns:
            return
        messages = self.script.messages
        if self._cursor >= len(messages):
            self._conclude("")
            return
        while self._cursor < len(messages) and messages[self._cursor].direction == REVERSE:
            self._cursor += 1
        self._limit_ns = 0
        self._advance()

    def _linger(self) -> None:
        """All is said. Whoever expected nothing still listens a moment for a refusal."""
        if self._order.expected or self._refusal:
            self._conclude("")
        else:
            self._await(self._stage.patience.unanswered_timeout_ns)

    def _on_event(self, _events: int) -> None:
        buffer = self._stage.reactor.buffer
        for _ in range(_READS_AT_ONCE):
            if self._sock is None:
                return
            try:
                octets = self._sock.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                self._refusal = error_name(error.errno or 0)
                self._conclude("")
                return
            self._on_datagram(bytes(memoryview(buffer)[:octets]))
        self._stage.reactor.after(0, self._read_on)

    def _read_on(self) -> None:
        self._on_event(READ)

    def _on_datagram(self, data: bytes) -> None:
        self.attempt.connected = True
        self.attempt.received_octets += len(data)
        ordinal = self._datagrams
        self._datagrams += 1
        sequence = self._order.arrived(data, self._cursor)
        if sequence < 0:
            return
        self._arrived += 1
        self._note(sequence, REVERSE, ordinal)
        if sequence >= self._cursor:
            self._cursor = sequence + 1
        self._limit_ns = 0
        self._advance()

    def _conclude(self, error: str) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._stage.reactor.close(sock)
        attempt = self.attempt
        attempt.missed_messages = max(self._order.expected - self._arrived, 0)
        attempt.error = error or self._judged()
        attempt.completed = attempt.error == "none"
        attempt.ended_ns = time.monotonic_ns()
        self._stage.silent(self.script, satisfied=False)
        self._stage.finished(self.script.flow_id)

    def _judged(self) -> str:
        if self._refusal:
            return self._refusal
        if not self._order.expected:
            return "none" if self.script.outcome == "accepted" else "timeout"
        if self._arrived == 0:
            return "timeout"
        return "none" if self._arrived >= _TRUNCATED_BELOW * self._order.expected else "truncated"
