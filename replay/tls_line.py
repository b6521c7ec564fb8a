"""TLS without a socket: what goes in and out of one end of a line, and which octets on the wire carry which inside.

Knows no flow. Contexts are made before traffic runs, because reading certificates takes longer than a packet.
"""

from __future__ import annotations

import ssl
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from replay.client_hello import VERSIONS, TlsOffer

_RECORD_HEADER_OCTETS = 5
_READ_OCTETS = 65_536
_HTTP = ("http/1.1", "http/1.0")
_WEAK = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
_LIBRARY_VERSIONS = {
    0x0301: ssl.TLSVersion.TLSv1,
    0x0302: ssl.TLSVersion.TLSv1_1,
    0x0303: ssl.TLSVersion.TLSv1_2,
    0x0304: ssl.TLSVersion.TLSv1_3,
}
_STRICT = getattr(ssl, "VERIFY_X509_STRICT", 0)


class TlsFailed(Exception):
    """The handshake failed, an alert came, or a certificate is not to be trusted; says why."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What clients trust, as PEM: `anchors` and, of certificates that any name may have, their `any_name` authority.

    `identities` are the chains with keys that services at (node, port) show to whoever speaks TLS to them.
    """

    anchors: tuple[str, ...] = ()
    any_name: str = ""
    identities: Mapping[tuple[str, int], str] = field(default_factory=dict, hash=False)


@dataclass(slots=True)
class Spans:
    """Which octets on the wire carry which octets inside, one way."""

    inside: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    total: int = 0

    def add(self, octets: int, begin: int, end: int) -> None:
        """The next octets inside came within these on the wire."""
        if octets:
            self.total += octets
            self.inside.append(self.total)
            self.begins.append(begin)
            self.ends.append(end)

    def on_wire(self, start: int, end: int) -> tuple[int, int]:
        """The octets on the wire that carry [start, end) inside."""
        first = min(bisect_right(self.inside, start), len(self.inside) - 1)
        last = min(bisect_left(self.inside, end), len(self.inside) - 1)
        return self.begins[first], self.ends[last]


class TlsLine:
    """One end of a TLS connection; all methods raise TlsFailed."""

    def __init__(self, context: ssl.SSLContext, server_name: str = "", *, server_side: bool = False) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side or not server_name else server_name
        self._line = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=name)
        self._rest = bytearray()
        self.open = False
        self.heard = Spans()
        self.said = Spans()
        self.read_octets = 0
        self.sent_octets = 0

    @property
    def certificate(self) -> dict[str, object]:
        """The peer's certificate, once it was verified."""
        return dict(self._line.getpeercert() or {})

    def pending(self) -> bytes:
        """What is to be put on the wire."""
        said = self._outgoing.read()
        self.sent_octets += len(said)
        return said

    def begin(self) -> None:
        """Go on with the handshake as far as what has come allows."""
        if self.open:
            return
        try:
            self._line.do_handshake()
        except ssl.SSLWantReadError:
            return
        except (ssl.SSLError, ValueError) as problem:
            raise TlsFailed(str(problem)) from None
        self.open = True

    def seal(self, data: bytes) -> bytes:
        """The records that carry these octets."""
        before = self.sent_octets
        try:
            self._line.write(data)
        except ssl.SSLError as problem:
            raise TlsFailed(str(problem)) from None
        sealed = self.pending()
        self.said.add(len(data), before, self.sent_octets)
        return sealed

    def farewell(self) -> bytes:
        """The alert that says that this end says no more (close_notify)."""
        with suppress(ssl.SSLError, ValueError):
            self._line.unwrap()
        return self.pending()

    def hear(self, data: bytes) -> Iterator[bytes]:
        """What comes inside, record by record; the handshake is gone on with."""
        self._rest += data
        while len(self._rest) >= _RECORD_HEADER_OCTETS:
            size = _RECORD_HEADER_OCTETS + int.from_bytes(self._rest[3:5], "big")
            if len(self._rest) < size:
                return
            self._incoming.write(bytes(self._rest[:size]))
            del self._rest[:size]
            before = self.read_octets
            self.read_octets += size
            self.begin()
            if self.open:
                inside = self._inside()
                self.heard.add(len(inside), before, self.read_octets)
                if inside:
                    yield inside

    def _inside(self) -> bytes:
        parts: list[bytes] = []
        while True:
            try:
                part = self._line.read(_READ_OCTETS)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return b"".join(parts)
            except ssl.SSLError as problem:
                raise TlsFailed(str(problem)) from None
            if not part:
                return b"".join(parts)
            parts.append(part)


class TlsClients:
    """The contexts of clients, one for every offer; a client trusts what clients trusted before the change."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._contexts: dict[TlsOffer, ssl.SSLContext] = {}
        self._any_name: object = None
        if trust.any_name:
            known = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            known.load_verify_locations(cadata=trust.any_name)
            self._any_name = known.get_ca_certs()[0]["subject"]

    def prepare(self, offers: Iterable[TlsOffer]) -> None:
        """Make the contexts of these offers."""
        for offer in offers:
            key = _without_name(offer)
            if key not in self._contexts:
                self._contexts[key] = self._context(key)

    def line(self, offer: TlsOffer) -> TlsLine:
        """A line that offers this."""
        self.prepare((offer,))
        return TlsLine(self._contexts[_without_name(offer)], offer.server_name)

    def distrusts(self, line: TlsLine, offer: TlsOffer) -> bool:
        """Whether a verified certificate is not for the name that was asked for."""
        certificate = line.certificate
        if not offer.server_name or (self._any_name is not None and certificate.get("issuer") == self._any_name):
            return False
        return not is_for(certificate, offer.server_name)

    def _context(self, offer: TlsOffer) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        # production's authorities need not be as strict as RFC 5280, and may be trusted without their roots
        context.verify_flags = (context.verify_flags & ~_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_default_certs()
        for anchor in (*self._trust.anchors, self._trust.any_name):
            if anchor:
                try:
                    context.load_verify_locations(cadata=anchor)
                except ssl.SSLError:
                    continue  # no certificate for this library: then it is trusted by nobody
        offer_as(context, offer)
        return context


def offer_as(context: ssl.SSLContext, offer: TlsOffer) -> None:
    """Offer captured versions, cipher suites and, of captured protocols, HTTP/1, as far as this library knows them."""
    versions = sorted(v for v in offer.versions if v in VERSIONS)
    if versions:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old clients offer old versions
            context.minimum_version = _LIBRARY_VERSIONS[versions[0]]
            context.maximum_version = _LIBRARY_VERSIONS[versions[-1]]
    if offer.ciphers:
        context.set_ciphers(_WEAK)
        known = {int(cipher["id"]) & 0xFFFF: str(cipher["name"]) for cipher in context.get_ciphers()}
        wanted = [known[number] for number in offer.ciphers if number in known and number >> 8 != 0x13]
        if wanted:
            context.set_ciphers(":".join([*wanted, "@SECLEVEL=0"]))
    protocols = [name for name in offer.alpn if name in _HTTP]
    if protocols:
        context.set_alpn_protocols(protocols)


def is_for(certificate: dict[str, object], name: str) -> bool:
    """Whether a certificate is good for a host name (RFC 6125: DNS names, one leftmost wildcard)."""
    alternatives = certificate.get("subjectAltName", ())
    if not isinstance(alternatives, tuple):
        return False
    wanted = name.lower().rstrip(".")
    for kind, value in alternatives:
        own = str(value).lower()
        if kind == "DNS" and (own == wanted or (own.startswith("*.") and wanted.partition(".")[2] == own[2:])):
            return True
    return False


def _without_name(offer: TlsOffer) -> TlsOffer:
    return TlsOffer("", offer.alpn, offer.versions, offer.ciphers)
