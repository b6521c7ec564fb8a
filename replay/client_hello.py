"""What a captured TLS ClientHello offers: name, protocols, versions and cipher suites (RFC 8446 4.1.2, 6066, 7301).

Pure: bytes in, an offer out; malformed bytes offer nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from replay.payload import is_client_hello, server_name

VERSIONS = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_HANDSHAKE_RECORD, _CLIENT_HELLO = 22, 1
_ALPN, _SUPPORTED_VERSIONS = 16, 43
_RANDOM_OCTETS = 32


@dataclass(frozen=True, slots=True)
class TlsOffer:
    """What a client offers; empty tuples where it is not known, which means whatever the library offers.

    `versions` and `ciphers` are the registry's numbers (IANA TLS parameters), unknown and GREASE versions left out.
    """

    server_name: str = ""
    alpn: tuple[str, ...] = ()
    versions: tuple[int, ...] = ()
    ciphers: tuple[int, ...] = ()


def offer_in(payload: bytes) -> TlsOffer | None:
    """The offer of the ClientHello that these bytes begin with; None when they do not or it is cut short."""
    if not is_client_hello(payload):
        return None
    hello = _Reader(_handshake(payload))
    try:
        if hello.number(1) != _CLIENT_HELLO:
            return None
        body = _Reader(hello.vector(3))
        version = body.number(2)
        body.take(_RANDOM_OCTETS)
        body.vector(1)
        ciphers = tuple(_numbers(body.vector(2)))
        body.vector(1)
        extensions = dict(_extensions(body.vector(2))) if body.left else {}
        alpn = tuple(_names(extensions.get(_ALPN, b"\0\0")))
        offered = list(_numbers(_Reader(extensions.get(_SUPPORTED_VERSIONS, b"\0")).vector(1)))
    except ValueError:
        return None
    # before supported_versions there was one number, the greatest
    versions = offered or [known for known in VERSIONS if known <= version]
    return TlsOffer(server_name(payload), alpn, tuple(sorted(v for v in versions if v in VERSIONS)), ciphers)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, octets: int) -> bytes:
        if octets > self.left:
            raise ValueError("too short")
        self._at += octets
        return self._data[self._at - octets : self._at]

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets), "big")

    def vector(self, length_octets: int) -> bytes:
        return self.take(self.number(length_octets))


def _handshake(payload: bytes) -> bytes:
    """The handshake messages in the records that these bytes begin with."""
    said, at = bytearray(), 0
    while len(payload) >= at + 5 and payload[at] == _HANDSHAKE_RECORD:
        octets = int.from_bytes(payload[at + 3 : at + 5], "big")
        said += payload[at + 5 : at + 5 + octets]
        at += 5 + octets
    return bytes(said)


def _numbers(data: bytes) -> Iterator[int]:
    for at in range(0, len(data) - 1, 2):
        yield int.from_bytes(data[at : at + 2], "big")


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(data)
    while reader.left:
        yield reader.number(2), reader.vector(2)


def _names(data: bytes) -> Iterator[str]:
    reader = _Reader(_Reader(data).vector(2))
    while reader.left:
        yield reader.vector(1).decode("latin-1")
