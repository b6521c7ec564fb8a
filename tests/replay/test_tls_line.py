"""Both ends of TLS in memory: what is trusted, what is offered, and which octets on the wire carry what."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from replay.client_hello import TlsOffer, offer_in
from replay.tls_line import TlsClients, TlsFailed, TlsLine, Trust, is_for
from tests.replay.tls_handshakes import Certificate, certificate

NAME = "shop.example"


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"), NAME)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"), "other.example")


def server(identity: Certificate, least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> TlsLine:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.path)
    context.minimum_version = least
    return TlsLine(context, server_side=True)


def shaken(near: TlsLine, far: TlsLine) -> bytes:
    """Make the handshake; the first flight."""
    near.begin()
    first = said = near.pending()
    for _ in range(4):
        list(far.hear(said))
        list(near.hear(far.pending()))
        said = near.pending()
    return first


def trusting(identity: Certificate) -> TlsClients:
    return TlsClients(Trust((identity.certificate,)))


def test_octets_inside_are_found_on_the_wire(own) -> None:
    near, far = trusting(own).line(TlsOffer(NAME)), server(own)
    shaken(near, far)
    assert near.open
    wire = far.seal(b"a" * 100) + far.seal(b"b" * 20_000) + far.seal(b"c" * 50)
    got = b"".join(inside for at in range(0, len(wire), 700) for inside in near.hear(wire[at : at + 700]))
    assert got == b"a" * 100 + b"b" * 20_000 + b"c" * 50
    for start, end in ((0, 100), (100, 20_100), (20_100, 20_150), (50, 20_120)):
        assert near.heard.on_wire(start, end) == far.said.on_wire(start, end)
    first, last = far.said.on_wire(20_100, 20_150)
    assert 50 < last - first < 100


def test_a_certificate_that_nobody_knows_is_not_trusted(own, other) -> None:
    near, far = trusting(own).line(TlsOffer(NAME)), server(other)
    with pytest.raises(TlsFailed, match="CERTIFICATE_VERIFY_FAILED"):
        shaken(near, far)
    assert near.pending(), "the alert that tells the server why"


def test_a_certificate_for_another_name_is_distrusted_unless_its_authority_made_stand_ins(own, other) -> None:
    clients = trusting(other)
    offer = TlsOffer(NAME)
    near, far = clients.line(offer), server(other)
    shaken(near, far)
    assert clients.distrusts(near, offer)
    assert not clients.distrusts(near, TlsOffer(""))
    lenient = TlsClients(Trust((), other.certificate))
    near, far = lenient.line(offer), server(other)
    shaken(near, far)
    assert not lenient.distrusts(near, offer)


def test_a_client_offers_what_was_captured_and_no_more(own) -> None:
    old = TlsOffer(NAME, ("h2", "http/1.1"), (0x0301, 0x0303), (0xC02F, 0xC030, 0x1A1A))
    near = trusting(own).line(old)
    near.begin()
    again = offer_in(near.pending())
    assert again is not None
    assert (again.server_name, again.alpn) == (NAME, ("http/1.1",))
    assert again.versions[-1] == 0x0303
    assert {0xC02F, 0xC030} == set(again.ciphers) - {0x00FF}
    with pytest.raises(TlsFailed):
        shaken(trusting(own).line(old), server(own, ssl.TLSVersion.TLSv1_3))


@pytest.mark.parametrize(
    ("names", "good"),
    [
        (("shop.example",), True),
        (("*.example",), True),
        (("SHOP.EXAMPLE",), True),
        (("*.shop.example",), False),
        (("example",), False),
        ((), False),
    ],
)
def test_names_are_compared_as_rfc_6125_says(names, good) -> None:
    assert is_for({"subjectAltName": tuple(("DNS", name) for name in names)}, NAME) is good


def test_a_file_without_a_good_certificate_adds_no_trust(own, tmp_path: Path) -> None:
    broken = own.certificate.replace("A", "B")
    TlsClients(Trust((broken,))).line(TlsOffer(NAME))
