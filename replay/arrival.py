"""One accepted TCP connection on the server side: find out which flow it is, then answer as captured.

Sends only what a script says or what a health check wants. Several flows' HTTP requests may arrive
on one connection, and one flow's on several: a proxy decides that.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from replay.http_framing import Framed, MessageReader, NotHttp, response_head
from replay.observed import SERVER, Accepted, Transfer
from replay.reactor import READ, WRITE
from replay.responder import Endpoint, Recognition, courtesy, courtesy_response
from replay.schedule import FORWARD, REVERSE, TCP, FlowScript

if TYPE_CHECKING:
    from replay.servers import Servers

_READ_OCTETS = 262_144
_READS_AT_ONCE = 8
_UNKNOWN_LIMIT_OCTETS = 65_536
_DRAIN_STEP_NS = 1_000_000
_DRAIN_STEPS = 500
_SILENCE_NS = 5_000_000
_ABORT = struct.pack("ii", 1, 0)


class ServerConnection:
    """One accepted TCP connection: unknown, then one flow's, or a stream of HTTP requests."""

    def __init__(self, servers: Servers, sock: socket.socket, node: str) -> None:
        self._servers = servers
        self._sock = sock
        self._node = node
        self._local = _plain(sock.getsockname())
        self._peer = _plain(sock.getpeername())
        self.number = servers.number()
        self.script: FlowScript | None = None
        self._reader: MessageReader | None = None
        self._said = bytearray()
        self._ignoring = False
        self._received = 0
        self._sent = 0
        self._boundary = 0
        self._cursor = 0
        self._http_base = 0
        self._requests: deque[Framed] = deque()
        self._busy = False
        self._peer_closed = False
        self._ending = False
        self._out: deque[memoryview] = deque()
        self._writing = False
        self._accepted_ns = time.time_ns()
        self._closed = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        servers.add(self)
        servers.reactor.watch(sock, READ, self._on_event)
        self._identify("")
        self._on_readable()
        if self._closed:
            return
        recogniser = servers.recogniser
        script = recogniser.by_source(TCP, self._peer, self._local)
        if script is None and not self._said and self._reader is None and self.script is None:
            script = recogniser.by_order(TCP, self._local, self._peer, sure=True)
            if script is None:
                servers.reactor.after(_SILENCE_NS, self.recognise_again)
        if script is not None and self.script is None and not script.tagged:
            self._adopt(script)

    def rebase(self) -> None:
        """Count this connection's streams from now on."""
        self._received = self._sent = 0
        if self._reader is not None:
            self._http_base = self._reader.offset
        self._identify("")

    def abort(self) -> None:
        """Close with a reset, which also ends the state that middle boxes keep."""
        if not self._closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._close()

    def recognise_again(self) -> None:
        """Look again at bytes that no flow explained before."""
        if self.script is None and self._reader is None and self._said and not self._closed:
            self._ignoring = False
            self._recognise()
        elif self.script is None and self._reader is None and not self._closed:
            script = self._servers.recogniser.by_order(TCP, self._local, self._peer, sure=False)
            if script is not None:
                self._adopt(script)

    def _identify(self, flow_id: str) -> None:
        self._servers.notes.accepted[self.number] = Accepted(
            self.number, self._node, TCP, *self._local, *self._peer, self._accepted_ns, flow_id
        )

    def _on_event(self, events: int) -> None:
        if self._closed:
            return
        if events & WRITE:
            self._flush()
        if events & ~WRITE and not self._closed:
            self._on_readable()

    def _on_readable(self) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data = self._sock.recv(_READ_OCTETS)
            except BlockingIOError:
                return
            except OSError:
                self._lost()
                return
            if not data:
                self._on_end()
                return
            self._received += len(data)
            self._on_data(data)
            if self._closed or len(data) < _READ_OCTETS // 4:
                return

    def _on_data(self, data: bytes) -> None:
        if self.script is not None:
            self._servers.count(self.script, len(data))
            self._advance()
        elif self._reader is not None:
            self._on_http(data)
        elif len(self._said) < _UNKNOWN_LIMIT_OCTETS:
            self._said += data
            if not self._ignoring:
                self._recognise()

    def _recognise(self) -> None:
        recogniser = self._servers.recogniser
        found = recogniser.by_source(TCP, self._peer, self._local)
        if found is not None and not found.tagged:
            self._adopt(found)
            return
        recognised = recogniser.by_content(TCP, bytes(self._said), self._local, self._peer)
        if isinstance(recognised, FlowScript):
            self._adopt(recognised)
        elif recognised is Recognition.HTTP:
            self._reader = MessageReader(responses=False)
            said, self._said = bytes(self._said), bytearray()
            self._on_http(said)
        elif recognised is Recognition.UNKNOWN:
            self._ignoring = True
            answer = courtesy(bytes(self._said))
            if answer:
                self._send(answer)

    def _adopt(self, script: FlowScript) -> None:
        self.script = script
        self._servers.recogniser.take(script, self._local)
        self._identify(script.flow_id)
        if self._said:
            self._servers.count(script, len(self._said))
        self._advance()

    def _advance(self) -> None:
        """Walk the script as far as the received octets and the think times allow."""
        script = self.script
        while script is not None and not self._busy and not self._closed:
            if self._cursor >= len(script.messages):
                self._finish(script)
                return
            message = script.messages[self._cursor]
            end = self._boundary + len(message.payload)
            if message.direction == REVERSE:
                if message.gap_ns > 0:
                    self._busy = True
                    self._say_later(script, self._cursor, message.gap_ns, self._said_later)
                    return
                self._servers.notes.offered += 1
                self._servers.notes.sent += 1
                self._say(script, self._cursor)
                continue
            if self._received < end:
                return
            self._note(script, self._cursor, FORWARD, self._boundary, end)
            self._boundary = end
            self._cursor += 1

    def _say_later(
        self, script: FlowScript, sequence: int, gap_ns: int, then: Callable[[FlowScript, int], None]
    ) -> None:
        self._servers.notes.offered += 1

        def say() -> None:
            if self._closed:
                return
            self._servers.notes.sent += 1
            then(script, sequence)

        if gap_ns <= 0:
            say()
        else:
            self._servers.reactor.after(gap_ns, say, script.flow_id)

    def _said_later(self, script: FlowScript, sequence: int) -> None:
        self._busy = False
        self._say(script, sequence)
        self._advance()

    def _say(self, script: FlowScript, sequence: int) -> None:
        payload = script.messages[sequence].payload
        self._note(script, sequence, REVERSE, self._sent, self._sent + len(payload))
        self._cursor = sequence + 1
        self._send(payload)

    def _note(self, script: FlowScript, sequence: int, direction: int, start: int, end: int) -> None:
        self._servers.note(Transfer(SERVER, self.number, script.flow_id, sequence, direction, start, end, -1))

    def _finish(self, script: FlowScript) -> None:
        if script.close == "rst_reverse":
            self._busy = True
            self._drain(self.abort, _DRAIN_STEPS)
        elif self._peer_closed or script.close == "fin_reverse":
            self._end_output()

    def _drain(self, then: Callable[[], None], steps: int) -> None:
        """Wait until the peer has acknowledged everything; a reset would overtake it."""
        if self._closed:
            return
        unsent = bytearray(4)
        fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, unsent)
        if steps and (self._out or any(unsent)):
            self._servers.reactor.after(_DRAIN_STEP_NS, lambda: self._drain(then, steps - 1))
        else:
            then()

    def _on_http(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            return
        try:
            self._requests += reader.feed(data)
        except NotHttp:
            self.abort()
            return
        self._serve()

    def _serve(self) -> None:
        """Answer the requests one at a time, in order."""
        while self._requests and not self._busy and not self._closed:
            framed = self._requests.popleft()
            found = self._servers.recogniser.by_tag(framed.head)
            if found is None:
                self._send(courtesy_response(framed.head))
                if framed.head.closes:
                    self._end_output()
                continue
            script, sequence = found
            start, end = framed.start - self._http_base, framed.end - self._http_base
            self._servers.recogniser.take(script, self._local)
            self._servers.count(script, end - start)
            self._note(script, sequence, FORWARD, start, end)
            if script.answer_to(sequence) < 0:
                continue
            self._busy = True
            self._answer(script, sequence + 1, sequence + 1, self._sent, framed)
        if self._peer_closed and not self._requests and not self._busy:
            self._end_output()

    def _answer(self, script: FlowScript, first: int, sequence: int, start: int, request: Framed) -> None:
        def said(_script: FlowScript, _sequence: int) -> None:
            self._send(script.messages[sequence].payload)
            if script.answer_to(sequence) > 0:
                self._answer(script, first, sequence + 1, start, request)
                return
            self._note(script, first, REVERSE, start, start + self._length(script, first))
            self._busy = False
            if self._closes_after(script, first, request):
                self._end_output()
            else:
                self._serve()

        self._say_later(script, sequence, script.messages[sequence].gap_ns, said)

    def _length(self, script: FlowScript, first: int) -> int:
        return sum(len(piece) for piece in _pieces(script, first))

    def _closes_after(self, script: FlowScript, first: int, request: Framed) -> bool:
        """Whether the response ends with the connection: announced, or framed by its close."""
        head = response_head(_pieces(script, first))
        if head is None:
            return False
        unframed = (
            request.head.method != b"HEAD"
            and head.status not in (204, 304)
            and head.value(b"content-length") is None
            and head.value(b"transfer-encoding") is None
        )
        if unframed:
            return True
        direct = self._peer == script.source
        if direct and script.close != "fin_reverse":
            return False
        return head.closes or request.head.closes

    def _send(self, payload: bytes) -> None:
        self._sent += len(payload)
        if payload:
            self._out.append(memoryview(payload))
        self._flush()

    def _flush(self) -> None:
        while self._out:
            try:
                taken = self._sock.send(self._out[0])
            except BlockingIOError:
                break
            except OSError:
                self._lost()
                return
            if taken == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][taken:]
        if bool(self._out) != self._writing:
            self._writing = bool(self._out)
            events = (0 if self._peer_closed else READ) | (WRITE if self._writing else 0)
            self._servers.reactor.change(self._sock, events)
        if not self._out and self._ending:
            self._end_output()

    def _end_output(self) -> None:
        self._ending = True
        if self._out or self._closed:
            return
        if self._peer_closed:
            self._close()
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._lost()

    def _on_end(self) -> None:
        self._peer_closed = True
        unused = self.script is not None and self._cursor == 0 and self._received == 0
        if unused or self._ignoring or (self.script is None and self._reader is None):
            self._lost()
            return
        if self._busy or self._requests or self._out:
            self._ending = not self._busy and not self._requests
            self._servers.reactor.change(self._sock, WRITE if self._writing else 0)
            return
        self._close()

    def _lost(self) -> None:
        """The peer is gone. If the flow was only guessed and never spoke, it is still to come."""
        script = self.script
        self._close()
        guessed = script is not None and self._received == 0 and self._peer != script.source
        if script is not None and guessed and self._servers.recogniser.release(script):
            self._servers.notes.accepted.pop(self.number, None)
            self._servers.retry_unknown()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._servers.reactor.forget(self._sock)
        self._sock.close()
        self._servers.drop(self)


def _pieces(script: FlowScript, first: int) -> Iterable[bytes]:
    for message in script.messages[first:]:
        if message.direction != REVERSE:
            return
        yield message.payload


def _plain(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return name[0].removeprefix("::ffff:"), name[1]
