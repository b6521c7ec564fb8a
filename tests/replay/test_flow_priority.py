"""Rules give every flow one class and one priority, the first match's."""

from __future__ import annotations

from ipaddress import ip_network

import pandas as pd
import pytest

from replay.flow_priority import Rule, classified

FLOWS = pd.DataFrame(
    {
        "protocol": [6, 6, 17, 1, 58, 6],
        "source_address": ["198.51.100.7", "192.0.2.1", "198.51.100.7", "10.0.0.1", "2001:db8::1", "2001:db8:100::7"],
        "destination_address": [
            "203.0.113.10",
            "203.0.113.10",
            "10.2.0.53",
            "10.0.0.2",
            "2001:db8::2",
            "2001:db8:f::2",
        ],
        "destination_port": [443, 443, 53, 9, 9, 80],
        "application": ["tls", "tls", "dns", "", "", "http"],
        "label": ["checkout.shop.example", "www.shop.example", "web.example", "", "", "Checkout.shop.example"],
    }
)


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        (Rule("all"), [0, 1, 2, 3, 4, 5]),
        (Rule("tcp", protocol="tcp"), [0, 1, 5]),
        (Rule("icmp", protocol="icmp"), [3, 4]),
        (Rule("https", port=443), [0, 1]),
        (Rule("some", port=(range(1, 2), range(443, 444))), [0, 1]),
        (Rule("names", label="checkout.*"), [0, 5]),
        (Rule("speech", application="dns"), [2]),
        (Rule("four", source=(ip_network("198.51.100.0/24"),)), [0, 2]),
        (Rule("both", source=(ip_network("198.51.100.0/24"), ip_network("2001:db8:100::/48"))), [0, 2, 5]),
        (Rule("vip", destination=(ip_network("203.0.113.10/32"),), protocol="tcp", port=443), [0, 1]),
        (Rule("ends", ends=(ip_network("10.0.0.0/30"), ip_network("192.0.2.1/32"))), [1, 3]),
        (Rule("none", protocol="udp", application="tls"), []),
    ],
)
def test_a_rule_matches_exactly_what_all_its_conditions_allow(rule, rows):
    table = classified(FLOWS, [rule])
    assert table.index[table["flow_class"] == rule.name].tolist() == rows


def test_the_first_matching_rule_wins_and_the_rest_is_other():
    rules = [Rule("checkout", "critical", label="checkout.*", port=443), Rule("web", "high", protocol="tcp")]
    table = classified(FLOWS, rules)
    assert table["flow_class"].tolist() == ["checkout", "web", "other", "other", "other", "web"]
    assert table["priority"].tolist() == ["critical", "high", "normal", "normal", "normal", "high"]


def test_an_empty_table_stays_empty():
    assert classified(FLOWS.iloc[:0], [Rule("all", source=(ip_network("::/0"),), label="*")]).empty


@pytest.mark.parametrize("wrong", [{"priority": "urgent"}, {"protocol": "sctp"}])
def test_unknown_words_are_refused_with_the_choices(wrong):
    with pytest.raises(ValueError, match=r"no .*; have: "):
        Rule("x", **wrong)
