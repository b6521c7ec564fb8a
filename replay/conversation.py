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

from replay.observed import CLIENT, Attempt, Notes, Walked, tcp_info
from replay.reactor import CLOSING, READ, WRITE, Namespaces, Reactor
from replay.schedule import FORWARD, REVERSE, FlowScript

_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_TCP_INFO_ROOM = 256
_ABORT = struct.pack("ii", 1, 0)
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


class Conversation(Protocol):
    """The client side of a flow, of whatever protocol."""

    def start(self) -> None:
        """Begin, at the flow's own moment."""

    def cut(self, error: str) -> None:
        """The window is over: end now, with this error unless everything had been said."""


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
    protocol = script.protocol if kind == socket.SOCK_RAW else 0
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version_6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((script.source[0], script.source[1] if keep_port and not protocol else 0))
    except OSError:
        sock.close()
        raise
    return sock


class TcpConversation:
    """One TCP flow from its SYN to its close, octet for octet as scripted; `start` once, `cut` at the window's end.

    What speaks a protocol of its own on top overrides `_hear`, `_say` and `_on_end`.
    """

    __slots__ = (
        "_boundary",
        "_cursor",
        "_done",
        "_events",
        "_limit_ns",
        "_out",
        "_progress_ns",
        "_reactor",
        "_retries",
        "_sock",
        "_stage",
        "_thinking",
        "_told",
        "attempt",
        "script",
    )

    def __init__(self, stage: Stage, script: FlowScript, attempt: Attempt) -> None:
        self._stage = stage
        self._reactor = stage.reactor
        self.script = script
        self.attempt = attempt
        self._sock: socket.socket | None = None
        self._cursor = 0
        self._boundary = 0
        self._out: deque[memoryview] = deque()
        self._events = 0
        self._thinking = False
        self._progress_ns = 0
        self._limit_ns = 0
        self._retries = 0
        self._done = False
        self._told = False

    def start(self) -> None:
        """Send the SYN from the captured address and port."""
        script, attempt, stage = self.script, self.attempt, self._stage
        now = time.monotonic_ns()
        attempt.started_ns = attempt.started_ns or now
        keep = self._retries <= _PORT_RETRIES
        try:
            stage.namespaces.enter(script.source_node)
            sock = client_socket(script, socket.SOCK_STREAM, keep_port=keep)
        except OSError as error:
            if error.errno in _TAKEN and keep:
                self._try_again()
            else:
                self._conclude("not_started")
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        code = sock.connect_ex(script.target)
        if code in _TAKEN and keep:
            sock.close()
            self._sock = None
            self._try_again()
            return
        if not keep:
            attempt.source_port_kept = False
            attempt.source_port = sock.getsockname()[1]
        if self._retries == 0 or not keep:
            stage.notes.sent += 1
        if code not in (0, errno.EINPROGRESS):
            self._conclude(error_name(code))
            return
        patience = stage.patience
        expected = script.outcome != "unanswered"
        self._limit_ns = now + (patience.connect_timeout_ns if expected else patience.unanswered_timeout_ns)
        self._reactor.at(self._limit_ns, self._watch)
        if self._connected_already(sock):
            self._events = READ
            self._reactor.watch(sock, READ, self._on_event)
            self._on_connected()
        else:
            self._events = READ | WRITE
            self._reactor.watch(sock, READ | WRITE, self._on_event)

    def cut(self, error: str) -> None:
        """The window is over: abort, quietly when everything had been said."""
        self._conclude("" if self._done else error, abort=True)

    def _try_again(self) -> None:
        """The port is still taken: wait a little, in the end do without it."""
        self._retries += 1
        self._reactor.after(_PORT_RETRY_NS, self.start)

    def _connected_already(self, sock: socket.socket) -> bool:
        """Whether the answer came while the SYN was being sent: paths without delay are walked within the call."""
        try:
            sock.getpeername()
        except OSError:
            return False
        return True

    def _on_event(self, events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        if not self.attempt.connected:
            if events & CLOSING:
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self._conclude("refused" if code == errno.ECONNRESET else error_name(code))
                    return
            self._on_connected()
            if self._sock is None:
                return
        if self._out and events & WRITE:
            self._flush(sock)
        if events & ~WRITE and self._sock is not None:
            self._on_readable(sock, events)

    def _on_connected(self) -> None:
        self.attempt.connected = True
        self._progress_ns = time.monotonic_ns()
        self._advance()

    def _allowed_ns(self) -> int:
        """The wait for progress: the captured think time of whoever is next is not silence."""
        messages = self.script.messages
        think = messages[self._cursor].gap_ns if self._cursor < len(messages) else 0
        return self._stage.patience.message_timeout_ns + think

    def _watch(self) -> None:
        """Is it still moving? Asked when a wait may have been too long, and again as long as it may yet be."""
        if self._sock is None:
            return
        now = time.monotonic_ns()
        if self._done:
            if self._limit_ns and now >= self._limit_ns:
                self._conclude("")
            return
        if not self.attempt.connected:
            self._conclude("timeout")
            return
        due = self._progress_ns + self._allowed_ns()
        if self._thinking or now < due:
            self._reactor.at(max(due, now + self._stage.patience.message_timeout_ns // 2), self._watch)
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
                if message.gap_ns > 0:
                    self._thinking = True
                    self._reactor.after(message.gap_ns, self._said, self.script.flow_id)
                    return
                self._say(message.payload)
            elif not self._heard(len(message.payload)):
                return

    def _heard(self, octets: int) -> bool:
        """Take the next message when it is complete."""
        end = self._boundary + octets
        if self.attempt.received_octets < end:
            return False
        self._boundary = end
        self._cursor += 1
        return True

    def _said(self) -> None:
        self._thinking = False
        if self._sock is not None:
            self._say(self.script.messages[self._cursor].payload)
            self._advance()

    def _say(self, payload: bytes) -> None:
        """Send the message at the cursor."""
        if self._sock is None:
            return
        self._stage.notes.sent += 1
        self._cursor += 1
        self._send(payload)

    def _moved(self) -> None:
        """There was progress."""
        self._progress_ns = time.monotonic_ns()

    def _send(self, payload: bytes) -> None:
        """Put octets on the wire, behind what has not left yet."""
        sock = self._sock
        if sock is None or not payload:
            return
        self.attempt.sent_octets += len(payload)
        self._progress_ns = time.monotonic_ns()
        if self._out:
            self._out.append(memoryview(payload))
            return
        try:
            taken = sock.send(payload)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            self._broken(error.errno or 0)
            return
        if taken < len(payload):
            self._out.append(memoryview(payload)[taken:])
            self._await_room(sock)

    def _await_room(self, sock: socket.socket) -> None:
        if not self._events & WRITE:
            self._events |= WRITE
            self._reactor.change(sock, self._events)

    def _flush(self, sock: socket.socket) -> None:
        while self._out:
            try:
                taken = sock.send(self._out[0])
            except BlockingIOError:
                self._await_room(sock)
                return
            except OSError as error:
                self._broken(error.errno or 0)
                return
            self._progress_ns = time.monotonic_ns()
            if taken == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][taken:]

    def _read_on(self) -> None:
        sock = self._sock
        if sock is not None:
            self._on_readable(sock, CLOSING)

    def _on_readable(self, sock: socket.socket, events: int) -> None:
        buffer = self._reactor.buffer
        for _ in range(_READS_AT_ONCE):
            try:
                octets = sock.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                self._broken(error.errno or 0)
                return
            if not octets:
                self._on_end()
                return
            self._progress_ns = time.monotonic_ns()
            self.attempt.received_octets += octets
            self._hear(octets)
            if self._sock is None or (octets < len(buffer) and not events & CLOSING):
                return
        self._reactor.after(0, self._read_on)

    def _hear(self, octets: int) -> None:
        """So many octets have come; they are in the reactor's buffer."""
        self._advance()

    def _on_end(self) -> None:
        """The other side says no more."""
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
        self._limit_ns = 0
        self.attempt.completed = True
        self.attempt.error = "none"
        self.attempt.ended_ns = time.monotonic_ns()
        self._told = any(message.direction == REVERSE for message in self.script.messages)
        if self._told:
            self._stage.silent(self.script, satisfied=True)
        close = self.script.close
        if close == "none":
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
        self._limit_ns = time.monotonic_ns() + _CLOSE_WAIT_NS
        self._reactor.at(self._limit_ns, self._watch)

    def _conclude(self, error: str, *, abort: bool = False) -> None:
        """Close the socket; an error, if any, is the flow's."""
        sock, self._sock = self._sock, None
        attempt = self.attempt
        if error:
            attempt.error = error
            attempt.completed = False
            attempt.ended_ns = time.monotonic_ns()
        if sock is not None:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_ROOM)
            attempt.retransmits, attempt.min_rtt_ns = tcp_info(info)
            if abort or error:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._reactor.close(sock)
            self._write_down()
        if not self._told:
            self._stage.silent(self.script, satisfied=self._done and not error)
        self._done = self._told = True
        self._stage.finished(self.script.flow_id)

    def _write_down(self) -> None:
        """What passed, for the notes."""
        self._stage.notes.walked.append(Walked(CLIENT, -1, self.script, self._cursor))
