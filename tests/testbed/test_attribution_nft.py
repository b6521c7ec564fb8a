"""nftables rules as culprits, by the same grounds as iptables'."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.attribution import blamed
from testbed.attribution.match import Leg, canonical, matches, stops_path_mtu, target
from testbed.attribution.nft_words import in_iptables_words
from tests.testbed.shop_scene import TO_WEB, counters, edited, finding, flow, shop, table

NFT = """flush ruleset
table inet filter {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        tcp dport 443 drop
        udp dport 53 accept
    }
}
"""


def test_a_new_nft_rule_that_drops_both_families_is_blamed_with_its_line(tmp_path: Path):
    change = edited(tmp_path, {"fw1/nftables.conf": [("", NFT)]})
    read = counters(
        (
            "fw1",
            "rule",
            "nftables.conf:inet/filter/forward/1",
            "packets",
            0,
            50,
            "",
            "ct state established,related counter accept",
        ),
        (
            "fw1",
            "rule",
            "nftables.conf:inet/filter/forward/2",
            "packets",
            float("nan"),
            240,
            "",
            "tcp dport 443 counter drop",
        ),
        (
            "fw1",
            "rule",
            "nftables.conf:inet/filter/forward/3",
            "packets",
            float("nan"),
            3,
            "",
            "udp dport 53 counter accept",
        ),
    )
    flows = table(flow("a", 443), flow("b", 443, six=True), flow("web", 80))
    (told,) = blamed([finding("a", "b")], change, shop(), read, flows, dict.fromkeys(("a", "b", "web"), TO_WEB))
    assert told.blame is not None
    assert (told.blame.node, told.blame.file, told.blame.line) == ("fw1", "configs/fw1/nftables.conf", 6)
    assert told.blame.text.strip() == "tcp dport 443 drop"
    assert told.blame.object == "inet/filter forward rule 2"
    assert "240 packets a window" in "\n".join(told.blame.evidence)


def test_a_rule_in_an_included_file_is_blamed_there(tmp_path: Path):
    main = NFT.replace("table inet", 'include "/etc/nftables.d/*.nft"\ntable inet').replace(
        "        tcp dport 443 drop\n", ""
    )
    more = "table inet filter {\n    chain forward {\n        tcp dport 443 drop\n    }\n}\n"
    edits = {"fw1/nftables.conf": [("", main)], "fw1/files/etc/nftables.d/more.nft": [("", more)]}
    change = edited(tmp_path, edits)
    rule = "nftables.conf:inet/filter/forward/1"
    read = counters(("fw1", "rule", rule, "packets", float("nan"), 240, "", "tcp dport 443 counter drop"))
    flows = table(flow("a", 443), flow("web", 80))
    (told,) = blamed([finding("a")], change, shop(), read, flows, dict.fromkeys(("a", "web"), TO_WEB))
    assert told.blame is not None
    assert (told.blame.file, told.blame.line) == ("configs/fw1/files/etc/nftables.d/more.nft", 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp dport { 80, 443 } counter drop", "-p tcp --dports 80,443 -j DROP"),
        ("ip saddr != 10.0.0.0/8 udp sport 1000-2000 accept", "! -s 10.0.0.0/8 -p udp --sports 1000:2000 -j ACCEPT"),
        ("ip saddr @bad drop", "-j DROP"),
        ("ct state established,related accept", "--ctstate ESTABLISHED,RELATED -j ACCEPT"),
        ('iifname "ens3" meta l4proto { tcp, udp } th dport 53 jump dns', "-i ens3 -p tcp,udp --dports 53 -j dns"),
        ("ct state vmap { invalid : drop, new : jump more }", ""),
        ("ip daddr 192.0.2.1 tcp dport 80 dnat to 10.0.0.1:8080", "-d 192.0.2.1 -p tcp --dports 80 -j DNAT"),
        (
            'icmp type destination-unreachable log prefix "tcp dport 1 " drop',
            "-p icmp --icmp-type destination-unreachable -j DROP",
        ),
        ("policy drop", "policy DROP"),
    ],
)
def test_nft_text_says_the_same_in_iptables_words(text: str, words: str):
    assert in_iptables_words(text) == words


def test_rules_match_flows_whichever_their_language():
    leg = Leg(4, 6, frozenset({ip_address("10.1.1.1")}), frozenset({ip_address("10.2.2.2")}), 40000, frozenset({443}))
    assert matches("ip saddr 10.1.0.0/16 tcp dport 443 drop", leg)
    assert not matches("ip saddr 10.9.0.0/16 tcp dport 443 drop", leg)
    assert not matches("tcp dport { 80, 8000-9000 } drop", leg)
    assert matches("tcp dport @ports drop", leg)
    assert canonical("tcp dport ssh accept") == canonical("tcp dport 22 counter accept")
    assert target("policy drop") == "DROP"
    assert stops_path_mtu("icmp type destination-unreachable drop")


PIECES = st.sampled_from(
    ["tcp ", "dport ", "{", "}", ",", "!= ", "@x ", '"', "vmap ", "jump ", "drop", "ct state ", "meta ", "-", " "]
)


@given(st.lists(PIECES | st.text(max_size=4)).map("".join))
def test_any_text_has_words(text: str):
    assert isinstance(in_iptables_words(text), str)
    canonical(text)
    target(text)
