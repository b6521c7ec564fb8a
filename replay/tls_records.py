"""How much plaintext a captured TLS conversation carried, by its records' lengths (RFC 8446 5, RFC 5246 6.2).

Pure, and without any key: what is no handshake is counted by what its cipher adds. TLS 1.3 hides its handshake in
records of application data: the server's before the client's first such record, and that record itself (Finished),
are not counted; session tickets are, because nothing tells them from an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from replay.schedule import FORWARD, REVERSE, Message

APPLICATION_DATA, HANDSHAKE = 23, 22
_TYPES = range(20, 25)
_RECORD_HEADER_OCTETS = 5
_LONGEST_RECORD_OCTETS = 18_432
_SERVER_HELLO = 2
_TLS_1_3 = 0x0304
_SUPPORTED_VERSIONS = 43
_ADDED_1_3, _ADDED_CHACHA, _ADDED_GCM = 17, 16, 24
_CHACHA = range(0xCCA8, 0xCCAF)
_ALERT_OCTETS = 2


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said in one message: so many octets of plaintext, after that much think time."""

    direction: int
    gap_ns: int
    octets: int


def turns(messages: Sequence[Message]) -> list[Turn] | None:
    """The plaintext of every message that has any, in order; None when these are no TLS records."""
    streams = (_Stream(), _Stream())
    found: list[Turn] = []
    gap_ns = 0
    finished = False
    for message in messages:
        stream = streams[message.direction]
        records = stream.cut(message.payload)
        if records is None:
            return None
        server = streams[REVERSE]
        octets = 0
        for size in records:
            if server.is_1_3 and not finished:
                # everything up to the client's Finished is handshake
                finished = message.direction == FORWARD
                continue
            octets += max(size - server.added, 0)
        gap_ns += message.gap_ns
        if octets > _ALERT_OCTETS:
            found.append(Turn(message.direction, gap_ns, octets))
            gap_ns = 0
    return found


@dataclass(slots=True)
class _Stream:
    """One direction: what is left of a record that goes on in the next message, and what a ServerHello chose."""

    rest: bytearray = field(default_factory=bytearray)
    is_1_3: bool = False
    added: int = _ADDED_GCM

    def cut(self, payload: bytes) -> list[int] | None:
        """The lengths of the application data records that end here; None where no record can begin."""
        self.rest += payload
        sizes: list[int] = []
        at = 0
        while len(self.rest) - at >= _RECORD_HEADER_OCTETS:
            kind, size = self.rest[at], int.from_bytes(self.rest[at + 3 : at + 5], "big")
            if kind not in _TYPES or self.rest[at + 1] != 3 or size > _LONGEST_RECORD_OCTETS:
                return None
            if len(self.rest) - at < _RECORD_HEADER_OCTETS + size:
                break
            body = bytes(self.rest[at + _RECORD_HEADER_OCTETS : at + _RECORD_HEADER_OCTETS + size])
            at += _RECORD_HEADER_OCTETS + size
            if kind == APPLICATION_DATA:
                sizes.append(size)
            elif kind == HANDSHAKE and body[:1] == bytes([_SERVER_HELLO]):
                self._chosen(body)
        del self.rest[:at]
        return sizes

    def _chosen(self, hello: bytes) -> None:
        """What a ServerHello says of version and cipher (RFC 8446 4.1.3)."""
        session = 38
        if len(hello) <= session:
            return
        at = session + 1 + hello[session]
        cipher = int.from_bytes(hello[at : at + 2], "big")
        at += 3
        until = at + 2 + int.from_bytes(hello[at : at + 2], "big")
        at += 2
        while at + 4 <= min(until, len(hello)):
            kind, size = (int.from_bytes(hello[at + n : at + n + 2], "big") for n in (0, 2))
            if kind == _SUPPORTED_VERSIONS and int.from_bytes(hello[at + 4 : at + 6], "big") == _TLS_1_3:
                self.is_1_3 = True
            at += 4 + size
        self.added = _ADDED_1_3 if self.is_1_3 else _ADDED_CHACHA if cipher in _CHACHA else _ADDED_GCM
