"""The server side of TLS that a proxy begins anew: HTTP answered inside a connection that speaks TLS.

It knows no socket. What is written down are octets on the wire since the window began, as everywhere.
"""

from __future__ import annotations

import os
import ssl

from replay.desk import Desk
from replay.http_service import HttpService, Stream
from replay.responder import Endpoint, courtesy
from replay.schedule import FORWARD
from replay.tls_line import TlsFailed, TlsLine

_PROTOCOLS = ("http/1.1",)


def server_context(identity: str) -> ssl.SSLContext:
    """A server that shows this certificate, whose chain and key are one PEM; raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    held = os.memfd_create("identity")
    try:
        os.write(held, identity.encode("ascii"))
        context.load_cert_chain(f"/proc/self/fd/{held}")
    finally:
        os.close(held)
    context.set_alpn_protocols(_PROTOCOLS)
    return context


class TlsService:
    """One connection's TLS with HTTP inside; to the HTTP service it is the connection."""

    def __init__(self, stream: Stream, desk: Desk, context: ssl.SSLContext, hello: bytes) -> None:
        self._stream = stream
        self._hello = hello
        self._line = TlsLine(context, server_side=True)
        self._http = HttpService(self, desk)
        self._bases = (0, 0)
        self._wire_bases = (0, 0)
        self.sent = 0

    @property
    def number(self) -> int:
        """The connection's."""
        return self._stream.number

    @property
    def local(self) -> Endpoint:
        """The connection's own end."""
        return self._stream.local

    @property
    def peer(self) -> Endpoint:
        """The proxy's end."""
        return self._stream.peer

    @property
    def closed(self) -> bool:
        """Whether the connection is."""
        return self._stream.closed

    @property
    def peer_closed(self) -> bool:
        """Whether the proxy says no more."""
        return self._stream.peer_closed

    @property
    def waits(self) -> bool:
        """Whether there is something left to answer."""
        return self._http.waits

    def rebase(self) -> int:
        """Count octets from now on; returns where requests inside begin."""
        base = self._http.rebase()
        self._bases = (base, self._line.said.total)
        self._wire_bases = (self._line.read_octets, self._line.sent_octets)
        self.sent = 0
        return base

    def span(self, direction: int, start: int, end: int) -> tuple[int, int]:
        """The octets on the wire that carry [start, end) inside."""
        spans = self._line.heard if direction == FORWARD else self._line.said
        which = int(direction != FORWARD)
        first, last = spans.on_wire(start + self._bases[which], end + self._bases[which])
        return first - self._wire_bases[which], last - self._wire_bases[which]

    def hear(self, data: bytes) -> None:
        """Records of the client."""
        try:
            for inside in self._line.hear(data):
                self._http.hear(inside)
        except TlsFailed:
            # a check that only looks for TLS takes an alert for an answer
            self._stream.send(self._line.pending() or courtesy(self._hello))
            self._stream.end_output()
            return
        if not self.closed:
            self._stream.send(self._line.pending())

    def send(self, payload: bytes) -> None:
        """Send in order."""
        try:
            sealed = self._line.seal(payload)
        except TlsFailed:
            self._stream.abort()
            return
        self.sent += len(payload)
        self._stream.send(sealed)

    def end_output(self) -> None:
        """Say no more, once everything has left."""
        self._stream.send(self._line.farewell())
        self._stream.end_output()

    def abort(self) -> None:
        """Reset."""
        self._stream.abort()

    def reset_when_heard(self) -> None:
        """Reset once the peer has everything."""
        self._stream.reset_when_heard()
