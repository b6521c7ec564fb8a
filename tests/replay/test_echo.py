"""ICMP echo against real kernels: what answers, what is lost, what is refused, through NAT too."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.echo import checksum
from replay.kpis import kpis
from replay.schedule import ICMP, ICMPV6, FlowScript
from replay.session import Patience, Player
from replay.tap import Tap, Taps
from tests.replay.netns import Net, apart, routed
from tests.replay.scripts import FORWARD, REVERSE, plan, script

HERE, HERE6 = ("10.0.0.2", 77), ("2001:db8::2", 78)
SHORT = Patience(300_000_000, 300_000_000, 300_000_000)


def ping(
    flow_id: str,
    target: tuple[str, int] = HERE,
    requests: int = 3,
    outcome: str = "accepted",
    octets: int = 56,
    every_ms: int = 10,
) -> FlowScript:
    said: list[tuple[int, int, bytes]] = []
    for number in range(requests):
        said.append((FORWARD, every_ms if number else 0, bytes([number]) * octets))
        if outcome == "accepted":
            said.append((REVERSE, 0, bytes([number]) * octets))
    six = ":" in target[0]
    source = ("2001:db8:100::7" if six else "198.51.100.7", target[1])
    return script(
        flow_id, target, *said, protocol=ICMPV6 if six else ICMP, source=source, outcome=outcome, close="none"
    )


def measured(net: Net, *scripts: FlowScript, nodes: tuple[str, ...] = ("client",)) -> pd.DataFrame:
    with Player(plan(*scripts), net.fds, [], SHORT) as player, Taps([Tap(n, net.fds[n]) for n in nodes]) as taps:
        taps.start_window()
        result = player.play(0).wait(10)
        folder = Path("/run")
        taken = taps.end_window({node: folder / f"{node}.pcap" for node in nodes})
        assert taken.dropped == 0
        table = kpis(result, taken.paths, "run", 0, "baseline").set_index("flow_id")
        table["ports"] = result.attempts.set_index("flow_id")["source_port"]
        return table


def test_every_request_is_answered_and_is_timed_by_the_taps() -> None:
    def body(net: Net) -> pd.DataFrame:
        routed(net)
        return measured(
            net,
            ping("v4"),
            ping("v6", HERE6),
            ping("router", ("203.0.113.2", 9)),
            ping("big", (HERE[0], 90), octets=1400),
        )

    table = apart(body)
    assert table["error"].tolist() == ["none"] * 4
    assert table["as_expected"].all()
    assert table["response_ns"].between(1e3, 20e6).all()
    assert table["loss_ratio"].tolist() == [0.0] * 4
    assert table["delivered_octets"].tolist() == [3 * 56, 3 * 56, 3 * 56, 3 * 1400]
    assert table["connect_ns"].isna().all()


def test_flows_of_one_identifier_or_of_one_target_are_told_apart() -> None:
    def body(net: Net) -> pd.DataFrame:
        routed(net, services=2)
        return measured(net, ping("near"), ping("far", ("10.0.1.2", 77), octets=20), ping("other", ("10.0.0.2", 5)))

    table = apart(body)
    assert set(table["error"]) == {"none"}
    assert table["delivered_octets"].to_dict() == {"near": 3 * 56, "far": 3 * 20, "other": 3 * 56}


def test_filtered_prohibited_and_unroutable_echoes_are_told_apart_and_loss_is_exact() -> None:
    rules = """*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -d 10.0.0.2/32 -p icmp -m u32 --u32 "0>>22&0x3C@4>>16=79" -j DROP
-A FORWARD -d 10.0.0.3/32 -p icmp -j REJECT --reject-with icmp-admin-prohibited
-A FORWARD -d 10.0.0.4/32 -p icmp -m icmp --icmp-type 8 -m statistic --mode nth --every 5 --packet 0 -j DROP
COMMIT
"""

    def body(net: Net) -> pd.DataFrame:
        routed(net, rules)
        net.ip("server", "addr add 10.0.0.4/24 dev eth0\n")
        return measured(
            net,
            ping("filtered", ("10.0.0.2", 79), outcome="unanswered"),
            ping("prohibited", ("10.0.0.3", 80), outcome="denied"),
            ping("nowhere", ("192.0.2.1", 81), outcome="denied"),
            ping("lossy", ("10.0.0.4", 82), requests=20, every_ms=2),
            ping("passes", ("10.0.0.2", 83)),
            ping("broken", ("10.0.0.2", 79)),
        )

    table = apart(body)
    assert table["error"].to_dict() == {
        "filtered": "timeout",
        "prohibited": "unreachable",
        "nowhere": "unreachable",
        "lossy": "none",
        "passes": "none",
        "broken": "timeout",
    }
    assert table["as_expected"].to_dict() == {name: name != "broken" for name in table.index}
    assert table.loc["lossy", "loss_ratio"] == pytest.approx(0.2)
    assert table.loc["broken", "loss_ratio"] == 1.0
    assert table.loc["broken", "response_ns"] == float("inf")
    assert table.loc[["filtered", "prohibited", "nowhere"], "loss_ratio"].isna().all()


def test_echoes_pass_a_source_nat_and_an_edge_answers_for_every_address_of_its_prefix() -> None:
    nat = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o out0 -j MASQUERADE
COMMIT
"""

    def body(net: Net) -> pd.DataFrame:
        routed(net, nat)
        net.ip("server", "route add local 10.9.0.0/16 dev lo\nroute add local 2001:db8:9::/48 dev lo\n")
        net.ip("router", "route add 10.9.0.0/16 via 10.0.0.2\nroute add 2001:db8:9::/48 via 2001:db8::2\n")
        return measured(net, ping("v4", ("10.9.1.2", 7)), ping("v6", ("2001:db8:9::5", 8)))

    table = apart(body)
    assert table["error"].tolist() == ["none", "none"]
    assert table["response_ns"].between(0, 50e6).all()


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_the_words_of_a_packet_with_its_checksum_sum_to_ones(payload: bytes) -> None:
    plain = bytes([8, 0, 0, 0, 1, 2, 0, 3]) + payload
    whole = plain[:2] + checksum(plain).to_bytes(2, "big") + plain[4:] + b"\0" * (len(payload) % 2)
    total = sum(int.from_bytes(whole[at : at + 2], "big") for at in range(0, len(whole), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
