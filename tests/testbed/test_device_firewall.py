"""Packet filters beyond iptables: nftables files, sets, connection tracking and the kernel's trace of one flow."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from testbed.devices.conntrack import read_statistics
from testbed.devices.linux import machine_sysctls, parse_sysctls
from testbed.devices.nft_text import flushes_everything, listed_rules, made_tables, written_rules
from testbed.devices.rule_trace import FiveTuple, culprit, read_trace, traced
from tests.testbed.labs import datagrams, on_shadow, soon, with_file
from tests.testbed.test_devices import routed

NFT = """#!/usr/sbin/nft -f
# production's own
flush ruleset
define WEB = { 80, 443 }
include "/etc/nftables.d/*.nft"

table inet filter {
    set bad {
        type ipv4_addr
        elements = { 192.0.2.1,
                     192.0.2.2 }
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        tcp dport $WEB counter accept; ip saddr @bad drop
        udp dport 9 \\
            log prefix "to nothing; {" drop
        ct state vmap { invalid : drop, new : jump more }
    }
    chain more { meta l4proto icmp accept; }
}
table ip nat {
    chain post {
        type nat hook postrouting priority srcnat
        oifname "b" masquerade
    }
}
"""
MORE = """table inet more {
    chain in {
        type filter hook input priority 0
        tcp dport 22 accept
    }
}
"""
FILES = {"nftables.conf": NFT, "files/etc/nftables.d/more.nft": MORE}
FLOW = FiveTuple(17, ip_address("10.0.1.2"), ip_address("10.0.2.2"), 0, 9)


def test_rules_of_a_file_have_lines_and_places():
    found = {f"{w.rule.key}": (w.file, w.rule.line, w.rule.text) for w in written_rules(FILES)}
    assert found["inet/filter/forward/0"] == ("nftables.conf", 14, "policy accept")
    assert found["inet/filter/forward/2"] == ("nftables.conf", 16, "tcp dport { 80, 443 } counter accept")
    assert found["inet/filter/forward/3"] == ("nftables.conf", 16, "ip saddr @bad drop")
    assert found["inet/filter/forward/4"][1:] == (17, 'udp dport 9 log prefix "to nothing; {" drop')
    assert found["inet/filter/forward/5"][1] == 19
    assert found["inet/more/in/1"] == ("files/etc/nftables.d/more.nft", 4, "tcp dport 22 accept")
    assert made_tables(FILES) == {"inet/filter", "inet/more", "ip/nat"}
    assert flushes_everything(NFT) == 3


PIECES = st.sampled_from(
    [
        "table inet a {",
        "chain b {",
        "}",
        "{",
        ";",
        "\n",
        "\\",
        '"',
        "#",
        "$x",
        "add rule a b ",
        "define x = ",
        "include ",
        "flush ruleset",
        "drop ",
        "insert rule",
    ]
)


@given(st.lists(PIECES | st.text(max_size=4)).map("".join))
def test_hostile_nft_text_never_breaks_the_parsers_and_lines_stay_true(text):
    for written in written_rules({"nftables.conf": text, "files/etc/x": text}):
        assert 1 <= written.rule.line <= text.count("\n") + 1
    for listed in listed_rules(text):
        assert listed.rule.index > 0
    read_trace(text, {}, {"nftables.conf": text.encode()})
    read_statistics(text)


def test_every_rule_is_counted_a_change_is_one_transaction_and_a_typo_has_its_line(tmp_path):
    def counted(shadow):
        return {r.object: (r.value, r.state) for r in shadow.readings()["m"] if r.object.startswith("nftables.conf:")}

    def job(shadow):
        h1, m = shadow.boxes["h1"].namespace, shadow.boxes["m"]
        first = counted(shadow)
        datagrams(h1, "10.0.2.2", 5)
        second = counted(shadow)
        before = shadow.configs["m"]
        wrong = shadow.check("m", with_file(shadow, "m", "nftables.conf", NFT.replace("@bad drop", "@bad dorp")))
        inside = {"files/etc/nftables.d/more.nft": MORE.replace("accept", "acept").encode()}
        included = shadow.check("m", {**before, **inside})
        both = shadow.check("m", with_file(shadow, "m", "iptables.rules", "*filter\nCOMMIT\n"))
        shadow.reconfigure("m", with_file(shadow, "m", "nftables.conf", NFT.replace("udp dport 9", "udp dport 99")))
        datagrams(h1, "10.0.2.2", 5)
        third = counted(shadow)
        shadow.reconfigure("m", before)
        back = {key: state for key, (_, state) in counted(shadow).items()}
        conntrack = {r.metric: r.value for r in shadow.readings()["m"] if r.kind == "conntrack"}
        shadow.reconfigure("m", {})
        return first, second, third, back, wrong, included, both, conntrack, m.run(["nft", "list", "ruleset"])

    lab = routed(tmp_path, contents=FILES)
    first, second, third, back, wrong, included, both, conntrack, rest = on_shadow(lab, tmp_path, job)
    key = "nftables.conf:inet/filter/forward/4"
    assert len(first) == 8
    assert first[key][1] == 'udp dport 9 log prefix "to nothing; {" counter drop'
    assert second[key][0] - first[key][0] == 5
    assert third[key][0] == 0
    assert back == {k: state for k, (_, state) in first.items()}
    assert [(c.file, c.line) for c in wrong] == [("nftables.conf", 16)]
    assert [(c.file, c.line) for c in included] == [("files/etc/nftables.d/more.nft", 4)]
    assert [(c.file, c.line) for c in both] == [("nftables.conf", 3)]
    assert conntrack["entries"] >= 1
    assert {"limit", "insert_failed", "drop"} <= set(conntrack)
    assert rest == ""


SETS = "create bad hash:net family inet hashsize 1024 maxelem 65536\nadd bad 10.0.1.0/24\n"
RULES = """*nat
-A POSTROUTING -o b -j MASQUERADE
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -p udp -m udp --dport 53 -j ACCEPT
-A FORWARD -p udp -m set --match-set bad src -j DROP
COMMIT
"""


def test_sets_are_there_before_the_rules_and_are_swapped_live(tmp_path):
    def job(shadow):
        m = shadow.boxes["m"]

        def dropped():
            before = {r.object: r.value for r in shadow.readings()["m"]}
            datagrams(shadow.boxes["h1"].namespace, "10.0.2.2", 3)
            key = "iptables.rules:filter/FORWARD/2"
            return {r.object: r.value for r in shadow.readings()["m"]}[key] - before[key]

        first, before = dropped(), shadow.configs["m"]
        shadow.reconfigure("m", with_file(shadow, "m", "ipset.rules", SETS.replace("10.0.1.0", "10.0.7.0")))
        second = dropped()
        shadow.reconfigure("m", before)
        third = dropped()
        wrong = shadow.check("m", with_file(shadow, "m", "ipset.rules", SETS.replace("10.0.1.0/24", "10.0.1.0/240")))
        unknown = shadow.check("m", with_file(shadow, "m", "iptables.rules", RULES.replace("set bad", "set good")))
        shadow.reconfigure("m", {})
        return first, second, third, list(wrong), list(unknown), m.run(["ipset", "list", "-n"])

    lab = routed(tmp_path, contents={"iptables.rules": RULES, "ipset.rules": SETS})
    first, second, third, wrong, unknown, rest = on_shadow(lab, tmp_path, job)
    assert (first, second, third) == (3, 0, 3)
    assert [(c.file, c.line) for c in wrong] == [("ipset.rules", 2)]
    assert [(c.file, c.line) for c in unknown] == [("iptables.rules", 7)]
    assert rest == ""


def test_the_trace_of_a_dropped_flow_names_the_rule_and_leaves_nothing(tmp_path):
    def run(shadow):
        m = shadow.boxes["m"]
        with traced(m, shadow.configs["m"], FLOW) as trace:
            datagrams(shadow.boxes["h1"].namespace, "10.0.2.2", 1)
            soon(lambda: culprit(trace.steps()), 5)
            steps = trace.steps()
        return steps, "shadow_trace" in m.run(["nft", "list", "ruleset"])

    for name, contents, where in (
        ("nft", FILES, ("nftables.conf", 17, "forward", 4)),
        ("ipt", {"iptables.rules": RULES, "ipset.rules": SETS}, ("iptables.rules", 7, "FORWARD", 2)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        steps, left = on_shadow(routed(folder, contents=contents), folder, run)
        found = culprit(steps)
        assert found is not None, steps
        assert (found.file, found.line, found.chain, found.place) == where
        assert all(step.table != "inet/shadow_trace" for step in steps)
        assert not left


def test_settings_that_all_namespaces_share_are_left_alone_by_name():
    text = b"net.netfilter.nf_conntrack_max = 9\nnet.netfilter.nf_conntrack_tcp_loose=0\nvm.swappiness=1\n"
    assert parse_sysctls(text) == {"net.netfilter.nf_conntrack_tcp_loose": "0"}
    assert machine_sysctls(text) == ["net.netfilter.nf_conntrack_max", "vm.swappiness"]
