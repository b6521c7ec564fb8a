"""The client side of one UDP flow: every datagram on time, and what came back.

A datagram may be lost: the conversation waits for an answer once, then goes on without it.
"""

import errno
import socket
import time

from replay.conversation import Stage, client_socket, error_name
from replay.observed import CLIENT, Attempt, Transfer
from replay.reactor import READ, Timer
from replay.schedule import FORWARD, REVERSE, FlowScript

_DATAGRAM_OCTETS = 65_536
_READS_AT_ONCE = 64
_TRUNCATED_BELOW = 0.5


class UdpExchange:
    """One UDP flow from its first datagram to its last; `start` once, `cut` at the window's end."""

    def __init__(self, stage: Stage, script: FlowScript, attempt: Attempt) -> None:
        self._stage = stage
        self.script = script
        self.attempt = attempt
        self._sock: socket.socket | None = None
        self._cursor = 0
        self._sent = 0
        self._arrived = 0
        self._thinking = False
        self._patience: Timer | None = None
        self._refusal = ""
        self._expected = sum(1 for m in script.messages if m.direction == REVERSE)

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
        except BlockingIOError:
            pass  # the queue to the wire is full: the network's loss, seen at the taps
        except OSError as error:
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
        if self._patience is not None:
            self._patience.cancel()
        patience = self._stage.patience
        expected = self.script.outcome == "accepted"
        wait = patience.message_timeout_ns if expected else patience.unanswered_timeout_ns
        self._patience = self._stage.reactor.after(wait + gap_ns, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        """These answers do not come: go on with what this side says next."""
        messages = self.script.messages
        while self._cursor < len(messages) and messages[self._cursor].direction == REVERSE:
            self._cursor += 1
        self._advance()

    def _linger(self) -> None:
        """All is said. Whoever expected nothing still listens a moment for a refusal."""
        if self._expected or self._refusal:
            self._conclude("")
        else:
            if self._patience is not None:
                self._patience.cancel()
            wait = self._stage.patience.unanswered_timeout_ns
            self._patience = self._stage.reactor.after(wait, lambda: self._conclude(""))

    def _on_event(self, _events: int) -> None:
        for _ in range(_READS_AT_ONCE):
            if self._sock is None:
                return
            try:
                data = self._sock.recv(_DATAGRAM_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                self._refusal = error_name(error.errno or 0)
                self._conclude("")
                return
            self._on_datagram(data)

    def _on_datagram(self, data: bytes) -> None:
        self.attempt.connected = True
        self.attempt.received_octets += len(data)
        ordinal = self._arrived
        self._arrived += 1
        sequence = self._which(data)
        if sequence < 0:
            return
        self._note(sequence, REVERSE, ordinal)
        if sequence >= self._cursor:
            self._cursor = sequence + 1
        if self._patience is not None:
            self._patience.cancel()
        self._advance()

    def _which(self, data: bytes) -> int:
        messages = self.script.messages
        answers = [i for i, m in enumerate(messages) if m.direction == REVERSE]
        exact = [i for i in answers if messages[i].payload == data]
        ahead = next((i for i in exact if i >= self._cursor), None)
        if ahead is not None:
            return ahead
        if exact:
            return exact[-1]
        return next((i for i in answers if i >= self._cursor), -1)

    def _conclude(self, error: str) -> None:
        sock, self._sock = self._sock, None
        if self._patience is not None:
            self._patience.cancel()
        if sock is not None:
            self._stage.reactor.forget(sock)
            sock.close()
        attempt = self.attempt
        attempt.missed_messages = max(self._expected - self._arrived, 0)
        attempt.error = error or self._judged()
        attempt.completed = attempt.error == "none"
        attempt.ended_ns = time.monotonic_ns()
        self._stage.silent(self.script, satisfied=False)
        self._stage.finished(self.script.flow_id)

    def _judged(self) -> str:
        if self._refusal:
            return self._refusal
        if not self._expected:
            return "none" if self.script.outcome == "accepted" else "timeout"
        if self._arrived == 0:
            return "timeout"
        return "none" if self._arrived >= _TRUNCATED_BELOW * self._expected else "truncated"
