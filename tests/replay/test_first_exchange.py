"""The first exchange of a script is enough to know what the network does with it, and is over soon."""

from replay.first_exchange import ANSWER_OCTETS, GAP_NS, first_exchange, opening_octets
from replay.schedule import UDP
from tests.replay.scripts import FORWARD, REVERSE, request, response, script

HERE = ("10.0.0.2", 8080)


def said(made):
    return [(m.direction, m.payload) for m in made.messages]


def test_one_question_and_its_answer_are_kept_and_gaps_are_cut() -> None:
    long = script("f", HERE, (FORWARD, 900, b"a"), (FORWARD, 0, b"b"), (REVERSE, 700, b"c"), (FORWARD, 0, b"d"))
    made = first_exchange(long, "p", 5)
    assert said(made) == [(FORWARD, b"a"), (FORWARD, b"b"), (REVERSE, b"c")]
    assert {m.gap_ns <= GAP_NS for m in made.messages} == {True}
    assert (made.flow_id, made.start_ns, made.close, made.target) == ("p", 5, "rst_forward", HERE)
    assert opening_octets(long) == 3


def test_a_server_that_speaks_first_is_heard_out_and_a_silent_flow_stays_silent() -> None:
    greeted = first_exchange(script("f", HERE, (REVERSE, 0, b"220 ready"), (FORWARD, 0, b"HELO")), "p", 0)
    assert said(greeted) == [(REVERSE, b"220 ready")]
    assert first_exchange(script("f", HERE), "p", 0).messages == ()
    assert first_exchange(script("f", HERE, (FORWARD, 0, b"q"), protocol=UDP), "p", 0).close == "none"


def test_a_long_answer_is_cut_and_a_long_response_keeps_its_status() -> None:
    chunk = bytes(ANSWER_OCTETS // 2)
    long = script("f", HERE, (FORWARD, 0, b"get"), *((REVERSE, 0, chunk) for _ in range(9)))
    assert len(first_exchange(long, "p", 0).messages) == 3
    head = request("f", 0)
    web = script(
        "f", HERE, (FORWARD, 0, head), (REVERSE, 0, response(bytes(ANSWER_OCTETS), "206 Partial")), tagged=True
    )
    made = first_exchange(web, "p", 0)
    assert made.messages[1].payload == b"HTTP/1.1 206 Partial\r\nContent-Length: 2\r\n\r\nok"
    assert b"-flow: p-0\r\n" in made.messages[0].payload.lower()
