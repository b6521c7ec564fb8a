"""The plan is pure: tables in, scripts out."""

import pandas as pd
import pytest

from replay.http_framing import one_request, one_response
from replay.schedule import FORWARD, REVERSE, TCP, UDP, Schedule, schedule
from tests.replay.scripts import response

FLOW = {
    "grade": "totals",
    "flow_id": "a",
    "start_ns": 1_000_000_000,
    "end_ns": 2_000_000_000,
    "protocol": TCP,
    "source_address": "198.51.100.1",
    "source_port": 40_000,
    "destination_address": "10.0.0.2",
    "destination_port": 80,
    "forward_packets": 5,
    "reverse_packets": 5,
    "forward_octets": 500,
    "reverse_octets": 5_000,
    "close": "fin_forward",
    "outcome": "accepted",
    "application": "",
    "label": "",
    "priority": "normal",
}
COLUMNS = ["flow_id", "sequence", "direction", "gap_ns", "octets", "payload_ref"]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def planned(
    *flows: dict[str, object],
    said: tuple[tuple[str, int, int, int, int, int], ...] = (),
    payloads: tuple[bytes, ...] = (),
    speed: float = 1.0,
) -> Schedule:
    table = pd.DataFrame([{**FLOW, **flow} for flow in flows], columns=list(FLOW))
    place = {"198.51.100.1": "internet", "fe80::1": "internet"}.get
    return schedule(table, pd.DataFrame(said, columns=COLUMNS), payloads, place, speed)


def test_starts_and_gaps_are_divided_by_the_speed() -> None:
    plan = planned(
        {},
        {"flow_id": "b", "start_ns": 1_500_000_000},
        said=(("b", 0, FORWARD, 0, 3, 0), ("b", 1, REVERSE, 10_000_000, 2, 1)),
        payloads=(b"abc", b"de"),
        speed=5.0,
    )
    assert [s.start_ns for s in plan.scripts] == [0, 100_000_000]
    assert [m.gap_ns for m in plan.scripts[1].messages] == [0, 2_000_000]
    assert [m.payload for m in plan.scripts[1].messages] == [b"abc", b"de"]
    assert plan.duration_ns == 200_000_000


def test_what_cannot_be_played_is_listed_with_the_reason() -> None:
    plan = planned(
        {"flow_id": "icmp", "protocol": 1, "source_port": 0, "destination_port": 0},
        {"flow_id": "a", "protocol": 1},
        {"flow_id": "esp", "protocol": 50},
        {"flow_id": "nobody", "source_address": "192.0.2.9"},
        {"flow_id": "group", "protocol": UDP, "destination_address": "224.0.0.251"},
        {"flow_id": "zero", "source_port": 0},
        {"flow_id": "local", "source_address": "fe80::1", "destination_address": "fe80::2"},
        said=(("a", 0, REVERSE, 0, 56, -1),),
    )
    assert not plan.scripts
    reasons = dict(plan.unplayable)
    assert set(reasons) == {"icmp", "a", "esp", "nobody", "group", "zero", "local"}
    assert all(reasons.values())


def test_a_missing_payload_becomes_the_same_bytes_of_the_recorded_size_every_time() -> None:
    said = (("a", 0, FORWARD, 0, 70_000, -1),)
    one, two = (planned({}, said=said).scripts[0].messages[0].payload for _ in range(2))
    assert one == two
    assert len(one) == 70_000
    assert one != planned({"flow_id": "b"}, said=(("b", 0, FORWARD, 0, 70_000, -1),)).scripts[0].messages[0].payload


def test_totals_become_one_request_and_one_response() -> None:
    messages = planned({}).scripts[0].messages
    assert [(m.direction, len(m.payload)) for m in messages] == [(FORWARD, 240), (REVERSE, 4_740)]


@pytest.mark.parametrize("sizes", [(100, 5_000), (3_000, 90), (1, 1)])
def test_synthesised_http_is_one_valid_tagged_request_and_response(sizes: tuple[int, int]) -> None:
    said = (("a", 0, FORWARD, 0, sizes[0], -1), ("a", 1, REVERSE, 0, sizes[1], -1))
    script = planned({"application": "http", "label": "shop.example"}, said=said).scripts[0]
    assert script.tagged
    request, answer = (m.payload for m in script.messages)
    head = one_request(request)
    assert head is not None
    assert head.value(b"x-shadow-flow") == b"a-0"
    assert head.value(b"host") == b"shop.example"
    assert one_response(answer, head.method) is not None
    assert len(answer) == sizes[1] or sizes[1] < 100


def test_a_request_in_two_messages_becomes_one_and_a_response_keeps_its_pauses() -> None:
    whole = response(b"x" * 10)
    said = (
        ("a", 0, FORWARD, 0, 5, 0),
        ("a", 1, FORWARD, 7, len(GET) - 5, 1),
        ("a", 2, REVERSE, 3, 20, 2),
        ("a", 3, REVERSE, 9, len(whole) - 20, 3),
    )
    script = planned({"application": "http"}, said=said, payloads=(GET[:5], GET[5:], whole[:20], whole[20:])).scripts[0]
    assert script.tagged
    assert [(m.direction, m.gap_ns) for m in script.messages] == [(FORWARD, 0), (REVERSE, 3), (REVERSE, 9)]


def test_a_request_that_pauses_is_said_in_its_pieces() -> None:
    whole = response(b"x" * 10)
    said = (
        ("a", 0, FORWARD, 0, 20, 0),
        ("a", 1, FORWARD, 7, len(GET) - 20, 1),
        ("a", 2, REVERSE, 3, len(whole), 2),
    )
    script = planned({"application": "http"}, said=said, payloads=(GET[:20], GET[20:], whole)).scripts[0]
    assert script.tagged
    assert [(m.direction, m.gap_ns) for m in script.messages] == [(FORWARD, 0), (FORWARD, 7), (REVERSE, 3)]
    assert script.messages[1].payload == GET[20:]
    assert (script.last_of_run(0), script.last_of_run(2)) == (1, 2)
    assert script.exchanges == 1


def test_a_flow_in_which_nothing_was_said_stays_silent() -> None:
    silent = {"forward_octets": 500, "reverse_octets": 700, "grade": "payload"}
    assert planned(silent).scripts[0].messages == ()
    assert planned({**silent, "grade": "totals"}).scripts[0].messages != ()


def test_http_that_does_not_frame_is_replayed_as_plain_bytes() -> None:
    broken = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"
    said = (("a", 0, FORWARD, 0, len(GET), 0), ("a", 1, REVERSE, 0, len(broken), 1))
    script = planned({"application": "http"}, said=said, payloads=(GET, broken)).scripts[0]
    assert not script.tagged
    assert [m.payload for m in script.messages] == [GET, broken]


def test_concurrency_counts_open_flows_and_those_without_a_close_to_the_end() -> None:
    flows = [{"flow_id": str(n), "start_ns": n * 1_000_000_000, "end_ns": (n + 1) * 1_000_000_000} for n in range(4)]
    plan = planned(*flows, said=(("0", 0, FORWARD, 0, 1, -1),))
    assert plan.concurrency(linger_ns=0) <= 2
    idle = planned(*({**flow, "close": "none"} for flow in flows))
    assert idle.concurrency(linger_ns=0) == 4


def test_a_speed_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        planned({}, speed=0.0)


def test_of_flows_that_start_at_one_time_the_more_important_goes_first() -> None:
    flows = [{"flow_id": name, "priority": name} for name in ("low", "critical", "normal", "high")]
    earlier = {"flow_id": "earlier", "priority": "low", "start_ns": 999_999_999}
    plan = planned(*flows, earlier)
    assert [script.flow_id for script in plan.scripts] == ["earlier", "critical", "high", "normal", "low"]
