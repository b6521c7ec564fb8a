"""Applications are recognised by what was said, labels by whom it was said to; hostile bytes say nothing."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.all import DNS, DNSQR, DNSRR

from replay.meter import read_traffic
from replay.payload import PayloadStore, Recognition, dns_name, http_host, recognised, server_name
from tests.replay.capture_files import stored


def client_hello(name):
    """What a real TLS client says first."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("port", "words", "found"),
    [
        (
            8000,
            b"GET /a HTTP/1.1\r\nA: b\r\nhOsT:  Shop.Example:8080 \r\n\r\n",
            Recognition("http", "shop.example"),
        ),
        (80, b"GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n", Recognition("http", "2001:db8::1")),
        (80, b"OPTIONS * HTTP/1.0\r\n\r\nHost: body.example\r\n", Recognition("http")),
        (9999, client_hello("Checkout.Shop.example"), Recognition("tls", "checkout.shop.example")),
        (6379, b"PING\r\n", Recognition("redis")),
        (7000, b"*1\r\n$4\r\nPING\r\n", Recognition("redis")),
        (5432, b"\0\0\0\x08\x04\xd2\x16\x2f", Recognition("postgres")),
        (6000, b"\0\0\0\x14\0\x03\0\0user\0shop\0\0", Recognition("postgres")),
        (2222, b"SSH-2.0-OpenSSH_9.2\r\n", Recognition("ssh")),
        (53, b"\0\x1e" + bytes(DNS(qd=DNSQR(qname="Web.Shop.example"))), Recognition("dns", "web.shop.example")),
        (443, b"this is not TLS at all", Recognition("")),
        (443, None, Recognition("tls")),
        (9000, None, Recognition("")),
    ],
)
def test_tcp_is_recognised_by_its_first_words_and_by_port_only_without_them(port, words, found):
    assert recognised(6, port, words, None) == found


def test_a_dns_answer_tells_the_name_when_the_query_was_not_captured():
    answer = bytes(DNS(qr=1, qd=DNSQR(qname="a.example"), an=DNSRR(rrname="a.example", rdata="10.0.0.1")))
    assert recognised(17, 53, None, answer) == Recognition("dns", "a.example")


def test_a_server_that_speaks_first_is_recognised_by_its_banner():
    assert recognised(6, 2200, None, b"SSH-2.0-x\r\n") == Recognition("ssh")


@pytest.mark.parametrize("cut", [0, 5, 43, 60, 120])
def test_a_client_hello_cut_off_has_no_name_rather_than_a_wrong_one(cut):
    assert server_name(client_hello("checkout.shop.example")[:cut]) in ("", "checkout.shop.example")


def test_names_that_are_not_printable_are_escaped():
    assert dns_name(bytes.fromhex("0000 0100 0001 0000 0000 0000 0300ff0a 00 0001 0001")) == "\\000\\255\\010"


@given(st.binary(max_size=300))
def test_hostile_words_are_never_an_error(words):
    for prefix in (b"", b"\x16\x03\x01\x01\x00\x01", b"GET / HTTP/1.1\r\nHost:", b"\0\0\1\0\0\1\0\0\0\0\0\0"):
        for protocol, port in ((6, 443), (6, 53), (17, 53), (17, 9)):
            label = recognised(protocol, port, prefix + words, words).label
            assert label.isprintable() or label == http_host(prefix + words)
            assert len(label) <= 1100


def test_a_store_gives_back_each_payload_and_refuses_what_it_has_not():
    store = PayloadStore.of([b"one", b"", b"three"])
    assert list(store) == store[:] == [b"one", b"", b"three"]
    for ref in (-1, 3):
        with pytest.raises(IndexError):
            store[ref]


@pytest.mark.parametrize(
    ("name", "application", "label"),
    [
        ("443-curl.pcap", "tls", "www.ntop.org"),
        ("http_auth.pcap", "http", "browserspy.dk"),
        ("reddit.pcap", "tls", "www.reddit.com"),
        ("dns_fragmented.pcap", "dns", "weberlab.de"),
    ],
)
def test_public_captures_show_whom_they_asked(name, application, label):
    flows = read_traffic([stored(name)]).flows
    assert ((flows["application"] == application) & (flows["label"] == label)).any()
