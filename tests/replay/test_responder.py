"""Recognition of flows on the server side, without any socket."""

from replay.http_framing import parse_head
from replay.responder import Recogniser, Recognition, courtesy, courtesy_response
from replay.schedule import TCP, UDP, FlowScript
from tests.replay.scripts import FORWARD, REVERSE, request, response, script

VIP = ("203.0.113.10", 6379)
LOCAL = ("10.0.0.2", 6380)
PEER = ("10.0.0.1", 50_000)


def ping(flow_id: str, port: int, target: tuple[str, int] = VIP) -> FlowScript:
    return script(flow_id, target, (FORWARD, 0, b"PING\r\n"), (REVERSE, 0, b"+PONG\r\n"), source=("198.51.100.1", port))


def of(*scripts: FlowScript, served: tuple[tuple[int, int], ...] = ()) -> Recogniser:
    recogniser = Recogniser(served)
    for one in scripts:
        recogniser.started(one)
    return recogniser


def test_the_flows_own_source_is_the_best_witness() -> None:
    first, second = ping("a", 1), ping("b", 2)
    assert of(first, second).by_source(TCP, ("198.51.100.1", 2), LOCAL) is second


def test_equal_first_messages_go_to_the_earliest_started_flow() -> None:
    first, second = ping("a", 1), ping("b", 2)
    recogniser = of(first, second)
    assert recogniser.by_content(TCP, b"PING\r\n", LOCAL, PEER) is first
    recogniser.take(first, LOCAL)
    assert recogniser.by_content(TCP, b"PING\r\n", LOCAL, PEER) is second
    recogniser.take(second, LOCAL)
    assert recogniser.by_content(TCP, b"PING\r\n", LOCAL, PEER) is Recognition.UNKNOWN


def test_a_flow_captured_to_this_very_service_is_preferred() -> None:
    elsewhere, here = ping("a", 1), ping("b", 2, LOCAL)
    assert of(elsewhere, here).by_content(TCP, b"PING\r\n", LOCAL, PEER) is here


def test_bytes_that_may_still_become_a_flow_are_waited_for() -> None:
    recogniser = of(ping("a", 1))
    assert recogniser.by_content(TCP, b"PI", LOCAL, PEER) is Recognition.AMBIGUOUS
    assert recogniser.by_content(TCP, b"PO", LOCAL, PEER) is Recognition.HTTP
    assert recogniser.by_content(TCP, b"\x00", LOCAL, PEER) is Recognition.UNKNOWN


def test_a_flow_whose_client_is_done_is_not_recognised() -> None:
    flow = ping("a", 1)
    recogniser = of(flow)
    recogniser.ended(flow)
    assert recogniser.by_content(TCP, b"PING\r\n", LOCAL, PEER) is Recognition.UNKNOWN
    assert recogniser.by_source(TCP, ("198.51.100.1", 1), LOCAL) is None
    assert not recogniser.release(flow)


def test_a_flow_done_without_being_found_gives_its_equal_back() -> None:
    early, late = ping("a", 1), ping("b", 2)
    recogniser = of(early, late)
    assert recogniser.by_content(TCP, b"PING\r\n", LOCAL, PEER) is early
    recogniser.take(early, LOCAL)  # but it was the late one, whose link is faster
    recogniser.ended(late, satisfied=True)
    assert recogniser.by_content(TCP, b"PING\r\n", LOCAL, PEER) is early


def test_a_flow_that_gave_up_without_being_found_gives_nothing_back() -> None:
    early, late = ping("a", 1), ping("b", 2)
    recogniser = of(early, late)
    recogniser.take(early, LOCAL)
    recogniser.ended(late)
    assert recogniser.by_content(TCP, b"PING\r\n", LOCAL, PEER) is Recognition.UNKNOWN


def test_a_flow_that_a_health_check_took_waits_again() -> None:
    flow = script("a", ("203.0.113.10", 22), (REVERSE, 0, b"SSH"), source=("198.51.100.1", 1))
    recogniser = of(flow)
    recogniser.take(flow, LOCAL)
    assert recogniser.by_order(TCP, ("10.0.0.2", 22), PEER, sure=False) is None
    assert recogniser.release(flow)
    assert recogniser.by_order(TCP, ("10.0.0.2", 22), PEER, sure=False) is flow


def test_where_the_server_speaks_first_a_port_with_its_own_listener_is_only_itself() -> None:
    mail = script("mail", ("203.0.113.10", 25), (REVERSE, 0, b"220"), source=("198.51.100.1", 1))
    moved = script("moved", ("203.0.113.10", 2222), (REVERSE, 0, b"SSH"), source=("198.51.100.1", 2))
    recogniser = of(mail, moved, served=((TCP, 25), (TCP, 22)))
    assert recogniser.by_order(TCP, ("10.0.0.2", 22), PEER, sure=False) is moved
    assert recogniser.by_order(TCP, ("10.0.0.2", 25), PEER, sure=False) is mail


def test_the_shadow_header_names_flow_and_message() -> None:
    flow = script("ab", VIP, (FORWARD, 0, request("ab", 0)), (REVERSE, 0, response(b"x")), tagged=True)
    recogniser = of(flow)
    assert recogniser.by_tag(parse_head(request("ab", 0))) == (flow, 0)
    for wrong in ("ab-1", "ab-9", "zz-0", "ab-", "ab-99999999999999999999", ""):
        assert recogniser.by_tag(parse_head(f"GET / HTTP/1.1\r\nx-shadow-flow: {wrong}\r\n\r\n".encode())) is None


def test_datagrams_are_found_by_any_of_their_messages() -> None:
    flow = script(
        "dns", ("203.0.113.10", 53), (FORWARD, 0, b"q1"), (REVERSE, 0, b"a"), (FORWARD, 0, b"q2"), protocol=UDP
    )
    assert of(flow).by_datagram(b"q2", UDP, ("10.0.0.2", 53)) is flow
    assert of(flow).by_datagram(b"q3", UDP, ("10.0.0.2", 53)) is None


def test_health_checks_get_what_a_live_server_says() -> None:
    assert courtesy(b"PING\r\n") == b"+PONG\r\n"
    assert courtesy(b"\x16\x03\x00\x00").startswith(b"\x15\x03")
    assert courtesy(b"\0\0\0\x10\0\3\0\0user").startswith(b"R")
    assert courtesy(b"anything") == b""
    assert courtesy_response(parse_head(b"GET /health HTTP/1.1\r\n\r\n")).endswith(b"Content-Length: 2\r\n\r\nok")
    assert courtesy_response(parse_head(b"OPTIONS / HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\n")


def test_a_source_port_that_nat_kept_decides_between_equal_flows() -> None:
    recogniser = of(ping("a", 1), ping("b", 2))
    found = recogniser.by_content(TCP, b"PING\r\n", LOCAL, ("10.0.0.1", 2))
    assert isinstance(found, FlowScript)
    assert found.flow_id == "b"


def test_a_silent_connection_at_a_port_that_is_spoken_to_is_no_flow_in_which_the_server_speaks_first() -> None:
    moved = script("moved", ("203.0.113.10", 2222), (REVERSE, 0, b"SSH"), source=("198.51.100.1", 7))
    pinging = ping("a", 1)
    recogniser = of(moved, pinging, served=((TCP, 6380), (TCP, 22)))
    assert recogniser.by_order(TCP, LOCAL, PEER, sure=True) is None
    assert recogniser.by_order(TCP, LOCAL, ("10.0.0.1", 1), sure=False) is None
    recogniser.take(pinging, LOCAL)
    assert recogniser.by_order(TCP, LOCAL, PEER, sure=False) is None
    assert recogniser.by_order(TCP, ("10.0.0.2", 22), PEER, sure=False) is moved
