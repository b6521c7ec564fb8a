"""Copies of flows: how many, from which ports, and that they are replayed and measured as flows of their own."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.load import FIRST_PORT, LAST_PORT, multiplied, original
from replay.schedule import TCP, UDP, schedule
from replay.session import Listener, Player
from tests.replay.netns import Net, apart, routed
from tests.replay.scripts import STATEFUL

COLUMNS = {
    "flow_id": "",
    "protocol": TCP,
    "source_address": "198.51.100.1",
    "source_port": 40_000,
    "destination_address": "10.0.0.2",
    "destination_port": 8080,
    "start_ns": 0,
    "end_ns": 1_000_000,
    "forward_octets": 500,
    "reverse_octets": 500,
    "forward_packets": 5,
    "reverse_packets": 5,
    "close": "fin_forward",
    "outcome": "accepted",
    "application": "",
    "label": "",
    "priority": "normal",
}


def flows(count: int, **different: object) -> pd.DataFrame:
    rows = [
        {**COLUMNS, "flow_id": f"f{n}", "source_port": 40_000 + n, "start_ns": n * 1_000_000, **different}
        for n in range(count)
    ]
    return pd.DataFrame(rows)


def said(table: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {"flow_id": f, "sequence": s, "direction": s, "gap_ns": 0, "octets": 3, "payload_ref": 7 + s}
        for f in table["flow_id"]
        for s in (0, 1)
    ]
    return pd.DataFrame(rows)


@given(load=st.floats(1, 4), count=st.integers(1, 60), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_copies_are_as_many_as_asked_and_never_share_a_port(load: float, count: int, seed: int) -> None:
    table = flows(count)
    loaded = multiplied(table, said(table), load, seed)
    assert count * int(load) <= len(loaded.flows) <= count * (int(load) + 1)
    assert not loaded.flows["flow_id"].duplicated().any()
    assert not loaded.flows.duplicated(["protocol", "source_address", "source_port"]).any()
    assert 8080 not in set(loaded.flows["source_port"])
    assert loaded.messages.groupby("flow_id").size().eq(2).all()
    assert set(loaded.messages["flow_id"]) == set(loaded.flows["flow_id"])
    assert set(loaded.flows["flow_id"].map(original)) == set(table["flow_id"])
    again = multiplied(table, said(table), load, seed)
    pd.testing.assert_frame_equal(again.flows, loaded.flows)


def test_a_fraction_duplicates_that_share_of_the_flows_and_a_seed_says_which() -> None:
    table = flows(1_000)
    chosen = [set(multiplied(table, said(table), 1.3, seed).flows["flow_id"][1_000:]) for seed in (1, 2)]
    assert all(abs(len(one) - 300) < 60 for one in chosen)
    assert chosen[0] != chosen[1]
    assert len(multiplied(table, said(table), 1.0).flows) == 1_000


def test_a_copy_of_an_echo_has_an_identifier_of_its_own_in_both_ports() -> None:
    table = flows(3, protocol=1, destination_port=40_000)
    table["destination_port"] = table["source_port"]
    table.loc[2, ["source_port", "destination_port"]] = 0
    copies = multiplied(table, said(table), 2.0).copies
    assert (copies["source_port"] == copies["destination_port"]).all()
    assert set(copies["flow_id"]) == {"f0~2", "f1~2"}


def test_an_address_without_a_free_port_is_told_and_less_than_one_is_refused() -> None:
    table = flows(LAST_PORT - FIRST_PORT + 1)
    table["source_port"] = range(FIRST_PORT, LAST_PORT + 1)
    loaded = multiplied(table, said(table.iloc[:0]).reindex(columns=["flow_id"]), 1.001)
    assert loaded.left_out
    assert set(loaded.left_out.values()) == {"no free source port at 198.51.100.1"}
    with pytest.raises(ValueError, match="at least 1"):
        multiplied(table, said(table), 0.5)


def test_copies_are_replayed_as_flows_of_their_own() -> None:
    def body(net: Net) -> dict[str, str]:
        routed(net, STATEFUL)
        table = pd.concat(
            [
                flows(6),
                flows(4, protocol=UDP, destination_port=53, close="none").assign(flow_id=[f"u{n}" for n in range(4)]),
            ],
            ignore_index=True,
        )
        loaded = multiplied(table, said(table), 3)
        plan = schedule(loaded.flows, loaded.messages, {7: b"ask", 8: b"say"}, lambda _address: "client")
        with Player(plan, net.fds, [Listener("server", TCP, 8080), Listener("server", UDP, 53)]) as player:
            attempts = [player.play(window).wait(20) for window in range(2)][-1].attempts
        assert attempts["source_port_kept"].all()
        return dict(zip(attempts["flow_id"], attempts["error"], strict=True))

    errors = apart(body)
    assert len(errors) == 30
    assert set(errors.values()) == {"none"}
    assert {"f0", "f0~2", "f0~3"} <= set(errors)
