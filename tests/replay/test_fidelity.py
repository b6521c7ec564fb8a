"""Two captures are compared flow by flow: each difference is told by its name, and what is explained is undone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.columns import ACK, RST
from replay.fidelity import PATH_NS, Fidelity, Kind, Recording, Replayed, compared, together
from replay.http_framing import tagged
from replay.schedule import FORWARD, REVERSE, TCP, UDP, FlowScript, Message
from replay.silences import shortened, silences

CLIENT, SERVER = ("10.0.0.1", 40_000), ("192.0.2.1", 443)
MS = 1_000_000
BEGAN_NS, OVER_NS = 5_000 * MS, 6_000 * MS


@dataclass(frozen=True)
class Seen:
    """One flow as a meter would have seen it: said is (direction, gap_ns, payload)."""

    flow_id: str = "one"
    protocol: int = TCP
    source: tuple[str, int] = CLIENT
    target: tuple[str, int] = SERVER
    start_ns: int = BEGAN_NS
    outcome: str = "accepted"
    close: str = "fin_forward"
    grade: str = "payload"
    said: tuple[tuple[int, int, bytes], ...] = (
        (FORWARD, MS, b"hello"),
        (REVERSE, 2 * MS, b"world wide"),
        (FORWARD, MS, b"bye"),
    )
    sent_again: int = 0
    reset_ns: int = 0
    unkept: frozenset[int] = field(default_factory=frozenset)


def recording(*flows: Seen) -> Recording:
    payloads = [payload for flow in flows for _, _, payload in flow.said]
    ref = iter(range(len(payloads)))
    rows, said, segments = [], [], []
    for flow in flows:
        rows.append(
            {
                "flow_id": flow.flow_id,
                "protocol": flow.protocol,
                "source_address": flow.source[0],
                "source_port": flow.source[1],
                "destination_address": flow.target[0],
                "destination_port": flow.target[1],
                "start_ns": flow.start_ns,
                "end_ns": flow.start_ns,
                "outcome": flow.outcome,
                "close": flow.close,
                "grade": flow.grade,
            }
        )
        at = flow.start_ns
        for sequence, (direction, gap_ns, payload) in enumerate(flow.said):
            at += gap_ns
            kept = next(ref)
            said.append(
                (flow.flow_id, sequence, at - flow.start_ns, gap_ns, direction, len(payload),
                 -1 if sequence in flow.unkept else kept)
            )  # fmt: skip
            segments.append((flow.flow_id, direction, at, len(payload), ACK, False))
        segments += [(flow.flow_id, FORWARD, at, 5, ACK, True)] * flow.sent_again
        if flow.reset_ns:
            segments.append((flow.flow_id, FORWARD, flow.reset_ns, 0, RST, False))
    return Recording(
        pd.DataFrame(rows, columns=list(rows[0]) if rows else _FLOW_COLUMNS),
        pd.DataFrame(
            said, columns=["flow_id", "sequence", "offset_ns", "gap_ns", "direction", "octets", "payload_ref"]
        ),
        pd.DataFrame(segments, columns=["flow_id", "direction", "time_ns", "octets", "tcp_flags", "retransmission"]),
        payloads,
    )


_FLOW_COLUMNS = [
    "flow_id", "protocol", "source_address", "source_port", "destination_address", "destination_port", "start_ns",
    "end_ns", "outcome", "close", "grade",
]  # fmt: skip


def script(flow: Seen, *, is_tagged: bool = False) -> FlowScript:
    messages = tuple(
        Message(d, gap, tagged(payload, f"{flow.flow_id}-{n}") if is_tagged and d == FORWARD else payload)
        for n, (d, gap, payload) in enumerate(flow.said)
    )
    return FlowScript(
        flow.flow_id, flow.protocol, "near", flow.source, flow.target, 0, messages, flow.close, flow.outcome, "",
        "normal", is_tagged,
    )  # fmt: skip


def held(captured: Seen, *again: Seen, is_tagged: bool = False, lateness_ns: int = 0) -> Fidelity:
    played = Replayed(
        {captured.flow_id: script(captured, is_tagged=is_tagged)}, 1.0, BEGAN_NS, OVER_NS, {"one": lateness_ns}
    )
    return compared(recording(captured), recording(*again), played, [captured.source[0]])


def only(fidelity: Fidelity) -> tuple[Kind, int, str, str]:
    (difference,) = fidelity.differences
    return difference.kind, difference.sequence, difference.expected, difference.found


def said(*changed: tuple[int, int, bytes]) -> tuple[tuple[int, int, bytes], ...]:
    return changed


def test_a_flow_that_came_again_is_equal_and_its_gaps_are_told():
    again = Seen(said=((FORWARD, MS, b"hello"), (REVERSE, 2 * MS + 300, b"world wide"), (FORWARD, MS, b"bye")))
    fidelity = held(Seen(), again, lateness_ns=7)
    assert fidelity.faithful
    assert fidelity.of_grade("payload") == (1, 1)
    assert fidelity.gaps["error_ns"].tolist() == [0, 300, 0]
    assert set(fidelity.gaps["stated_ns"]) == {PATH_NS + 7}
    assert fidelity.gaps_as_stated == 1.0


def test_a_gap_beyond_what_the_player_owned_to_is_counted():
    again = Seen(said=((FORWARD, MS, b"hello"), (REVERSE, 5 * MS, b"world wide"), (FORWARD, MS, b"bye")))
    fidelity = held(Seen(), again)
    assert fidelity.faithful
    assert fidelity.gaps_as_stated == pytest.approx(2 / 3)


DIFFERENT = {
    "missing": ((), (Kind.MISSING, -1, "3 messages", "no packet")),
    "turned": (
        (Seen("other", source=SERVER, target=CLIENT),),
        (Kind.TURNED, -1, "tcp 10.0.0.1:40000 → 192.0.2.1:443", "a flow the other way round"),
    ),
    "outcome": ((Seen(outcome="reset", said=()),), (Kind.OUTCOME, -1, "accepted", "reset")),
    "order": (
        (Seen(said=((FORWARD, 0, b"bye"), (REVERSE, 0, b"world wide"), (FORWARD, 0, b"hello"))),),
        (Kind.ORDER, 0, "forward 5", "forward 3"),
    ),
    "direction": (
        (Seen(said=((FORWARD, 0, b"hello"), (FORWARD, 0, b"world wide"), (FORWARD, 0, b"bye"))),),
        (Kind.DIRECTION, 1, "reverse 10", "forward 10"),
    ),
    "size": (
        (Seen(said=((FORWARD, 0, b"hello"), (REVERSE, 0, b"world wid"), (FORWARD, 0, b"bye"))),),
        (Kind.SIZE, 1, "reverse 10", "reverse 9"),
    ),
    "payload": (
        (Seen(said=((FORWARD, 0, b"hello"), (REVERSE, 0, b"World wide"), (FORWARD, 0, b"bye"))),),
        (Kind.PAYLOAD, 1, "776f726c64207769 at octet 0", "576f726c64207769"),
    ),
    "payload not kept": (
        (Seen(unkept=frozenset([1])),),
        (Kind.PAYLOAD, 1, "10 octets", "octets that the second capture did not keep"),
    ),
    "fewer": (
        (Seen(said=((FORWARD, 0, b"hello"), (REVERSE, 0, b"world wide"))),),
        (Kind.FEWER, 2, "forward 3", "nothing"),
    ),
    "more": ((Seen(said=(*Seen().said, (REVERSE, 0, b"!")))), (Kind.MORE, 3, "nothing", "reverse 1")),
    "close": ((Seen(close="rst_reverse"),), (Kind.CLOSE, -1, "fin_forward", "rst_reverse")),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_each_difference_is_told_by_its_name(name):
    again, expected = DIFFERENT[name]
    fidelity = held(Seen(), *(again if isinstance(again, tuple) else (again,)))
    assert only(fidelity) == expected
    assert not fidelity.faithful
    assert fidelity.gaps.empty


def test_a_flow_that_nobody_captured_is_extra():
    fidelity = held(Seen(), Seen(), Seen("two", source=(CLIENT[0], 40_001)))
    assert only(fidelity) == (Kind.EXTRA, -1, "no such flow", "3 messages, accepted")
    assert not fidelity.faithful
    assert fidelity.of_grade("payload") == (1, 1)


def test_flows_that_others_began_are_not_looked_at():
    assert held(Seen(), Seen(), Seen("two", source=("10.9.9.9", 1))).faithful


def test_what_is_sent_again_is_a_remark_and_no_difference():
    fidelity = held(Seen(), Seen(sent_again=2))
    assert fidelity.faithful
    assert fidelity.remarks == {"retransmitted segments": 2}


def test_a_flow_without_an_end_may_be_reset_when_the_window_is_over_and_not_before():
    open_flow = Seen(close="none")
    after = held(open_flow, replace(open_flow, close="rst_forward", reset_ns=OVER_NS))
    assert after.faithful
    assert list(after.explained.values()) == [1]
    before = held(open_flow, replace(open_flow, close="rst_forward", reset_ns=OVER_NS - 1))
    assert only(before)[0] is Kind.CLOSE


def test_a_flow_without_an_end_may_be_reset_for_the_next_of_its_five_tuple():
    first, second = Seen("one", close="none"), Seen("two", start_ns=BEGAN_NS + 100)
    scripts = {"one": script(first), "two": replace(script(second), start_ns=100)}
    for reset_ns, equal in ((BEGAN_NS + 100, 2), (BEGAN_NS + 99, 1)):
        again = recording(replace(first, close="rst_forward", reset_ns=reset_ns), second)
        fidelity = compared(recording(first, second), again, Replayed(scripts, 1.0, BEGAN_NS, OVER_NS), [CLIENT[0]])
        assert fidelity.of_grade("payload") == (equal, 2)


def test_the_close_of_datagrams_is_nobodys():
    flow = Seen(protocol=UDP, close="none")
    assert held(flow, replace(flow, close="fin_forward")).faithful


REQUEST = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"


def test_the_shadow_header_is_taken_out_exactly():
    flow = Seen(said=((FORWARD, 0, REQUEST), (REVERSE, 0, b"HTTP/1.1 200 OK\r\n\r\n")))
    with_header = replace(flow, said=((FORWARD, 0, tagged(REQUEST, "one-0")), flow.said[1]))
    fidelity = held(flow, with_header, is_tagged=True)
    assert fidelity.faithful
    assert fidelity.explained["requests with the shadow header, taken out"] == 1
    assert fidelity.explained["octets of shadow headers"] == len(b"X-Shadow-Flow: one-0\r\n")


def test_another_flows_header_is_a_difference():
    flow = Seen(said=((FORWARD, 0, REQUEST),))
    fidelity = held(flow, replace(flow, said=((FORWARD, 0, tagged(REQUEST, "two-0")),)), is_tagged=True)
    assert only(fidelity)[0] is Kind.SIZE


def test_payload_is_not_asked_of_flows_whose_payload_nobody_has():
    flow = Seen(grade="sizes", unkept=frozenset([0, 1, 2]))
    again = Seen(said=tuple((d, gap, bytes(len(payload))) for d, gap, payload in Seen().said))
    fidelity = held(flow, again)
    assert fidelity.differences == ()
    assert fidelity.of_grade("sizes") == (1, 1)


def test_nothing_replayed_is_not_faithful():
    nothing = compared(recording(), recording(), Replayed({}, 1.0, 0, 0), [])
    assert not nothing.faithful


def test_reports_of_two_ends_add_up():
    whole = together([held(Seen(), Seen(sent_again=1)), held(Seen(), Seen(close="none"))])
    assert whole.of_grade("payload") == (1, 2)
    assert [d.kind for d in whole.differences] == [Kind.CLOSE]
    assert whole.remarks == {"retransmitted segments": 1}


messages = st.lists(
    st.tuples(st.sampled_from([FORWARD, REVERSE]), st.integers(0, 10**9), st.binary(min_size=1, max_size=12)),
    max_size=6,
).map(tuple)


@settings(max_examples=60, deadline=None)
@given(messages, messages)
def test_two_flows_are_equal_exactly_when_what_was_said_is(one, other):
    fidelity = held(Seen(said=one), Seen(said=other))
    same = [(d, payload) for d, _, payload in one] == [(d, payload) for d, _, payload in other]
    assert fidelity.faithful == same
    assert len(fidelity.gaps) == (len(one) if same else 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=12), st.integers(1, 2_000))
def test_shortened_silences_keep_order_and_every_gap_below_the_longest(gaps, longest):
    flow = Seen(start_ns=1_000, said=tuple((FORWARD, gap, b"x") for gap in gaps))
    made = recording(flow)
    opened = pd.DataFrame({"flow_id": ["one"], "time_ns": [1_000]})
    segments = pd.concat([opened, made.segments], ignore_index=True)
    quiet = silences(segments, longest)
    flows, told = shortened(made.flows, made.messages, quiet)
    assert told["gap_ns"].tolist() == [min(gap, longest) for gap in gaps]
    assert told["offset_ns"].tolist() == pd.Series(told["gap_ns"]).cumsum().tolist()
    assert flows["start_ns"].tolist() == [1_000]
    assert quiet.total_cut_ns == sum(max(gap - longest, 0) for gap in gaps)


def test_a_silence_that_another_flow_fills_is_none():
    long = Seen(start_ns=0, said=((FORWARD, 0, b"a"), (REVERSE, 1_000, b"b")))
    other = Seen("two", start_ns=500, source=(CLIENT[0], 1), said=((FORWARD, 0, b"a"),))
    made = recording(long, other)
    assert len(silences(made.segments, 600)) == 0
    assert len(silences(made.segments, 400)) == 2
