"""The client side of a flow whose TLS a device of the lab ends: a handshake of its own, and HTTP inside it.

What is written down are octets on the wire, so that taps can tell when they passed. The first request counts from the
ClientHello: its response time has the handshake in it.
"""

from __future__ import annotations

from collections.abc import Callable

from replay.client_hello import TlsOffer
from replay.conversation import Stage, TcpConversation
from replay.http_conversation import HttpConversation
from replay.http_framing import NotHttp
from replay.observed import Attempt
from replay.schedule import FORWARD, REVERSE, FlowScript
from replay.tls_line import TlsClients, TlsFailed

TLS_ERROR = "tls_error"
"""The kpis table's word for a handshake that fails, an alert, or a certificate that is not to be trusted."""


def tls_conversation(clients: TlsClients) -> Callable[[Stage, FlowScript, Attempt], TlsConversation]:
    """What plays such flows, with these clients' contexts."""
    return lambda stage, script, attempt: TlsConversation(stage, script, attempt, clients)


class TlsConversation(HttpConversation):
    """One flow of HTTP requests inside TLS."""

    def __init__(self, stage: Stage, script: FlowScript, attempt: Attempt, clients: TlsClients) -> None:
        super().__init__(stage, script, attempt)
        self._clients = clients
        self._offer = script.tls or TlsOffer()
        self._line = clients.line(self._offer)
        self._hello_octets = 0

    def _on_connected(self) -> None:
        self.attempt.connected = True
        self._moved()
        try:
            self._line.begin()
        except TlsFailed:
            self._fail()
            return
        hello = self._line.pending()
        self._hello_octets = len(hello)
        self._send(hello)

    def _hear(self, octets: int) -> None:
        was_open = self._line.open
        try:
            for inside in self._line.hear(bytes(memoryview(self._reactor.buffer)[:octets])):
                self._on_inside(inside)
        except TlsFailed:
            self._fail()
            return
        if self._sock is None:
            return
        self._send(self._line.pending())
        if self._line.open and not was_open:
            if self._clients.distrusts(self._line, self._offer):
                self._fail()
                return
            self._advance()

    def _on_inside(self, inside: bytes) -> None:
        if self._sock is None:
            return
        try:
            framed = self._reader.feed(inside)
        except NotHttp:
            self._conclude("http_error")
            return
        for response in framed:
            if self._sock is not None:
                self._on_response(response)

    def _say(self, payload: bytes) -> None:
        if self._cursor == 0 or self.script.messages[self._cursor - 1].direction == REVERSE:
            self._reader.expect(payload.split(b" ", 1)[0])
        start = self.attempt.sent_octets
        try:
            sealed = self._line.seal(payload)
        except TlsFailed:
            self._fail()
            return
        if self._cursor == 0:
            super()._note(0, FORWARD, 0, self._hello_octets)
        else:
            super()._note(self._cursor, FORWARD, start, start + len(sealed))
        TcpConversation._say(self, sealed)

    def _note(self, sequence: int, direction: int, start: int, end: int) -> None:
        """A response, whose octets are known as they are inside."""
        super()._note(sequence, direction, *self._line.heard.on_wire(start, end))

    def _finish(self) -> None:
        if not self._done and self.script.close in ("fin_forward", "fin_reverse"):
            self._send(self._line.farewell())
        super()._finish()

    def _on_end(self) -> None:
        if not self._line.open and not self._done:
            self._conclude(TLS_ERROR)
            return
        super()._on_end()

    def _fail(self) -> None:
        """Tell the other side why, as far as TLS does, and end."""
        if self._sock is not None:
            self._send(self._line.pending())
        if self._sock is not None:
            self._conclude("" if self._done else TLS_ERROR)
