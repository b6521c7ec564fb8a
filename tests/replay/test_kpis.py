"""KPIs from taps of real traffic, with known think times, delays and losses."""

import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from replay.datagram_order import DatagramOrder
from replay.effort import Effort
from replay.instrument import instrument
from replay.kpis import KPI_COLUMNS, kpis, measured
from replay.observed import CLIENT, SERVER, Accepted, Transfer
from replay.schedule import TCP, UDP, Message, Schedule
from replay.session import Listener, Patience, Player, PlayResult
from replay.sightings import Sightings
from replay.tap import Tap, Taps
from tests.replay.netns import Net, apart, routed
from tests.replay.scripts import FORWARD, MS, REVERSE, STATEFUL, plan, request, response, script

HERE = ("10.0.0.2", 8080)


def windows(
    net: Net,
    schedule: Schedule,
    listeners: list[Listener],
    count: int = 1,
    nodes: tuple[str, ...] = ("client", "server"),
) -> list[tuple[PlayResult, pd.DataFrame]]:
    done = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Player(schedule, net.fds, listeners, Patience(message_timeout_ns=600 * MS)) as player,
        Taps([Tap(node, net.fds[node]) for node in nodes]) as taps,
    ):
        for window in range(count):
            taps.start_window()
            result = player.play(window).wait(20)
            tapped = taps.end_window({node: Path(folder, f"{node}{window}.pcap") for node in nodes})
            done.append((result, kpis(result, tapped.paths, "run", window, "baseline")))
    return done


def test_think_time_is_in_no_kpi_and_responses_are_two_one_way_delays() -> None:
    def body(net: Net) -> pd.DataFrame:
        routed(net, STATEFUL)
        flows = [
            script(
                f"f{n}",
                HERE,
                (FORWARD, 0, b"a%d" % n),
                (REVERSE, 30, b"b" * 900),
                (FORWARD, 5, b"c"),
                (REVERSE, 10, b"d"),
                source=("198.51.100.1", 41_000 + n),
                start_ms=3 * n,
            )
            for n in range(8)
        ]
        return windows(net, plan(*flows), [Listener("server", TCP, 8080)], count=2)[1][1]

    table = apart(body)
    assert list(table.columns) == list(KPI_COLUMNS)
    assert len(table) == 8
    assert table["as_expected"].all()
    assert (table["response_ns"].between(1_000, 5 * MS)).all(), "the 30 ms of thinking are in it"
    round_trip = table["one_way_delay_forward_ns"] + table["one_way_delay_reverse_ns"]
    assert (abs(table["response_ns"] - round_trip) < 3 * MS).all()
    assert (table["connect_ns"].between(1_000, 20 * MS)).all()
    assert (table["duration_ns"] > 45 * MS).all()
    assert (table["delivered_octets"] == 904).all()
    assert (table["loss_ratio"] == 0).all()


def test_a_slow_link_shows_in_goodput_and_a_filter_as_delay_without_end() -> None:
    def body(net: Net) -> pd.DataFrame:
        routed(net, STATEFUL)
        net.on(
            "router",
            "tc",
            "qdisc",
            "add",
            "dev",
            "in0",
            "root",
            "tbf",
            "rate",
            "8mbit",
            "burst",
            "16k",
            "latency",
            "50ms",
        )
        return windows(
            net,
            plan(
                script("big", HERE, (FORWARD, 0, b"all"), (REVERSE, 20, b"z" * 300_000)),
                script(
                    "cut", ("10.0.0.2", 9_999), (FORWARD, 0, b"q"), (REVERSE, 0, b"a"), source=("198.51.100.1", 41_000)
                ),
                script("as_before", ("10.0.0.2", 9_999), outcome="unanswered", source=("198.51.100.1", 41_001)),
            ),
            [Listener("server", TCP, 8080)],
        )[0][1].set_index("flow_id")

    table = apart(body)
    assert 4e6 < table.loc["big", "goodput_bps"] < 9e6
    assert table.loc["cut", "error"] == "timeout"
    assert np.isinf(table.loc["cut", ["connect_ns", "first_response_ns", "response_ns"]].astype(float)).all()
    assert not table.loc["cut", "as_expected"]
    assert table.loc["as_before", "as_expected"]
    assert np.isnan(table.loc["as_before", "connect_ns"])
    assert table.loc["cut", "retransmits"] >= 1


def test_one_datagram_in_ten_lost_reads_exactly_so_whatever_they_say() -> None:
    def body(net: Net) -> pd.DataFrame:
        routed(net)
        for port in (5_000, 5_001):
            rule = f"FORWARD -p udp --sport {port} -m statistic --mode nth --every 10 --packet 0 -j DROP"
            net.on("router", "iptables", "-A", *rule.split())
        distinct = [(FORWARD, 1, b"numbered %013d" % n) for n in range(50)]
        alike = [(FORWARD, 1, b"every one says the same")] * 50
        flows = [
            script(name, ("10.0.0.2", 53), *said, protocol=UDP, source=("198.51.100.9", 5_000 + n))
            for n, (name, said) in enumerate((("distinct", distinct), ("alike", alike)))
        ]
        return windows(net, plan(*flows), [Listener("server", UDP, 53)])[0][1].set_index("flow_id")

    table = apart(body)
    assert table["loss_ratio"].tolist() == [0.1, 0.1]
    assert (table["one_way_delay_forward_ns"] > 1_000).all()
    assert table["as_expected"].all()


def test_datagrams_that_overtake_each_other_are_not_lost() -> None:
    order = DatagramOrder([Message(FORWARD, 0, b"%d" % n) for n in range(5)] + [Message(REVERSE, 0, b"5")], FORWARD)
    cursor, found = 0, []
    for said in (b"1", b"0", b"1", b"4", b"rewritten", b"3"):
        found.append(order.arrived(said, cursor))
        cursor = max(cursor, found[-1] + 1)
    assert found == [1, 0, -1, 4, -1, 3]
    assert order.expected == 5
    assert order.expects(b"2")
    assert not order.expects(b"3")


def test_retransmits_are_what_both_kernels_count() -> None:
    def body(net: Net) -> tuple[pd.DataFrame, pd.DataFrame]:
        routed(net)
        rule = "FORWARD -p tcp -m length --length 1000:65535 -m statistic --mode nth --every 7 --packet 3 -j DROP"
        net.on("router", "iptables", "-A", *rule.split())
        said = [(FORWARD, 0, b"u" * 9_000), (REVERSE, 1, b"d" * 9_000)] * 6
        flows = [script(f"f{n}", HERE, *said, source=("198.51.100.1", 41_000 + n), start_ms=30 * n) for n in range(4)]
        result, table = windows(net, plan(*flows), [Listener("server", TCP, 8080)])[0]
        return table.set_index("flow_id"), result.attempts.merge(
            result.accepted, on="flow_id", suffixes=("", "_server")
        )

    table, ends = apart(body)
    assert table["as_expected"].all()
    summed = (ends["retransmits"] + ends["retransmits_server"]).set_axis(ends["flow_id"])
    assert (summed > 0).any()
    assert table["retransmits"].to_dict() == summed.to_dict()
    assert ((table["retransmits"] > 0) == (table["loss_ratio"] > 0)).all(), "the taps saw what the kernels say"
    assert (ends["min_rtt_ns"] > 0).all()


def test_full_queues_are_the_end_points_loss_and_spoil_the_window() -> None:
    def body(net: Net) -> tuple[int, int, bool, str]:
        routed(net)
        flow = script("f", HERE, (FORWARD, 0, b"q"), (REVERSE, 600, b"a"))
        with Player(plan(flow), net.fds, [Listener("server", TCP, 8080)]) as player:
            play = player.play(0)
            time.sleep(0.1)
            net.enter("server")
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf,
                socket.create_server(("10.0.0.2", 9), backlog=1),
            ):
                deaf.bind(("10.0.0.2", 9))
                net.enter("client")
                callers = [socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(9)]
                for caller in callers:
                    caller.connect_ex(("10.0.0.2", 9))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loud:
                    for _ in range(2_000):
                        loud.sendto(b"x" * 1_000, ("10.0.0.2", 9))
                result = play.wait(20)
                for caller in callers:
                    caller.close()
        told = instrument(result, 0)
        return result.effort.udp_receive_drops, result.effort.listen_drops, told.valid, told.reason

    drops, refused, valid, reason = apart(body)
    assert drops > 100
    assert refused > 0
    assert not valid
    assert f"{refused} connections arrived and found the end points' accept queues full" in reason
    assert f"{drops} datagrams arrived and found the end points' receive queues full" in reason


def test_through_a_proxy_the_servers_think_time_is_found_by_the_shadow_header() -> None:
    def body(net: Net) -> pd.DataFrame:
        routed(net)
        configuration = Path("/run/haproxy.cfg")
        configuration.write_text(
            "defaults\n mode http\n timeout connect 1s\n timeout client 5s\n timeout server 5s\n option forwardfor\n"
            " http-reuse always\nlisten web\n bind 203.0.113.2:80\n server s 10.0.0.2:8080\n"
        )
        flows = [
            script(
                f"w{n}",
                ("203.0.113.2", 80),
                (FORWARD, 0, request(f"w{n}", 0)),
                (REVERSE, 40, response(b"x" * 500)),
                (FORWARD, 1, request(f"w{n}", 2)),
                (REVERSE, 40, response(b"y")),
                source=("198.51.100.1", 41_000 + n),
                start_ms=60 * n,
                tagged=True,
            )
            for n in range(4)
        ]
        net.program("router", "/usr/sbin/haproxy", "-db", "-q", "-f", str(configuration))
        time.sleep(0.3)
        return windows(net, plan(*flows), [Listener("server", TCP, 8080)], count=2)[1][1]

    table = apart(body)
    assert table["as_expected"].all()
    assert (table["response_ns"].between(10_000, 20 * MS)).all()
    assert table["one_way_delay_forward_ns"].isna().all(), "the proxy lengthened the requests"
    assert table["one_way_delay_reverse_ns"].notna().all()


def _large(flows: int, exchanges: int) -> tuple[PlayResult, dict[str, Sightings]]:
    """Flows of many exchanges with exact known delays: 1 ms there, 2 ms back, 10 ms of thinking."""
    base = 1_700_000_000_000_000_000
    attempts, accepted, transfers, tables = [], [], [], []
    segments: dict[str, list[tuple[str, int, int, int]]] = {"client": [], "server": []}
    for n in range(flows):
        name = f"f{n}"
        start = base + n * 1_000
        attempts.append(
            {
                "flow_id": name,
                "protocol": TCP,
                "node": "client",
                "source_address": "198.51.100.1",
                "source_port": n + 1,
                "target_address": "10.0.0.2",
                "target_port": 80,
                "outcome": "accepted",
                "exchanges": exchanges,
                "due_ns": start,
                "started_ns": start,
                "ended_ns": start + MS,
                "error": "none",
                "connected": True,
                "completed": True,
                "received_octets": 0,
                "server_octets": 0,
                "retransmits": 0,
            }
        )
        accepted.append(Accepted(n, "server", TCP, "10.0.0.2", 80, "198.51.100.1", n + 1, start + 5 * MS, name))
        tables.append((name, TCP, "198.51.100.1", n + 1, "10.0.0.2", 80, start))
        for x in range(exchanges):
            at = start + (x + 1) * 20 * MS
            for side in (CLIENT, SERVER):
                transfers.append(Transfer(side, n, name, 2 * x, FORWARD, 10 * x, 10 * x + 10, 2 * x + 1))
                transfers.append(Transfer(side, n, name, 2 * x + 1, REVERSE, 10 * x, 10 * x + 10, -1))
            segments["client"] += [(name, 0, at, 10 * x), (name, 1, at + 13 * MS, 10 * x)]
            segments["server"] += [(name, 0, at + MS, 10 * x), (name, 1, at + 11 * MS, 10 * x)]
    flow_table = pd.DataFrame(
        tables,
        columns=[
            "flow_id",
            "protocol",
            "source_address",
            "source_port",
            "destination_address",
            "destination_port",
            "start_ns",
        ],
    )
    taps = {}
    for node, rows in segments.items():
        table = pd.DataFrame(rows, columns=["flow_id", "direction", "time_ns", "stream_offset"])
        taps[node] = Sightings(flow_table, table.assign(octets=10, tcp_flags=0x18, retransmission=False))
    result = PlayResult(
        0,
        1.0,
        base,
        base,
        pd.DataFrame(attempts),
        pd.DataFrame(transfers, columns=list(Transfer._fields)),
        pd.DataFrame(accepted, columns=list(Accepted._fields)),
        pd.DataFrame({"flow_id": ["f0"], "lateness_ns": [5]}),
        flows,
        flows,
        True,
        (),
    )
    return result, taps


def test_known_delays_are_read_exactly_and_fifty_thousand_packets_in_under_a_second() -> None:
    result, taps = _large(500, 25)
    begun = time.perf_counter()
    table = measured(result, taps, "run", 0, "baseline")
    took = time.perf_counter() - begun
    assert set(table["response_ns"]) == {3.0 * MS}
    assert set(table["one_way_delay_forward_ns"]) == {1.0 * MS}
    assert set(table["one_way_delay_reverse_ns"]) == {2.0 * MS}
    assert set(table["pdv_ns"]) == {0.0}
    assert took < 1.0


def test_a_quiet_window_is_valid_and_drops_lateness_or_missing_load_are_not() -> None:
    result, _ = _large(2, 1)
    assert instrument(result, 0).valid
    assert "dropped 3 packets" in instrument(result, 3).reason
    late = pd.DataFrame({"flow_id": ["f0"], "lateness_ns": [90 * MS]})
    efforts = (
        Effort(player_cpu_percent=99.0),
        Effort(reaction_p99_us=60_000.0),
        Effort(player_waited_percent=90.0),
        Effort(listen_drops=1),
        Effort(udp_receive_drops=1),
        Effort(send_blocked=3),
    )
    spoilt = (
        {"lateness": late},
        {"sent": 1},
        {"attempts": result.attempts.iloc[:0]},
        *({"effort": e} for e in efforts),
    )
    for worse in spoilt:
        changed = PlayResult(**{**{f: getattr(result, f) for f in PlayResult.__slots__}, **worse})
        assert not instrument(changed, 0).valid
        assert instrument(changed, 0).reason
