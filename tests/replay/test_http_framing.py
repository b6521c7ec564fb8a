"""HTTP/1 message boundaries, whole and in pieces, and under hostile bytes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.http_framing import (
    MessageReader,
    NotHttp,
    one_request,
    one_response,
    parse_head,
    tagged,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
CLOSED = b"HTTP/1.0 200 OK\r\n\r\nuntil the end"
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"
HEAD_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def ends(data: bytes, cuts: list[int], methods: tuple[bytes, ...] = ()) -> list[tuple[int, int]]:
    reader = MessageReader(responses=bool(methods))
    for method in methods:
        reader.expect(method)
    framed = []
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        framed += reader.feed(data[begin:end])
    last = reader.end_of_stream()
    return [(f.start, f.end) for f in [*framed, *([last] if last else [])]]


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_responses_are_cut_alike_however_the_bytes_arrive(cuts: list[int]) -> None:
    parts = [CHUNKED, SIZED, NOT_MODIFIED, HEAD_ANSWER, CONTINUE + SIZED, CLOSED]
    methods = (b"GET", b"GET", b"GET", b"HEAD", b"POST", b"GET")
    begins = [sum(map(len, parts[:i])) for i in range(len(parts) + 1)]
    expected = list(itertools.pairwise(begins))
    assert ends(b"".join(parts), cuts, methods) == expected


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_pipelined_requests_are_cut_alike_however_the_bytes_arrive(cuts: list[int]) -> None:
    parts = [GET, POST, GET, POST]
    begins = [sum(map(len, parts[:i])) for i in range(len(parts) + 1)]
    assert ends(b"".join(parts), cuts) == list(itertools.pairwise(begins))


@given(
    st.lists(st.one_of(st.binary(max_size=80), st.sampled_from([GET, POST, CHUNKED, b"\r\n", b"HTTP/1.1 "]))),
    st.booleans(),
)
def test_hostile_bytes_give_messages_or_not_http(pieces: list[bytes], responses: bool) -> None:
    reader = MessageReader(responses=responses)
    total = 0
    try:
        for piece in pieces:
            for framed in reader.feed(piece):
                assert 0 <= framed.start < framed.end <= total + len(piece)
            total += len(piece)
    except NotHttp:
        return
    assert reader.offset <= total


def test_a_head_that_never_ends_is_refused() -> None:
    with pytest.raises(NotHttp):
        MessageReader(responses=False).feed(b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000)


def test_the_shadow_header_is_the_first_field_and_the_request_stays_one_request() -> None:
    request = tagged(POST, "ab12-4")
    head = one_request(request)
    assert head is not None
    assert head.headers[0] == (b"x-shadow-flow", b"ab12-4")
    assert request.endswith(b"hello")


def test_only_exactly_one_message_counts_as_one() -> None:
    assert one_request(GET + GET) is None
    assert one_request(GET[:-2]) is None
    assert one_response(CLOSED, b"GET") is not None
    assert one_response(SIZED[:-1], b"GET") is None
    assert one_response(HEAD_ANSWER, b"HEAD") is not None


def test_close_is_announced_by_header_or_by_version() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").closes
    assert parse_head(b"GET / HTTP/1.0\r\n\r\n").closes
    assert not parse_head(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").closes
    assert not parse_head(GET).closes
