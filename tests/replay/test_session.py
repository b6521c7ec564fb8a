"""The player against real kernels: routers, stateful firewalls, NAT and HAProxy."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from replay.schedule import TCP, UDP, FlowScript, Schedule
from replay.session import Listener, Patience, Player, PlayerFailed, PlayResult
from replay.synthesis import synthesised
from replay.tap import Tap, Taps
from tests.replay.netns import Net, apart, routed
from tests.replay.scripts import FORWARD, NAT, REVERSE, STATEFUL, plan, request, response, script

HERE = ("10.0.0.2", 8080)
HERE6 = ("2001:db8::2", 8080)


def outcome(result: PlayResult) -> dict[str, str]:
    return dict(zip(result.attempts["flow_id"], result.attempts["error"], strict=True))


def exchange(flow_id: str, n: int, close: str, start_ms: int = 0, target: tuple[str, int] = HERE) -> FlowScript:
    source = ("198.51.100.7" if ":" not in target[0] else "2001:db8:100::7", 40_000 + n)
    said = ((FORWARD, 0, b"hello %d" % n), (REVERSE, 2, b"x" * 5_000), (FORWARD, 1, b"more"), (REVERSE, 0, b"bye"))
    return script(flow_id, target, *said, source=source, close=close, start_ms=start_ms)


CLOSES = ("fin_forward", "fin_reverse", "rst_forward", "rst_reverse", "none")


def played(
    net: Net, schedule: Schedule, listeners: list[Listener], windows: int = 1, patience: Patience | None = None
) -> list[PlayResult]:
    with Player(schedule, net.fds, listeners, patience) as player:
        return [player.play(window).wait(20) for window in range(windows)]


def test_the_same_five_tuples_work_again_at_once_through_a_stateful_firewall() -> None:
    def body(net: Net) -> list[tuple[dict[str, str], bool]]:
        routed(net, STATEFUL)
        flows = [
            exchange(f"{close}{n}", 10 * n + i, close, 5 * i, target)
            for i, close in enumerate(CLOSES)
            for n, target in enumerate((HERE, HERE6))
        ]
        results = played(net, plan(*flows), [Listener("server", TCP, 8080)], windows=4)
        return [(outcome(r), bool(r.attempts["source_port_kept"].all())) for r in results]

    windows = apart(body)
    assert len(windows) == 4
    for errors, ports_kept in windows:
        assert set(errors.values()) == {"none"}
        assert len(errors) == 10
        assert ports_kept


def test_a_flow_that_is_still_open_is_new_again_to_the_firewall_in_the_next_window() -> None:
    def body(net: Net) -> list[str]:
        routed(net, STATEFUL)
        schedule = plan(exchange("idle", 1, "none"))
        with Player(schedule, net.fds, [Listener("server", TCP, 8080)], Patience(400_000_000)) as player:
            before = outcome(player.play(0).wait(20))["idle"]
            blocked = STATEFUL.replace("--dport 9999", "--dport 8080 -m conntrack --ctstate NEW")
            net.on("router", "iptables-restore", given=blocked)
            return [before, outcome(player.play(1).wait(20))["idle"]]

    assert apart(body) == ["none", "timeout"]


def test_refused_filtered_prohibited_and_unroutable_attempts_are_told_apart() -> None:
    def body(net: Net) -> dict[str, str]:
        routed(net, STATEFUL)
        return outcome(
            played(
                net,
                plan(
                    script("refused", ("10.0.0.2", 81), outcome="reset", source=("198.51.100.7", 1_025)),
                    script("filtered", ("10.0.0.2", 9_999), outcome="unanswered", source=("198.51.100.7", 1_026)),
                    script("prohibited", ("10.0.0.2", 9_998), outcome="denied", source=("198.51.100.7", 1_027)),
                    script("nowhere", ("192.0.2.1", 80), outcome="denied", source=("198.51.100.7", 1_028)),
                    script("no_name", ("10.0.0.2", 53), (FORWARD, 0, b"q"), (REVERSE, 0, b"a"), protocol=UDP),
                ),
                [Listener("server", TCP, 8080)],
            )[0]
        )

    assert apart(body) == {
        "refused": "refused",
        "filtered": "timeout",
        "prohibited": "unreachable",
        "nowhere": "unreachable",
        "no_name": "refused",
    }


def test_udp_keeps_message_boundaries_and_answers_from_the_address_that_was_asked() -> None:
    def body(net: Net) -> tuple[dict[str, str], list[int]]:
        routed(net, STATEFUL)
        net.ip("server", "route add local 10.9.0.0/16 dev lo\n")
        net.ip("router", "route add 10.9.0.0/16 via 10.0.0.2\n")
        said = (
            (FORWARD, 0, b"q1"),
            (REVERSE, 1, b"a1" * 300),
            (FORWARD, 1, b"q2"),
            (REVERSE, 0, b"a2"),
            (REVERSE, 0, b"a3"),
        )
        result = played(
            net,
            plan(
                script("v4", ("10.9.1.2", 53), *said, protocol=UDP),
                script("v6", ("2001:db8::2", 53), *said, protocol=UDP, source=("2001:db8:100::9", 5_353)),
            ),
            [Listener("server", UDP, 53)],
        )[0]
        return outcome(result), result.attempts["received_octets"].tolist()

    assert apart(body) == ({"v4": "none", "v6": "none"}, [604, 604])


def test_behind_nat_flows_are_found_by_content_and_silent_ones_by_order() -> None:
    def body(net: Net) -> tuple[dict[str, str], dict[str, int]]:
        routed(net, NAT)
        vip = "203.0.113.2"
        pings = [
            script(
                f"redis{n}",
                (vip, 6379),
                (FORWARD, 0, b"PING\r\n"),
                (REVERSE, 1, b"+PONG\r\n"),
                (FORWARD, 1, b"GET %d" % n),
                (REVERSE, 0, b"v" * (n + 1)),
                source=("198.51.100.8", 41_000 + n),
                start_ms=3 * n,
            )
            for n in range(6)
        ]
        secure = [
            script(
                f"ssh{n}",
                (vip, 2222),
                (REVERSE, 1, b"SSH-2.0-server"),
                (FORWARD, 0, b"SSH-2.0-client"),
                (REVERSE, 0, b"k" * 700),
                source=("198.51.100.9", 42_000 + n),
                start_ms=4 * n,
            )
            for n in range(4)
        ]
        names = [
            script(
                f"dns{n}",
                (vip, 53),
                (FORWARD, 0, b"query%d" % n),
                (REVERSE, 0, b"answer%d" % n),
                protocol=UDP,
                source=("198.51.100.9", 43_000 + n),
                start_ms=n,
            )
            for n in range(5)
        ]
        listeners = [Listener("server", TCP, 6380), Listener("server", TCP, 22), Listener("server", UDP, 53)]
        result = played(net, plan(*pings, *secure, *names), listeners, windows=2)[1]
        received = dict(zip(result.attempts["flow_id"], result.attempts["received_octets"].tolist(), strict=True))
        return outcome(result), received

    errors, received = apart(body)
    assert set(errors.values()) == {"none"}
    assert len(errors) == 15
    assert [received[f"redis{n}"] for n in range(6)] == [8 + n for n in range(6)]


def test_five_megabytes_arrive_whole_and_fast() -> None:
    def body(net: Net) -> tuple[str, int]:
        routed(net, STATEFUL)
        result = played(
            net,
            plan(script("big", HERE, (FORWARD, 0, b"all"), (REVERSE, 1, b"z" * 5_000_000))),
            [Listener("server", TCP, 8080)],
        )[0]
        return outcome(result)["big"], int(result.attempts["received_octets"].iloc[0])

    assert apart(body) == ("none", 5_000_000)


PROXY = """
global
    maxconn 500
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend web
    bind 203.0.113.2:80
    default_backend webs
backend webs
    option httpchk GET /health
    http-reuse always
    option forwardfor
    server web1 10.0.0.2:8080 check inter 100ms fall 2 rise 1
    server web2 10.0.1.2:8080 check inter 100ms fall 2 rise 1
    server web3 10.0.2.2:8080 check inter 100ms fall 2 rise 1
frontend secure
    mode tcp
    bind 203.0.113.2:443
    tcp-request inspect-delay 2s
    tcp-request content accept if { req_ssl_hello_type 1 }
    use_backend shop if { req_ssl_sni -i shop.example }
backend shop
    mode tcp
    option ssl-hello-chk
    server web1 10.0.0.2:8443 check inter 100ms
frontend database
    mode tcp
    bind 203.0.113.2:5432
    default_backend database
backend database
    mode tcp
    server db1 10.0.0.2:5432 check inter 100ms
"""


def _through_proxy(net: Net) -> tuple[list[dict[str, str]], list[str], str]:
    routed(net, services=3)
    configuration = Path("/run/haproxy.cfg")
    configuration.write_text(PROXY + "frontend stats\n bind 127.0.0.1:9000\n stats enable\n stats uri /\n")
    vip = "203.0.113.2"
    web = [
        script(
            f"web{n}",
            (vip, 80),
            (FORWARD, 0, request(f"web{n}", 0)),
            (REVERSE, 2, response(b"x" * (3_000 + n))),
            (FORWARD, 2, request(f"web{n}", 2)),
            (REVERSE, 1, response(b"y" * 100)),
            source=("198.51.100.3", 44_000 + n),
            start_ms=4 * n,
            application="http",
            tagged=True,
        )
        for n in range(12)
    ]
    missing = script(
        "missing",
        (vip, 80),
        (FORWARD, 0, request("missing", 0)),
        (REVERSE, 0, response(b"", "404 Not Found")),
        source=("198.51.100.4", 44_500),
        application="http",
        tagged=True,
    )
    tls = [
        script(
            f"tls{n}",
            (vip, 443),
            (FORWARD, 0, _hello(n)),
            (REVERSE, 1, b"\x16\x03\x03" + b"s" * 2_000),
            (FORWARD, 0, b"fin"),
            (REVERSE, 0, b"data"),
            source=("198.51.100.5", 45_000 + n),
            start_ms=5 * n,
            close="fin_reverse",
        )
        for n in range(5)
    ]
    sql = [
        script(
            f"sql{n}",
            (vip, 5432),
            (FORWARD, 0, b"\0\0\0\x08\x04\xd2\x16\x2f"),
            (REVERSE, 0, b"N"),
            (FORWARD, 0, b"login%d" % n),
            (REVERSE, 0, b"R" * (n + 1)),
            source=("198.51.100.6", 46_000 + n),
            start_ms=60 * n,
        )
        for n in range(4)
    ]
    ports = [Listener(f"server{i or ''}", TCP, 8080) for i in range(3)]
    ports += [Listener("server", TCP, 8443), Listener("server", TCP, 5432)]
    with Player(plan(*web, missing, *tls, *sql), net.fds, ports) as player:
        net.program("router", "/usr/sbin/haproxy", "-db", "-q", "-f", str(configuration))
        states = _until_up(net)
        results = [player.play(window).wait(20) for window in range(3)]
        time.sleep(0.3)
        after = _states(net)
    nodes = set(results[-1].accepted["node"])
    assert nodes == {"server", "server1", "server2"}
    return [outcome(result) for result in results], states, "/".join(after)


def _hello(n: int) -> bytes:
    return synthesised(400, seed=f"tls{n}", application="tls", label="shop.example", direction=0, first=True)


def _states(net: Net) -> list[str]:
    ask = ["curl", "-s", "http://127.0.0.1:9000/;json"]
    net.enter("router")
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    if done.returncode:
        return []
    rows = [{field["field"]["name"]: field["value"]["value"] for field in row} for row in json.loads(done.stdout)]
    return [row["status"] for row in rows if row["type"] == 2]


def _until_up(net: Net) -> list[str]:
    deadline = time.monotonic() + 8
    states: list[str] = []
    while time.monotonic() < deadline:
        states = _states(net)
        if states and all(state == "UP" for state in states):
            return states
        time.sleep(0.05)
    return states


def test_a_proxy_sees_live_servers_and_every_flow_passes_it_in_three_windows() -> None:
    windows, before, after = apart(_through_proxy)
    assert before == ["UP"] * 5
    assert after == "/".join(["UP"] * 5)
    for errors in windows:
        assert set(errors.values()) == {"none"}, errors
        assert len(errors) == 22


def test_a_server_error_where_the_capture_had_success_is_an_http_error() -> None:
    def body(net: Net) -> str:
        routed(net)
        configuration = Path("/run/haproxy.cfg")
        configuration.write_text(
            PROXY.split("frontend secure", maxsplit=1)[0].replace("check inter", "disabled check inter")
        )
        flow = script(
            "web", ("203.0.113.2", 80), (FORWARD, 0, request("web", 0)), (REVERSE, 0, response(b"ok")), tagged=True
        )
        net.program("router", "/usr/sbin/haproxy", "-db", "-q", "-f", str(configuration))
        time.sleep(0.3)
        return outcome(played(net, plan(flow), [Listener("server", TCP, 8080)])[0])["web"]

    assert apart(body) == "http_error"


def test_the_network_may_be_changed_while_a_window_runs() -> None:
    def body(net: Net) -> dict[str, str]:
        routed(net, STATEFUL)
        flows = [exchange(f"f{n:02}", n, "fin_forward", 20 * n) for n in range(40)]
        with Player(
            plan(*flows), net.fds, [Listener("server", TCP, 8080)], Patience(300_000_000, 1, 300_000_000)
        ) as player:
            window = player.play(0)
            time.sleep(0.4)
            net.on("router", "iptables-restore", given=STATEFUL.replace("--dport 9999", "--dport 8080"))
            return outcome(window.wait(20))

    errors = apart(body)
    assert errors["f00"] == errors["f10"] == "none"
    assert errors["f35"] == errors["f39"] == "timeout"


def test_the_player_dies_with_its_parent() -> None:
    def body(net: Net) -> int:
        routed(net)
        player = Player(plan(), net.fds, [])
        player.start()
        return player.pid

    pid = apart(body)
    deadline = time.monotonic() + 2
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists() or "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()


def test_the_player_and_the_taps_hold_nothing_open_that_they_do_not_need() -> None:
    def body(net: Net) -> list[set[str]]:
        routed(net)
        reader, writer = os.pipe()
        pipe = str(Path(f"/proc/self/fd/{writer}").readlink())
        with (
            Player(plan(), net.fds, [Listener("server", TCP, 8080)], shards=2) as player,
            Taps([Tap("server", net.fds["server"])]) as taps,
        ):
            found = []
            for pid in (*player.pids, taps.pid):
                links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
                found.append({link for link in links if link == pipe or link.startswith("net:")})
        os.close(reader)
        os.close(writer)
        return [{"pipe" if link == pipe else "net" for link in links} for links in found]

    assert apart(body) == [{"net"}, {"net"}, {"net"}]


def test_a_listener_that_cannot_be_opened_is_named() -> None:
    def body(net: Net) -> str:
        net.node("server")
        listeners = [Listener("server", TCP, 8080)]
        with (
            Player(plan(), net.fds, listeners),
            pytest.raises(PlayerFailed) as refused,
            Player(plan(), net.fds, listeners),
        ):
            pass
        return str(refused.value)

    assert "server protocol 6 port 8080" in apart(body)
