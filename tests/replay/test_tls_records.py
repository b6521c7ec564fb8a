"""Captured TLS read without keys: what a client offered, how much either side said, and the HTTP that stands for it."""

from __future__ import annotations

import ssl
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.client_hello import offer_in
from replay.http_framing import one_request, one_response
from replay.schedule import FORWARD, REVERSE, FlowScript, Message, Schedule
from replay.synthesis import synthesised
from replay.tls_records import turns
from replay.tls_terminated import terminated
from tests.replay.scripts import MS, plan, script
from tests.replay.tls_handshakes import certificate, said

EXCHANGES = [(300, 5_000), (2_500, 40_000)]
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module", params=VERSIONS, ids=["1.2", "1.3"])
def wire(request, tmp_path_factory) -> list[tuple[int, bytes]]:
    own = certificate(tmp_path_factory.mktemp("tls"), "shop.example")
    return said(own, "shop.example", EXCHANGES, request.param)


def messages(wire: list[tuple[int, bytes]]) -> tuple[Message, ...]:
    return tuple(Message(direction, (place + 1) * MS, octets) for place, (direction, octets) in enumerate(wire))


def flow(wire: list[tuple[int, bytes]]) -> FlowScript:
    return replace(script("tls", ("10.0.0.2", 443)), messages=messages(wire), application="tls")


def inside(one: FlowScript) -> FlowScript:
    (ended,) = terminated(plan(one), lambda _address, _port: True).scripts
    return ended


def test_plaintext_is_counted_to_the_octet_but_for_session_tickets(wire) -> None:
    found = turns(messages(wire))
    assert found is not None
    asked = [turn.octets for turn in found if turn.direction == FORWARD]
    assert asked == [300, 2_500]
    answered = [turn.octets for turn in found if turn.direction == REVERSE]
    assert answered[-1] == 40_000
    assert sum(answered) - 45_000 in range(1_000), "tickets"


def test_a_client_hello_s_offer_is_read(wire) -> None:
    offer = offer_in(wire[0][1])
    assert offer is not None
    assert (offer.server_name, offer.alpn) == ("shop.example", ("h2", "http/1.1"))
    assert 0x0303 in offer.versions
    assert 0xC02F in offer.ciphers


def test_http_of_the_captured_size_stands_for_what_was_said(wire) -> None:
    ended = inside(flow(wire))
    assert ended.tagged
    assert [m.direction for m in ended.messages] == [FORWARD, REVERSE, FORWARD, REVERSE]
    assert [len(m.payload) for m in ended.messages[::2]] == [300, 2_500]
    assert len(ended.messages[3].payload) == 40_000
    for asked, answered in zip(ended.messages[::2], ended.messages[1::2], strict=True):
        head = one_request(asked.payload)
        assert head is not None
        assert head.value(b"host") == b"shop.example"
        assert one_response(answered.payload, head.method) is not None
    assert ended.messages[0].gap_ns == 0, "the handshake stands for it"
    assert ended.messages[3].gap_ns == len(wire) * MS


def test_sizes_alone_and_handshakes_alone_are_played_too() -> None:
    hello = synthesised(400, seed="tls:0", application="tls", label="shop.example", direction=0, first=True)
    unknown = [(FORWARD, hello), (REVERSE, b"\1" * 3_000), (FORWARD, b"\2" * 80), (FORWARD, b"\2" * 500)]
    ended = inside(flow([*unknown, (REVERSE, b"\3" * 9_000)]))
    assert ended.tls is not None
    assert (ended.tls.server_name, ended.tls.versions) == ("shop.example", ()), "nobody captured an offer"
    assert [m.direction for m in ended.messages] == [FORWARD, REVERSE]
    assert len(ended.messages[1].payload) == 9_000 - 29
    alone = inside(flow(unknown[:3]))
    assert (alone.messages, alone.tagged) == ((), False)


def test_what_is_no_tls_and_what_nobody_ends_stays_as_it_is(wire) -> None:
    plain = script("plain", ("10.0.0.2", 443), (FORWARD, 0, b"GET / HTTP/1.0\r\n\r\n"))
    assert inside(plain) is plain
    passed = Schedule((flow(wire),), 1.0, 1)
    assert terminated(passed, lambda _address, port: port == 444) == passed


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broken_hellos_and_records_are_no_crash(data: st.DataObject) -> None:
    whole = bytearray(synthesised(300, seed="x", application="tls", label="a.example", direction=0, first=True))
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=60))
    offer_in(cut)
    turns([Message(data.draw(st.integers(0, 1)), 0, cut), Message(1, 0, data.draw(st.binary(max_size=80)))])
    if cut:
        assert inside(flow([(FORWARD, cut)])).flow_id == "tls"
