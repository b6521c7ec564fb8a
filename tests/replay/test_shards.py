"""Several player processes that share one window: every flow's two ends meet, whatever the way does to it."""

from pathlib import Path

import pytest

from replay.schedule import TCP, UDP, FlowScript
from replay.session import Listener, Player, PlayResult
from replay.shards import HOME, Mates, shard_of, shards_for
from tests.replay.netns import Net, apart, routed
from tests.replay.scripts import FORWARD, NAT, REVERSE, STATEFUL, plan, request, response, script
from tests.replay.test_session import PROXY, _until_up, exchange, outcome

LISTENERS = [Listener("server", TCP, 8080), Listener("server", UDP, 53)]


def datagrams(flow_id: str, n: int, target: tuple[str, int] = ("10.0.0.2", 53)) -> FlowScript:
    said = ((FORWARD, 0, b"query %d" % n), (REVERSE, 1, b"answer"))
    return script(flow_id, target, *said, protocol=UDP, source=("198.51.100.9", 5_000 + n), start_ms=n)


def shared(net: Net, *flows: FlowScript, listeners: list[Listener], windows: int = 2, shards: int = 2) -> PlayResult:
    with Player(plan(*flows), net.fds, listeners, shards=shards) as player:
        return [player.play(window).wait(20) for window in range(windows)][-1]


def told(result: PlayResult) -> tuple[dict[str, str], list[int], int]:
    return outcome(result), result.accepted["connection"].tolist(), result.effort.shards


def test_flows_of_all_closes_and_both_families_meet_in_three_processes() -> None:
    def body(net: Net) -> tuple[dict[str, str], list[int], int]:
        routed(net, STATEFUL)
        closes = ("fin_forward", "fin_reverse", "rst_forward", "rst_reverse", "none")
        flows = [
            exchange(f"{close}{n}", 10 * n + i, close, n, ("10.0.0.2", 8080) if n % 2 else ("2001:db8::2", 8080))
            for i, close in enumerate(closes)
            for n in range(8)
        ]
        flows += [datagrams(f"udp{n}", n) for n in range(12)]
        return told(shared(net, *flows, listeners=LISTENERS, shards=3))

    errors, connections, shards = apart(body)
    assert set(errors.values()) == {"none"}, errors
    assert len(errors) == 52
    assert len(set(connections)) == 52, "two shards gave one number"
    assert shards == 3


def test_a_source_nat_that_changes_ports_parts_no_flow_from_its_server() -> None:
    def body(net: Net) -> tuple[dict[str, str], list[int], int]:
        routed(net, NAT.replace("-A POSTROUTING -o out0 -j MASQUERADE", SNAT))
        flows = [
            script(
                f"f{n}",
                ("10.0.0.2", 8080),
                (FORWARD, 0, b"hello %d" % n),
                (REVERSE, 1, b"x" * 2_000),
                source=("198.51.100.7", 41_000 + n),
                start_ms=n,
            )
            for n in range(20)
        ]
        flows += [
            script(
                f"ssh{n}",
                ("10.0.0.2", 22),
                (REVERSE, 1, b"SSH-2.0-server"),
                (FORWARD, 0, b"SSH-2.0-client"),
                source=("198.51.100.9", 42_000 + n),
                start_ms=25 * n,
            )
            for n in range(4)
        ]
        flows += [datagrams(f"dns{n}", n) for n in range(10)]
        return told(shared(net, *flows, listeners=[*LISTENERS, Listener("server", TCP, 22)]))

    errors, _, shards = apart(body)
    assert set(errors.values()) == {"none"}, errors
    assert (len(errors), shards) == (34, 2)


SNAT = """-A POSTROUTING -o out0 -p tcp -j MASQUERADE --to-ports 20000-29999 --random
-A POSTROUTING -o out0 -p udp -j MASQUERADE --to-ports 20000-29999 --random"""


def test_http_through_a_proxy_and_direct_flows_share_a_window() -> None:
    def body(net: Net) -> tuple[dict[str, str], list[str]]:
        routed(net, services=3)
        configuration = Path("/run/haproxy.cfg")
        configuration.write_text(PROXY + "frontend stats\n bind 127.0.0.1:9000\n stats enable\n stats uri /\n")
        web = [
            script(
                f"web{n}",
                ("203.0.113.2", 80),
                (FORWARD, 0, request(f"web{n}", 0)),
                (REVERSE, 2, response(b"x" * 3_000)),
                (FORWARD, 2, request(f"web{n}", 2)),
                (REVERSE, 1, response(b"y" * 100)),
                source=("198.51.100.3", 44_000 + n),
                start_ms=4 * n,
                application="http",
                tagged=True,
            )
            for n in range(12)
        ]
        sql = [
            script(
                f"sql{n}",
                ("203.0.113.2", 5432),
                (FORWARD, 0, b"\0\0\0\x08\x04\xd2\x16\x2f"),
                (REVERSE, 0, b"N"),
                (FORWARD, 0, b"login%d" % n),
                (REVERSE, 0, b"R" * (n + 1)),
                source=("198.51.100.6", 46_000 + n),
                start_ms=20 * n,
            )
            for n in range(4)
        ]
        direct = [exchange(f"d{n}", n, "fin_forward", 3 * n) for n in range(12)]
        ports = [Listener(f"server{i or ''}", TCP, 8080) for i in range(3)]
        ports += [Listener("server", TCP, 8443), Listener("server", TCP, 5432)]
        with Player(plan(*web, *sql, *direct), net.fds, ports, shards=2) as player:
            net.program("router", "/usr/sbin/haproxy", "-db", "-q", "-f", str(configuration))
            states = _until_up(net)
            results = [player.play(window).wait(20) for window in range(2)]
        return outcome(results[-1]), states

    errors, states = apart(body)
    assert states == ["UP"] * 5
    assert set(errors.values()) == {"none"}, errors
    assert len(errors) == 28


def test_flows_are_split_by_source_port_and_what_a_device_may_rewrite_stays_together() -> None:
    flow = exchange("f", 1, "fin_forward")
    direct = frozenset({(TCP, *flow.target)})
    assert shard_of(flow, 2, direct) == flow.source[1] % 2 == 1
    assert shard_of(flow, 2, frozenset()) == HOME
    assert shard_of(flow, 1, direct) == HOME
    silent = script("s", flow.target, (REVERSE, 0, b"220"), source=flow.source)
    assert shard_of(silent, 2, direct) == HOME


def test_a_stranger_visits_every_shard_once_and_home_last() -> None:
    mates = [Mates(own, {m: None for m in range(3) if m != own}) for own in range(3)]  # type: ignore[misc]
    for first in range(3):
        way, visited, at = [first], 0, first
        while (following := mates[at].next_for(visited, http=False)) is not None:
            visited = mates[at].seen_by(visited)
            way.append(following)
            at = following
        assert set(way) == {0, 1, 2}
        assert way[-1] == HOME
        assert len(way) <= 4
    assert mates[2].next_for(0, http=True) == HOME
    assert mates[HOME].next_for(0, http=True) is None


@pytest.mark.parametrize(("events", "processors", "shards"), [(500, 4, 1), (50_000, 2, 2), (50_000, 8, 5)])
def test_a_small_load_stays_in_one_process(events: float, processors: int, shards: int) -> None:
    assert shards_for(events, processors) == shards
