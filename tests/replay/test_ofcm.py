"""The model says of flows what a person who read them all would say, in whatever order and pieces they came."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.meter import read_traffic
from replay.ofcm import CLASS_KEY, Grouping, Zone, classes, decayed, model_of, timed, updated
from replay.ofcm.addresses import common_bits, parsed
from replay.ofcm.classes import POOLED_PORT
from replay.ofcm.delays import RELATIVE_ERROR
from replay.ofcm.model import OUTCOMES
from tests.replay.ofcm_flows import FLOWS, SECOND_NS, flow, table

SHOP = Path(__file__).resolve().parents[2] / "topologies" / "shop" / "traffic"


@pytest.fixture(scope="module")
def shop():
    return timed(read_traffic([SHOP / "internet.pcap", SHOP / "servers.pcap"]))


def seen(flows, **grouping):
    listed = classes(model_of(flows, Grouping(**grouping)))
    return {(one.source, one.destination, one.port): one.disposition for one in listed.itertuples()}


def test_the_shop_lets_customers_in_and_its_firewall_keeps_others_out(shop):
    found = classes(model_of(shop)).set_index(["source", "destination", "port"])
    https = found.loc[("198.51.100.0/25", "203.0.113.10", 443)]
    assert (https["disposition"], https["application"]) == ("accepted", "tls")
    assert https["share_low"] > 0.95
    assert 0 < https["connect_ns"] < SECOND_NS
    assert 0 < https["first_response_ns"] < SECOND_NS
    assert found.loc[("198.51.100.200/30", "203.0.113.10", 22), "disposition"] == "unanswered"
    assert found.loc[("198.51.100.200/31", "203.0.113.2", 8443), "disposition"] == "reset"
    assert np.isnan(found.loc[("198.51.100.200/30", "203.0.113.10", 22), "connect_ns"])
    assert found["flows"].sum() == len(shop)


def test_a_zone_gathers_its_sources_whatever_happened_to_them(shop):
    internet = Zone("customers", (ip_network("198.51.100.0/24"), ip_network("2001:db8:100::/48")))
    found = classes(model_of(shop, Grouping(zones=(internet,))))
    ours = found[found["source"] == "customers"]
    assert ours["zone"].all()
    assert {"accepted", "unanswered", "reset"} == set(ours["disposition"])
    assert not found["source"].str.startswith("198.51.100.").any()


def test_the_longest_network_decides_the_zone():
    wide, narrow = Zone("wide", (ip_network("10.0.0.0/8"),)), Zone("narrow", (ip_network("10.1.0.0/16"),))
    flows = table(flow("10.1.0.1"), flow("10.2.0.1"), flow("192.0.2.1"))
    assert {name for name, _, _ in seen(flows, zones=(narrow, wide))} == {"narrow", "wide", "192.0.2.1"}


def test_prefixes_end_where_the_disposition_changes():
    flows = table(*(flow(f"10.0.0.{host}", outcome="denied" if host >= 8 else "accepted") for host in range(16)))
    assert seen(flows) == {
        ("10.0.0.0/29", "203.0.113.10", 443): "accepted",
        ("10.0.0.8/29", "203.0.113.10", 443): "denied",
    }


def test_no_prefix_is_wider_than_what_was_seen_or_allowed():
    flows = table(flow("10.0.0.1"), flow("10.0.0.2"), flow("10.200.0.1"), flow("2001:db8::1"))
    assert {name for name, _, _ in seen(flows)} == {"10.0.0.0/30", "10.200.0.1", "2001:db8::1"}
    assert {name for name, _, _ in seen(flows, widest_ipv4=8)} == {"10.0.0.0/8", "2001:db8::1"}


def test_where_prefixes_are_scarce_the_pair_that_misjudges_least_is_joined():
    flows = table(
        flow("10.0.0.0", times=50),
        flow("10.0.0.1", outcome="denied"),
        flow("10.0.0.2", times=50),
        flow("10.0.0.3", outcome="denied", times=50),
    )
    assert seen(flows, most_sources=3) == {
        ("10.0.0.0/31", "203.0.113.10", 443): "accepted",
        ("10.0.0.2", "203.0.113.10", 443): "accepted",
        ("10.0.0.3", "203.0.113.10", 443): "denied",
    }
    assert len(seen(flows, most_sources=1)) == 1


def test_a_scan_is_one_pool_of_ports_beside_the_services():
    scan = [flow("192.0.2.66", port=port, outcome="unanswered") for port in range(1000, 1400)]
    found = seen(table(*scan, flow("192.0.2.1", times=9)), most_ports=4)
    assert len(found) == 4 + 1 + 1
    assert found["192.0.2.66", "203.0.113.10", POOLED_PORT] == "unanswered"
    assert found["192.0.2.1", "203.0.113.10", 443] == "accepted"


def test_medians_keep_their_stated_error():
    random = np.random.default_rng(7)
    delays = np.exp(random.normal(15, 2, 1001))
    flows = pd.concat([table(flow("10.0.0.1", connect_ns=one)) for one in delays.tolist()], ignore_index=True)
    measured = classes(model_of(flows))["connect_ns"].iloc[0]
    assert measured == pytest.approx(np.median(delays), rel=RELATIVE_ERROR)


def test_an_old_flow_counts_less_when_it_is_decayed_and_is_forgotten_in_the_end():
    old, new = table(flow("10.0.0.1", times=4, connect_ns=5e6)), table(flow("10.0.0.2", port=80))
    model = updated(model_of(old), new, keep=0.5)
    assert dict(zip(model.cells["port"], model.cells["accepted"], strict=True)) == {443: 2.0, 80: 1.0}
    assert len(decayed(model, 0.009).cells) == 1
    assert decayed(decayed(model, 0.009), 0.1).flows == 0
    assert updated(model_of(old), old) != updated(model_of(old), old, keep=0.5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"outcome": "maybe"}, "the outcome 'maybe'"),
        ({"source_address": "10.0.0.256"}, "'10.0.0.256' is no IP address"),
        ({"destination_port": 70_000}, "70000 in the column 'destination_port'"),
        ({"forward_octets": -1}, "negative"),
        ({"protocol": "tcp"}, "whole numbers"),
    ],
)
def test_a_table_that_is_no_flow_table_is_refused_by_name(wrong, said):
    with pytest.raises(ValueError, match=said):
        model_of(table(flow("10.0.0.1", **wrong)))
    with pytest.raises(ValueError, match="no column 'outcome'"):
        model_of(table(flow("10.0.0.1")).drop(columns="outcome"))


@settings(max_examples=12, deadline=None)
@given(FLOWS, st.data())
def test_any_split_and_order_of_the_flows_gives_the_same_model(flows, data):
    whole = model_of(flows)
    order = data.draw(st.permutations(range(len(flows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(flows)), max_size=3)))
    shuffled = flows.iloc[order]
    pieces = [shuffled.iloc[a:b] for a, b in zip([0, *cuts], [*cuts, len(flows)], strict=True)]
    model = model_of(pieces[0])
    for piece in pieces[1:]:
        model = updated(model, piece)
    assert model == whole
    pd.testing.assert_frame_equal(classes(model), classes(whole))


@settings(max_examples=12, deadline=None)
@given(FLOWS, st.integers(1, 4))
def test_every_flow_is_in_one_class_that_contains_it(flows, most):
    grouping = Grouping(most_sources=most, most_destinations=most, most_ports=2)
    found = classes(model_of(flows, grouping))
    assert found["flows"].sum() == len(flows)
    assert not found.duplicated(list(CLASS_KEY)).any()
    for one in flows.itertuples():
        containing = [
            name
            for name in found.itertuples()
            if name.protocol == one.protocol
            and name.port in (one.destination_port, POOLED_PORT)
            and name.application in (one.application, "")
            and ip_address(one.source_address) in ip_network(name.source)
            and ip_address(one.destination_address) in ip_network(name.destination)
        ]
        assert containing
    if found["port"].min() >= 0:
        per = found.assign(six=found["source"].str.contains(":")).groupby([*CLASS_KEY[1:], "six"]).size()
        assert per.max() <= most


@settings(max_examples=12, deadline=None)
@given(st.dictionaries(st.integers(0, 255), st.sampled_from(OUTCOMES), min_size=1, max_size=40))
def test_the_cover_is_the_smallest_that_agrees(outcome_of):
    flows = table(*(flow(f"10.0.0.{host}", outcome=outcome) for host, outcome in outcome_of.items()))
    found = classes(model_of(flows, Grouping(most_sources=256)))
    assert (found["share"] == 1).all()
    assert len(found) == smallest(outcome_of, 0, 8)


def smallest(outcome_of, base, bits):
    """The size of the smallest disjoint cover, by trying every prefix."""
    inside = {outcome for host, outcome in outcome_of.items() if base <= host < base + (1 << bits)}
    if len(inside) <= 1:
        return len(inside)
    half = 1 << (bits - 1)
    return smallest(outcome_of, base, bits - 1) + smallest(outcome_of, base + half, bits - 1)


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1))
def test_common_bits_are_those_of_the_written_numbers(left, right):
    one, other = parsed([v6(left)]), parsed([v6(right)])
    assert common_bits(one, other)[0] == 128 - (left ^ right).bit_length()


def v6(number):
    return ":".join(f"{number:032x}"[at : at + 4] for at in range(0, 32, 4))
