"""Rule texts against flows: what must match, what must not, and texts that nobody foresaw."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.attribution.match import Leg, canonical, matches, options, stops_path_mtu, target

LEG = Leg(
    4,
    6,
    frozenset({ip_address("198.51.100.7")}),
    frozenset({ip_address("203.0.113.10"), ip_address("10.2.0.10")}),
    40000,
    frozenset({443}),
)


@pytest.mark.parametrize(
    "text",
    [
        "-A FORWARD -j DROP",
        "-A FORWARD -p tcp --dport 443 -j DROP",
        "-A FORWARD -p 6 -m tcp --dport https -j DROP",
        "-A FORWARD -p tcp -m multiport --dports 80,400:500 -j DROP",
        "-A FORWARD -d 10.2.0.0/24 -p tcp -m tcp --dport 443 -m conntrack --ctstate NEW -j DROP",
        "-A FORWARD --destination 203.0.113.10 -j DROP",
        "-A FORWARD ! -s 10.0.0.0/8 -j DROP",
        "-A FORWARD -p tcp ! --dport 80 -j DROP",
        "-A FORWARD -s 10.2.0.10 -p tcp --sport 443 -j DROP",
        "-A FORWARD -p tcp --syn -m connlimit --connlimit-above 2 -j REJECT",
        "-A FORWARD -p tcp --dport no-such-service -j DROP",
        "policy DROP",
    ],
)
def test_a_rule_that_takes_the_flow_matches(text):
    assert matches(text, LEG)


@pytest.mark.parametrize(
    "text",
    [
        "-A FORWARD -p udp --dport 443 -j DROP",
        "-A FORWARD -p tcp --dport 80 -j DROP",
        "-A FORWARD -p tcp -m multiport --dports 80,8080:8090 -j DROP",
        "-A FORWARD -d 10.2.0.11/32 -j DROP",
        "-A FORWARD ! -p tcp -j DROP",
        "-A FORWARD -p tcp ! --dport 443 ! --sport 443 -j DROP",
        "-A FORWARD -s 192.0.2.0/24 -j DROP",
        "-A FORWARD -d 2001:db8::/32 -j DROP",
    ],
)
def test_a_rule_for_others_does_not_match(text):
    assert not matches(text, LEG)


def test_a_rule_is_the_same_in_the_file_and_as_the_kernel_saves_it():
    written = "-A FORWARD -p tcp --dport https -d 10.2.0.10 -j DROP"
    saved = "-A FORWARD -d 10.2.0.10/32 -p tcp -m tcp --dport 443 -j DROP"
    assert canonical(written) == canonical(saved)
    assert canonical(written) != canonical(saved.replace("443", "80"))
    assert canonical("-A X ! -s 10.0.0.1 -j DROP") != canonical("-A X -s 10.0.0.1 -j DROP")


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("-A OUTPUT -p icmp -m icmp --icmp-type 3/4 -j DROP", True),
        ("-A OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP", True),
        ("-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 2 -j DROP", True),
        ("-A FORWARD -p icmp -j DROP", True),
        ("-A FORWARD -p icmp -m icmp --icmp-type 8 -j DROP", False),
        ("-A FORWARD -j DROP", False),
        ("-A FORWARD ! -p icmp -j DROP", False),
    ],
)
def test_rules_that_keep_path_mtu_errors_away_are_known(text, stops):
    assert stops_path_mtu(text) is stops


def test_targets_are_read_in_every_spelling():
    assert target("-A FORWARD --jump LOGDROP") == "LOGDROP"
    assert target("-A FORWARD -g OTHER") == "OTHER"
    assert target("policy DROP") == "DROP"
    assert target("-A FORWARD") == ""


PIECES = [
    "!",
    "-",
    "--",
    "-p",
    "-s",
    "-d",
    "--dport",
    "--dports",
    "--sport",
    "-m",
    "-j",
    "65536",
    ":",
    "1:",
    "²",
    "'",
    '"',
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=20)), max_size=12).map(" ".join))
def test_no_text_at_all_breaks_the_matcher(text):
    assert isinstance(matches(text, LEG), bool)
    assert isinstance(target(text), str)
    assert isinstance(stops_path_mtu(text), bool)
    assert canonical(text) == canonical(text)
    assert all(option.name for option in options(text))
