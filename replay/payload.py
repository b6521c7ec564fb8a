"""Payload bytes, and what they say about the application. Knows first words and ports, no packet and no network.

Recognised by content: HTTP/1 requests (RFC 9112) and their Host, TLS ClientHello (RFC 8446, 6066) and its
server name, DNS queries (RFC 1035) and their name, Redis RESP, PostgreSQL start-up, SSH banners. A port alone
is believed only without content.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np

from replay.columns import TCP, UDP, Int64
from replay.spool import Kept, Spool

_PORTS = {80: "http", 8080: "http", 443: "tls", 8443: "tls", 53: "dns", 6379: "redis", 5432: "postgres", 22: "ssh"}
_UDP_PORTS = {53: "dns", 5353: "dns", 5355: "dns"}
DATAGRAM_PORTS = tuple(_UDP_PORTS)
"""The UDP ports whose words are understood."""
SPOKEN_PORTS = tuple(port for port, name in _PORTS.items() if name in ("dns", "redis"))
"""The TCP ports at which words of any kind may mean something."""
_REQUEST_LINE = re.compile(rb"[A-Z]{3,16} [^ \r\n]{1,8192} HTTP/1\.[01]\r?\n")
_WORD = re.compile(rb"[A-Za-z]{1,16}(?:[ \r]|$)")
_HOST = re.compile(rb"\r?\nhost:[ \t]*([^\r\n]{1,255}?)[ \t]*(?:\r?\n|$)", re.IGNORECASE)
_RESP_ARRAY = re.compile(rb"\*\d{1,7}\r\n\$\d{1,9}\r\n")
_RESP_INLINE = re.compile(rb"(?:PING|INFO|QUIT|AUTH|SELECT|HELLO|GET|SET)\b[^\r\n]{0,1024}\r\n", re.IGNORECASE)
_POSTGRES_REQUESTS = (196608, 196610, 80877102, 80877103, 80877104)
_CLIENT_HELLO, _HANDSHAKE_RECORD, _SERVER_NAME = 1, 22, 0
_LONGEST_HEAD, _DNS_HEADER_OCTETS = 16_384, 12
_EXTENSION = struct.Struct(">HH").unpack_from
_PLAIN = re.compile(rb"[!-~]*")


class PayloadStore(Sequence[bytes]):
    """Message payloads by reference (`payloads[ref]`), joined from where they are kept when asked for."""

    def __init__(self, kept: Kept, at: Int64, octets: Int64, start: Int64) -> None:
        self._kept = kept
        self._at = at
        self._octets = octets
        self._start = start

    @classmethod
    def of(cls, payloads: Iterable[bytes]) -> PayloadStore:
        """A store of payloads that are at hand as bytes."""
        kept = list(payloads)
        sizes = np.array([len(payload) for payload in kept], dtype=np.int64)
        spool = Spool()
        begin = spool.add(np.frombuffer(b"".join(kept), dtype=np.uint8))
        at = begin + np.cumsum(sizes) - sizes
        return cls(spool.kept(at), at, sizes, np.arange(len(kept) + 1, dtype=np.int64))

    @classmethod
    def joined(cls, stores: Sequence[PayloadStore]) -> PayloadStore:
        """The payloads of all, one store's after the other's."""
        begins = np.cumsum([0] + [len(store._at) for store in stores])
        starts = [store._start[:-1] + begin for store, begin in zip(stores, begins.tolist(), strict=False)]
        return cls(
            Kept.joined([store._kept for store in stores]),
            np.concatenate([store._at for store in stores]),
            np.concatenate([store._octets for store in stores]),
            np.concatenate([*starts, begins[-1:]]).astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self._start) - 1

    @overload
    def __getitem__(self, ref: int) -> bytes: ...
    @overload
    def __getitem__(self, ref: slice) -> list[bytes]: ...
    def __getitem__(self, ref: int | slice) -> bytes | list[bytes]:
        if isinstance(ref, slice):
            return [self[at] for at in range(*ref.indices(len(self)))]
        if not 0 <= ref < len(self):
            raise IndexError(f"payload {ref} of {len(self)}")
        pieces = range(int(self._start[ref]), int(self._start[ref + 1]))
        return b"".join(self._kept.read(int(self._at[at]), int(self._octets[at])) for at in pieces)

    def __iter__(self) -> Iterator[bytes]:
        return (self[ref] for ref in range(len(self)))


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a flow speaks ('' when unknown) and whom it asks for: HTTP Host, TLS server name or DNS name, lower-case."""

    application: str
    label: str = ""


def recognised(protocol: int, port: int, forward: bytes | None, reverse: bytes | None) -> Recognition:
    """What the first words of the initiator and of the responder say; None stands for words that were not captured."""
    asked = None if forward is None else said_by_initiator(protocol, port, forward)
    answered = None if reverse is None else said_by_responder(protocol, port, reverse)
    return agreed(protocol, port, asked, answered, heard=forward is not None)


def agreed(
    protocol: int, port: int, asked: Recognition | None, answered: Recognition | None, *, heard: bool
) -> Recognition:
    """What both sides' words together say; without the initiator's (not heard) the port is believed."""
    certain = asked and (asked.label or asked.application in ("http", "tls"))
    found = asked if certain or not answered else answered
    return found or Recognition("" if heard else port_application(protocol, port))


def port_application(protocol: int, port: int) -> str:
    """What a well-known port is usually for, or ''."""
    return {TCP: _PORTS, UDP: _UDP_PORTS}.get(protocol, {}).get(port, "")


def said_by_initiator(protocol: int, port: int, words: bytes | bytearray) -> Recognition | None:
    """What a flow speaks whose initiator begins with these words; None when they say nothing."""
    words = bytes(words[:_LONGEST_HEAD])
    if protocol == UDP and port in _UDP_PORTS:
        name = dns_name(words)
        return None if name is None else Recognition("dns", name)
    return _tcp(port, words) if protocol == TCP else None


def said_by_responder(protocol: int, port: int, words: bytes | bytearray) -> Recognition | None:
    """What a flow speaks whose responder, at this port, begins with these words; None when they say nothing."""
    if protocol == UDP:
        return said_by_initiator(protocol, port, words)
    return Recognition("ssh") if protocol == TCP and words.startswith(b"SSH-") else None


def unfinished(protocol: int, port: int, words: bytes | bytearray) -> bool:
    """Whether more words could change what these first ones say."""
    if protocol != TCP:
        return False
    if is_client_hello(words):
        return len(words) < 5 + int.from_bytes(words[3:5], "big")
    if words[:1].isalpha() and not words.startswith(b"SSH-"):
        asks = _WORD.match(words) if b"\n" not in words else _REQUEST_LINE.match(words)
        return asks is not None and b"\r\n\r\n" not in words
    return len(words) < (64 if _PORTS.get(port) != "dns" else 2 + int.from_bytes(words[:2], "big"))


def _tcp(port: int, forward: bytes) -> Recognition | None:
    if _REQUEST_LINE.match(forward):
        return Recognition("http", http_host(forward))
    if is_client_hello(forward):
        return Recognition("tls", server_name(forward))
    if forward.startswith(b"SSH-"):
        return Recognition("ssh")
    if _RESP_ARRAY.match(forward) or (_PORTS.get(port) == "redis" and _RESP_INLINE.match(forward)):
        return Recognition("redis")
    if _is_postgres_start(forward):
        return Recognition("postgres")
    if _PORTS.get(port) == "dns" and len(forward) > 2:
        name = dns_name(forward[2:])
        if name is not None:
            return Recognition("dns", name)
    return None


def _is_postgres_start(payload: bytes) -> bool:
    length, request = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
    return len(payload) >= 8 and 8 <= length <= 10_000 and request in _POSTGRES_REQUESTS


def http_host(request: bytes) -> str:
    """The Host of an HTTP/1 request, without port, or ''."""
    head = request.partition(b"\r\n\r\n")[0]
    found = _HOST.search(head)
    if not found:
        return ""
    host = found[1].decode("latin-1").lower()
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::\d*)?", host)
    return bracketed[1] if bracketed else re.sub(r":\d*$", "", host)


def is_client_hello(payload: bytes | bytearray) -> bool:
    """Whether a TLS handshake record with a ClientHello begins here."""
    return len(payload) >= 6 and payload[0] == _HANDSHAKE_RECORD and payload[1] == 3 and payload[5] == _CLIENT_HELLO


def server_name(payload: bytes) -> str:
    """The server name that a ClientHello asks for, or '' when it has none or its bytes are not a ClientHello's."""
    hello = _handshake(payload)
    at = 4 + 2 + 32
    for width in (1, 2, 1):  # session, cipher suites, compression methods
        at += width + int.from_bytes(hello[at : at + width], "big")
    until = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    extensions, at = hello[at + 2 : until], 0
    while at + 4 <= len(extensions):
        kind, octets = _EXTENSION(extensions, at)
        if kind == _SERVER_NAME:
            body = extensions[at + 4 : at + 4 + octets]
            return _text(body[5 : 5 + int.from_bytes(body[3:5], "big")]) if body[2:3] in (b"\0", b"") else ""
        at += 4 + octets
    return ""


def _handshake(payload: bytes) -> bytes:
    """The handshake bytes of consecutive handshake records."""
    at, parts = 0, []
    while at + 5 < len(payload) and payload[at] == _HANDSHAKE_RECORD:
        octets = int.from_bytes(payload[at + 3 : at + 5], "big")
        parts.append(payload[at + 5 : at + 5 + octets])
        at += 5 + octets
    return parts[0] if len(parts) == 1 else b"".join(parts)


def dns_name(message: bytes) -> str | None:
    """The first question's name of a DNS message, lower-case without the last dot; None when this is no DNS message."""
    if len(message) < _DNS_HEADER_OCTETS + 4 or (message[2] >> 3) & 0xF > 6:
        return None
    if not 1 <= int.from_bytes(message[4:6], "big") <= 32:
        return None
    at, end, length = _DNS_HEADER_OCTETS, len(message), 0
    labels: list[bytes] = []
    while at < end and (size := message[at]):
        if size > 63 or at + 1 + size > end or length > 255:
            return None
        labels.append(message[at + 1 : at + 1 + size])
        at, length = at + 1 + size, length + size
    return None if at + 1 + 4 > end else _text(b".".join(labels))


@lru_cache(maxsize=8192)
def _text(name: bytes) -> str:
    if _PLAIN.fullmatch(name[:255]):
        return name[:255].decode("ascii").lower()
    return "".join(chr(octet) if 33 <= octet <= 126 else f"\\{octet:03d}" for octet in name[:255]).lower()
