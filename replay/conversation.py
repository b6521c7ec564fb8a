"""The client side of one TCP flow: connect, say, hear, think, and close as captured.

Knows nothing of the server side: what it hears comes through the network or not at all.
"""

import errno
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from replay.http_framing import Framed, MessageReader, NotHttp, response_head
from replay.observed import CLIENT, Attempt, Notes, Transfer
from replay.reactor import READ, WRITE, Namespaces, Reactor, Timer
from replay.schedule import FORWARD, REVERSE, FlowScript

_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_ABORT = struct.pack("ii", 1, 0)
_READ_OCTETS = 262_144
_READS_AT_ONCE = 8
_PORT_RETRY_NS = 50_000_000
_PORT_RETRIES = 3
_CLOSE_WAIT_NS = 1_000_000_000
_REFUSALS = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EACCES: "unreachable",
    errno.EPERM: "unreachable",
    errno.ECONNRESET: "reset",
    errno.ETIMEDOUT: "timeout",
}
_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits: for a connection, for one that was never answered, for progress."""

    connect_timeout_ns: int = 1_500_000_000
    unanswered_timeout_ns: int = 800_000_000
    message_timeout_ns: int = 2_000_000_000


class Stage(Protocol):
    """What a conversation needs of the window that it belongs to."""

    reactor: Reactor
    namespaces: Namespaces
    patience: Patience
    notes: Notes

    def finished(self, flow_id: str) -> None:
        """This flow's sockets are closed."""

    def idle(self, flow_id: str) -> None:
        """This flow has said all; it stays open until the window ends."""

    def silent(self, script: FlowScript, *, satisfied: bool) -> None:
        """This flow says nothing more: what arrives from now on is not it."""


def error_name(code: int) -> str:
    """The kpis table's word for a socket error."""
    return _REFUSALS.get(code, "unreachable")


def client_socket(script: FlowScript, kind: int, *, keep_port: bool) -> socket.socket:
    """A non-blocking socket bound to the captured source, in the current namespace.

    SO_REUSEADDR from the first window on is what lets the next one bind the same port; FREEBIND
    lets an AnyIP node speak for addresses that no interface has. Raises OSError.
    """
    version_6 = ":" in script.source[0]
    family = socket.AF_INET6 if version_6 else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version_6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((script.source[0], script.source[1] if keep_port else 0))
    except OSError:
        sock.close()
        raise
    return sock


class TcpConversation:
    """One TCP flow from its SYN to its close; `start` once, `cut` at the window's end."""

    def __init__(self, stage: Stage, script: FlowScript, attempt: Attempt) -> None:
        self._stage = stage
        self.script = script
        self.attempt = attempt
        self._sock: socket.socket | None = None
        self._cursor = 0
        self._boundary = 0
        self._out: deque[memoryview] = deque()
        self._events = 0
        self._thinking = False
        self._progress_ns = 0
        self._watchdog: Timer | None = None
        self._retries = 0
        self._done = False
        self._reader = MessageReader(responses=True) if script.tagged else None

    def start(self) -> None:
        """Send the SYN from the captured address and port."""
        self.attempt.started_ns = self.attempt.started_ns or time.monotonic_ns()
        keep = self._retries <= _PORT_RETRIES
        try:
            self._stage.namespaces.enter(self.script.source_node)
            sock = client_socket(self.script, socket.SOCK_STREAM, keep_port=keep)
        except OSError as error:
            if error.errno in _TAKEN and keep:
                self._try_again()
            else:
                self._conclude("not_started")
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        code = sock.connect_ex(self.script.target)
        if code in _TAKEN and keep:
            sock.close()
            self._sock = None
            self._try_again()
            return
        self.attempt.source_port_kept = keep
        self.attempt.source_port = sock.getsockname()[1]
        if self._retries == 0 or not keep:
            self._stage.notes.sent += 1
        if code not in (0, errno.EINPROGRESS):
            self._conclude(error_name(code))
            return
        self._events = READ | WRITE
        self._stage.reactor.watch(sock, self._events, self._on_event)
        patience = self._stage.patience
        expected = self.script.outcome != "unanswered"
        wait = patience.connect_timeout_ns if expected else patience.unanswered_timeout_ns
        self._watchdog = self._stage.reactor.after(wait, lambda: self._conclude("timeout"))

    def cut(self, error: str) -> None:
        """The window is over: abort, quietly when everything had been said."""
        self._conclude("" if self._done else error, abort=True)

    def _try_again(self) -> None:
        """The port is still taken: wait a little, in the end do without it."""
        self._retries += 1
        self._stage.reactor.after(_PORT_RETRY_NS, self.start)

    def _on_event(self, events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        if not self.attempt.connected:
            self._on_connect(sock)
            return
        if events & WRITE:
            self._flush(sock)
        if events & ~WRITE and self._sock is not None:
            self._on_readable(sock)

    def _on_connect(self, sock: socket.socket) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._conclude("refused" if code == errno.ECONNRESET else error_name(code))
            return
        try:
            sock.getpeername()
        except OSError:
            return  # an event of the socket that had this number before
        self.attempt.connected = True
        self._interest(sock)
        self._watch_progress()
        self._advance()

    def _watch_progress(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._progress_ns = time.monotonic_ns()
        self._watchdog = self._stage.reactor.after(self._allowed_ns(), self._check_progress)

    def _allowed_ns(self) -> int:
        """The wait for progress: the captured think time of whoever is next is not silence."""
        messages = self.script.messages
        think = messages[self._cursor].gap_ns if self._cursor < len(messages) else 0
        if self.script.tagged:
            run = self._cursor
            while self.script.answer_to(run) > 0:
                run += 1
                think += messages[run].gap_ns
        return self._stage.patience.message_timeout_ns + think

    def _check_progress(self) -> None:
        if self._done or self._sock is None:
            return
        due = self._progress_ns + self._allowed_ns()
        if self._thinking or time.monotonic_ns() < due:
            wait = max(due - time.monotonic_ns(), self._stage.patience.message_timeout_ns // 2)
            self._watchdog = self._stage.reactor.after(wait, self._check_progress)
            return
        self._conclude("timeout")

    def _advance(self) -> None:
        """Do what is next, unless it is the other side's turn."""
        messages = self.script.messages
        while not self._thinking and self._sock is not None:
            if self._cursor >= len(messages):
                self._finish()
                return
            message = messages[self._cursor]
            if message.direction == FORWARD:
                self._stage.notes.offered += 1
                self._thinking = True
                if message.gap_ns > 0:
                    self._stage.reactor.after(message.gap_ns, self._said, self.script.flow_id)
                    return
                self._say()
            elif self.script.tagged or not self._heard(len(message.payload)):
                return

    def _heard(self, octets: int) -> bool:
        """Take the next raw message when it is complete."""
        if self.attempt.received_octets < self._boundary + octets:
            return False
        self._note(self._cursor, REVERSE, self._boundary, self._boundary + octets)
        self._boundary += octets
        self._cursor += 1
        return True

    def _say(self) -> None:
        self._thinking = False
        sock = self._sock
        if sock is None:
            return
        self._stage.notes.sent += 1
        payload = self.script.messages[self._cursor].payload
        sent = self.attempt.sent_octets
        if self._reader is not None:
            self._reader.expect(payload.split(b" ", 1)[0])
        self._note(self._cursor, FORWARD, sent, sent + len(payload))
        self.attempt.sent_octets += len(payload)
        self._cursor += 1
        self._progress_ns = time.monotonic_ns()
        if payload:
            self._out.append(memoryview(payload))
        self._flush(sock)

    def _said(self) -> None:
        self._say()
        self._advance()

    def _note(self, sequence: int, direction: int, start: int, end: int) -> None:
        answer = self.script.answer_to(sequence) if direction == FORWARD else -1
        self._stage.notes.transfers.append(
            Transfer(CLIENT, -1, self.script.flow_id, sequence, direction, start, end, answer)
        )

    def _flush(self, sock: socket.socket) -> None:
        while self._out:
            try:
                taken = sock.send(self._out[0])
            except BlockingIOError:
                break
            except OSError as error:
                self._broken(error.errno or 0)
                return
            self._progress_ns = time.monotonic_ns()
            if taken == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][taken:]
        self._interest(sock)

    def _interest(self, sock: socket.socket) -> None:
        events = READ | (WRITE if self._out else 0)
        if events != self._events:
            self._events = events
            self._stage.reactor.change(sock, events)

    def _on_readable(self, sock: socket.socket) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data = sock.recv(_READ_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                self._broken(error.errno or 0)
                return
            if not data:
                self._on_end()
                return
            self._progress_ns = time.monotonic_ns()
            self.attempt.received_octets += len(data)
            if self._reader is not None:
                self._on_http(self._reader, data)
            else:
                self._advance()
            if self._sock is None or len(data) < _READ_OCTETS // 4:
                return

    def _on_http(self, reader: MessageReader, data: bytes) -> None:
        try:
            framed = reader.feed(data)
        except NotHttp:
            self._conclude("http_error")
            return
        for response in framed:
            if self._sock is not None:
                self._on_response(response)

    def _on_response(self, response: Framed) -> None:
        messages = self.script.messages
        first = self._cursor
        if first >= len(messages) or messages[first].direction != REVERSE:
            return
        last = first
        while self.script.answer_to(last) > 0:
            last += 1
        self._note(first, REVERSE, response.start, response.end)
        self._cursor = last + 1
        captured = response_head(m.payload for m in messages[first : last + 1])
        if captured is not None and captured.status != response.head.status:
            self._conclude("http_error")
            return
        self._advance()

    def _on_end(self) -> None:
        if self._reader is not None and not self._done:
            framed = self._reader.end_of_stream()
            if framed is not None:
                self._on_response(framed)
        if self._sock is not None:
            self._conclude("" if self._done else "truncated")

    def _broken(self, code: int) -> None:
        if self._done:
            self._conclude("")
        elif code in (errno.ECONNRESET, errno.EPIPE):
            self._conclude("reset")
        else:
            self._conclude(error_name(code))

    def _finish(self) -> None:
        """All is said and heard: close as captured."""
        if self._done:
            return
        self._done = True
        self.attempt.completed = True
        self.attempt.error = "none"
        self.attempt.ended_ns = time.monotonic_ns()
        self._stage.silent(self.script, satisfied=True)
        close = self.script.close
        if close == "none":
            if self._watchdog is not None:
                self._watchdog.cancel()
            self._stage.idle(self.script.flow_id)
            return
        if close == "rst_forward":
            self._conclude("", abort=True)
            return
        if close == "fin_forward" and self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._conclude("")
                return
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = self._stage.reactor.after(_CLOSE_WAIT_NS, lambda: self._conclude(""))

    def _conclude(self, error: str, *, abort: bool = False) -> None:
        """Close the socket; an error, if any, is the flow's."""
        sock, self._sock = self._sock, None
        if self._watchdog is not None:
            self._watchdog.cancel()
        if error:
            self.attempt.error = error
            self.attempt.completed = False
            self.attempt.ended_ns = time.monotonic_ns()
        if sock is not None:
            self._stage.reactor.forget(sock)
            if abort or error:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            sock.close()
        if not self._done:
            self._stage.silent(self.script, satisfied=False)
        self._done = True
        self._stage.finished(self.script.flow_id)
