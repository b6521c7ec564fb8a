"""One accepted TCP connection on the server side: find out which flow it is, then answer as captured.

Sends only what a script says or what a health check wants. Several flows' HTTP requests may arrive
on one connection, and one flow's on several: a proxy decides that, and `http_service` answers them.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from replay.desk import Desk
from replay.http_service import HttpService
from replay.observed import SERVER, Accepted, Walked, tcp_info
from replay.payload import is_client_hello
from replay.reactor import CLOSING, GONE, READ, WRITE
from replay.responder import Endpoint, Recognition, courtesy
from replay.schedule import REVERSE, TCP, FlowScript
from replay.tls_service import TlsService

_TCP_INFO_ROOM = 256
_READS_AT_ONCE = 8
_UNKNOWN_LIMIT_OCTETS = 65_536
_DRAIN_STEP_NS = 1_000_000
_DRAIN_STEPS = 500
_SILENCE_NS = 5_000_000
_ABORT = struct.pack("ii", 1, 0)


class PassOn(Protocol):
    """How a connection that none of this shard's flows explains goes to a shard that may know it."""

    def __call__(self, connection: ServerConnection, said: bytes, *, http: bool) -> bool:
        """Give it away with what it said; False when it must be answered here."""


class ServerConnection:
    """One accepted TCP connection: unknown, then one flow's, or a stream of HTTP requests."""

    __slots__ = (
        "_accepted_ns",
        "_boundary",
        "_busy",
        "_cursor",
        "_desk",
        "_ending",
        "_events",
        "_http",
        "_ignoring",
        "_out",
        "_pass_on",
        "_reactor",
        "_received",
        "_said",
        "_tls",
        "closed",
        "local",
        "node",
        "number",
        "peer",
        "peer_closed",
        "script",
        "sent",
        "sock",
        "visited",
    )

    def __init__(
        self,
        desk: Desk,
        sock: socket.socket,
        node: str,
        peer: Endpoint,
        pass_on: PassOn,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._desk = desk
        self._reactor = desk.reactor
        self._pass_on = pass_on
        self.sock = sock
        self.node = node
        self.local = plain(sock.getsockname())
        self.peer = peer
        self.number = desk.number()
        self.visited = 0
        self.script: FlowScript | None = None
        self._http: HttpService | TlsService | None = None
        self._said = bytearray()
        self._ignoring = False
        self._received = 0
        self.sent = 0
        self._boundary = 0
        self._cursor = 0
        self._busy = False
        self.peer_closed = False
        self._ending = False
        self._out: deque[memoryview] = deque()
        self._events = READ
        self._accepted_ns = time.time_ns()
        self.closed = False

    def take_in(self, said: bytes = b"") -> None:
        """Begin: with bytes that another shard has read from it, or with those that are there already."""
        self._desk.add(self)
        self._reactor.watch(self.sock, READ, self._on_event)
        script = self._desk.recogniser.by_source(TCP, self.peer, self.local)
        if script is not None and not script.tagged:
            self._adopt(script)
        if said:
            self._received += len(said)
            self._on_data(said)
        if not self.closed:
            self._on_readable(READ)
        if self.closed or script is not None or self.script is not None or self._said or self._http is not None:
            return
        script = self._desk.recogniser.by_order(TCP, self.local, self.peer, sure=True)
        if script is None:
            self._reactor.after(_SILENCE_NS, self._on_silence)
        elif not script.tagged:
            self._adopt(script)

    @property
    def in_a_flow(self) -> bool:
        """Whether it is one flow's own, and ends with the window."""
        return self.script is not None

    def rebase(self) -> None:
        """Count this connection's streams from now on."""
        self._received = self.sent = 0
        if self._http is not None:
            self._http.rebase()
            self.identify("")

    def span(self, direction: int, start: int, end: int) -> tuple[int, int]:
        """What is said here is on the wire as it is."""
        return start, end

    def abort(self) -> None:
        """Close with a reset, which also ends the state that middle boxes keep."""
        if not self.closed:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._close()

    def recognise_again(self) -> None:
        """Look again at bytes, or at a silence, that no flow explained before."""
        if self.closed or self.script is not None or self._http is not None:
            return
        if self._said:
            self._ignoring = False
            self._recognise()
            return
        script = self._desk.recogniser.by_order(TCP, self.local, self.peer, sure=False)
        if script is not None:
            self._adopt(script)

    def let_go(self) -> None:
        """Give the socket up without closing it: another shard has it now."""
        self.closed = True
        self._reactor.forget(self.sock)
        self.sock.close()
        self._desk.drop(self)

    def identify(self, flow_id: str) -> None:
        """Write down which flow this connection carries; "" when it may carry several."""
        self._desk.notes.accepted[self.number] = Accepted(
            self.number, self.node, TCP, *self.local, *self.peer, self._accepted_ns, flow_id
        )

    def _on_silence(self) -> None:
        self.recognise_again()
        if not (self.closed or self.script or self._http or self._said):
            self._pass_on(self, b"", http=False)

    def _on_event(self, events: int) -> None:
        if self.closed:
            return
        if self._out and events & WRITE:
            self._flush()
        if events & ~WRITE and not self.closed:
            self._on_readable(events)

    def _read_on(self) -> None:
        if not self.closed and not self.peer_closed:
            self._on_readable(CLOSING)

    def _on_readable(self, events: int) -> None:
        if self.peer_closed:
            if events & GONE:
                self._lost()
            return
        buffer = self._reactor.buffer
        for _ in range(_READS_AT_ONCE):
            try:
                octets = self.sock.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError:
                self._lost()
                return
            if not octets:
                self._on_end()
                return
            self._received += octets
            if self.script is not None:
                self._advance()
            else:
                self._on_data(bytes(memoryview(buffer)[:octets]))
            if self.closed or (octets < len(buffer) and not events & CLOSING):
                return
        self._reactor.after(0, self._read_on)

    def _on_data(self, data: bytes) -> None:
        if self.script is not None:
            self._advance()
        elif self._http is not None:
            self._http.hear(data)
        elif len(self._said) < _UNKNOWN_LIMIT_OCTETS:
            self._said += data
            if not self._ignoring:
                self._recognise()

    def _recognise(self) -> None:
        recogniser = self._desk.recogniser
        said = bytes(self._said)
        found = recogniser.by_source(TCP, self.peer, self.local)
        if found is not None and not found.tagged:
            self._adopt(found)
            return
        recognised = recogniser.by_content(TCP, said, self.local, self.peer)
        if isinstance(recognised, FlowScript):
            self._adopt(recognised)
            return
        if recognised is Recognition.AMBIGUOUS or self._pass_on(self, said, http=recognised is Recognition.HTTP):
            return
        if recognised is Recognition.HTTP:
            self._http = HttpService(self, self._desk)
            self._said.clear()
            self.identify("")
            self._http.hear(said)
        elif self._tls is not None and is_client_hello(said):
            self._http = TlsService(self, self._desk, self._tls, said)
            self._said.clear()
            self.identify("")
            self._http.hear(said)
        else:
            self._ignoring = True
            answer = courtesy(said)
            if answer:
                self.send(answer)

    def _adopt(self, script: FlowScript) -> None:
        self.script = script
        self._desk.recogniser.take(script, self.local)
        self.identify(script.flow_id)
        self._advance()

    def _advance(self) -> None:
        """Walk the script as far as the received octets and the think times allow."""
        script = self.script
        if script is None:
            return
        messages = script.messages
        while not self._busy and not self.closed:
            if self._cursor >= len(messages):
                self._finish(script)
                return
            message = messages[self._cursor]
            if message.direction == REVERSE:
                self._desk.notes.offered += 1
                if message.gap_ns > 0:
                    self._busy = True
                    self._reactor.after(message.gap_ns, self._say, script.flow_id)
                    return
                self._desk.notes.sent += 1
                self._cursor += 1
                self.send(message.payload)
                continue
            end = self._boundary + len(message.payload)
            if self._received < end:
                return
            self._boundary = end
            self._cursor += 1

    def _say(self) -> None:
        self._busy = False
        script = self.script
        if script is None or self.closed:
            return
        self._desk.notes.sent += 1
        payload = script.messages[self._cursor].payload
        self._cursor += 1
        self.send(payload)
        self._advance()

    def _finish(self, script: FlowScript) -> None:
        if script.close == "rst_reverse":
            self._busy = True
            self.reset_when_heard()
        elif self.peer_closed or script.close == "fin_reverse":
            self.end_output()

    def reset_when_heard(self) -> None:
        """Reset once the peer has acknowledged everything: a reset would overtake it."""
        self._drain(self.abort, _DRAIN_STEPS)

    def _drain(self, then: Callable[[], None], steps: int) -> None:
        """Wait until the peer has acknowledged everything; a reset would overtake it."""
        if self.closed:
            return
        unsent = bytearray(4)
        fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, unsent)
        if steps and (self._out or any(unsent)):
            self._reactor.after(_DRAIN_STEP_NS, lambda: self._drain(then, steps - 1))
        else:
            then()

    def send(self, payload: bytes) -> None:
        """Send in order behind what has not left yet."""
        self.sent += len(payload)
        if not payload:
            return
        if self._out:
            self._out.append(memoryview(payload))
            return
        try:
            taken = self.sock.send(payload)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._lost()
            return
        if taken < len(payload):
            self._out.append(memoryview(payload)[taken:])
            self._await_room()

    def _await_room(self) -> None:
        if not self._events & WRITE:
            self._events |= WRITE
            self._reactor.change(self.sock, self._events)

    def _flush(self) -> None:
        while self._out:
            try:
                taken = self.sock.send(self._out[0])
            except BlockingIOError:
                self._await_room()
                return
            except OSError:
                self._lost()
                return
            if taken == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][taken:]
        if self._ending:
            self.end_output()

    def end_output(self) -> None:
        """Say no more, once everything has left; close when the peer says no more either."""
        self._ending = True
        if self._out or self.closed:
            return
        if self.peer_closed:
            self._close()
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._lost()

    def _on_end(self) -> None:
        self.peer_closed = True
        unused = self.script is not None and self._cursor == 0 and self._received == 0
        if unused or self._ignoring or (self.script is None and self._http is None):
            self._lost()
            return
        waits = self._http.waits if self._http is not None else self._busy
        if waits or self._out:
            self._ending = not waits
            return
        self._close()

    def _lost(self) -> None:
        """The peer is gone. If the flow was only guessed and never spoke, it is still to come."""
        script = self.script
        guessed = script is not None and self._received == 0 and self.peer != script.source
        if guessed:
            self.script = None
        self._close()
        if script is not None and guessed and self._desk.recogniser.release(script):
            self._desk.notes.accepted.pop(self.number, None)
            self._desk.retry_unknown()

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        script = self.script
        if script is not None:
            notes = self._desk.notes
            again, _ = tcp_info(self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_ROOM))
            notes.walked.append(Walked(SERVER, self.number, script, self._cursor))
            notes.arrived(script.flow_id, self._received)
            notes.retransmits[self.number] = again
        self._reactor.close(self.sock)
        self._desk.drop(self)


def plain(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """A socket's name without what only IPv6 sockets say."""
    return name[0].removeprefix("::ffff:"), name[1]
