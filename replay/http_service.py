"""The server side of cleartext HTTP: requests that carry the shadow header are answered as captured, others politely.

Many flows' requests may come on one connection. It knows no socket: what it answers with is given to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from replay.desk import Desk
from replay.http_framing import Framed, MessageReader, NotHttp, response_head
from replay.observed import SERVER, Transfer
from replay.responder import Endpoint, courtesy_response
from replay.schedule import FORWARD, REVERSE, FlowScript


class Stream(Protocol):
    """The connection that requests come on."""

    @property
    def number(self) -> int:
        """The connection's number."""

    @property
    def local(self) -> Endpoint:
        """This end."""

    @property
    def peer(self) -> Endpoint:
        """The other end."""

    @property
    def sent(self) -> int:
        """Octets sent since the window began."""

    @property
    def closed(self) -> bool:
        """Whether it is over."""

    @property
    def peer_closed(self) -> bool:
        """Whether the other end says no more."""

    def span(self, direction: int, start: int, end: int) -> tuple[int, int]:
        """The octets on the wire that carry these of a message, from the window's start."""

    def send(self, payload: bytes) -> None:
        """Send in order."""

    def end_output(self) -> None:
        """Say no more, once everything has left."""

    def abort(self) -> None:
        """Reset."""

    def reset_when_heard(self) -> None:
        """Reset once the peer has everything."""


class HttpService:
    """Answers one connection's requests one at a time, in order."""

    def __init__(self, stream: Stream, desk: Desk) -> None:
        self._stream = stream
        self._desk = desk
        self._reader = MessageReader(responses=False)
        self._base = 0
        self._requests: deque[Framed] = deque()
        self._busy = False

    @property
    def waits(self) -> bool:
        """Whether there is something left to answer."""
        return self._busy or bool(self._requests)

    def rebase(self) -> int:
        """Count requests' octets from now on; returns how many there were."""
        self._base = self._reader.offset
        return self._base

    def hear(self, data: bytes) -> None:
        """Bytes of the client."""
        try:
            self._requests += self._reader.feed(data)
        except NotHttp:
            self._stream.abort()
            return
        self._serve()

    def _serve(self) -> None:
        stream = self._stream
        while self._requests and not self._busy and not stream.closed:
            framed = self._requests.popleft()
            found = self._desk.recogniser.by_tag(framed.head)
            if found is None:
                stream.send(courtesy_response(framed.head))
                if framed.head.closes:
                    stream.end_output()
                continue
            script, sequence = found
            start, end = framed.start - self._base, framed.end - self._base
            self._desk.recogniser.take(script, stream.local)
            self._desk.notes.arrived(script.flow_id, end - start)
            sequence = script.last_of_run(sequence)
            self._note(script, sequence, FORWARD, start, end)
            if script.answer_to(sequence) < 0:
                continue
            self._busy = True
            self._answer(script, sequence + 1, sequence + 1, stream.sent, framed)
        if stream.peer_closed and not self._requests and not self._busy:
            stream.end_output()

    def _answer(self, script: FlowScript, first: int, sequence: int, start: int, request: Framed) -> None:
        self._desk.notes.offered += 1

        def say() -> None:
            if self._stream.closed:
                return
            self._desk.notes.sent += 1
            self._stream.send(script.messages[sequence].payload)
            if script.answer_to(sequence) > 0:
                self._answer(script, first, sequence + 1, start, request)
                return
            length = sum(len(piece) for piece in _pieces(script, first))
            self._note(script, first, REVERSE, start, start + length)
            self._busy = False
            over = script.last_of_run(first) + 1 == len(script.messages)
            if over and script.close == "rst_reverse" and self._stream.peer == script.source:
                self._stream.reset_when_heard()
            elif self._closes_after(script, first, request):
                self._stream.end_output()
            else:
                self._serve()

        gap_ns = script.messages[sequence].gap_ns
        if gap_ns <= 0:
            say()
        else:
            self._desk.reactor.after(gap_ns, say, script.flow_id)

    def _note(self, script: FlowScript, sequence: int, direction: int, start: int, end: int) -> None:
        start, end = self._stream.span(direction, start, end)
        self._desk.notes.transfers.append(
            Transfer(SERVER, self._stream.number, script.flow_id, sequence, direction, start, end, -1)
        )

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
        if self._stream.peer == script.source:
            # nobody is between us and the client: the captured close is this connection's own
            return script.close == "fin_reverse" and script.last_of_run(first) + 1 == len(script.messages)
        return head.closes or request.head.closes


def _pieces(script: FlowScript, first: int) -> Iterable[bytes]:
    for message in script.messages[first:]:
        if message.direction != REVERSE:
            return
        yield message.payload
