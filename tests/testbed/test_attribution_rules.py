"""Packet filter rules as culprits: added, removed, limited, moved, and those that lay in wait."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.verdict import Severity
from testbed.attribution import blamed
from testbed.attribution.match import canonical
from testbed.devices.packet_filter import parse_rules
from tests.testbed.evidence_lab import RULES, SERVER, change_of, evidence_lab
from tests.testbed.evidence_lab import TO_WEB as THERE
from tests.testbed.shop_scene import SHOP, TO_DNS, TO_WEB, counters, edited, finding, flow, rule_hits, shop, table
from topologies.load import load_lab

FILTER = "fw1/iptables.rules"
SIX = "fw1/ip6tables.rules"
HTTPS = "-A FORWARD -d 10.2.0.10/32 -i ens3 -p tcp -m tcp --dport 443 -m conntrack --ctstate NEW -j ACCEPT"
HTTPS_SIX = HTTPS.replace("10.2.0.10/32", "2001:db8:1:2::10/128")
BLOCK = "-A FORWARD -p tcp --dport 443 -j DROP"
ESTABLISHED = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"


def line_of(change, node, file, text):
    return change.after[node, file].decode().splitlines().index(text) + 1


def blocked(folder):
    return edited(
        folder,
        {FILTER: [(ESTABLISHED, f"{BLOCK}\n{ESTABLISHED}")], SIX: [(ESTABLISHED, f"{BLOCK}\n{ESTABLISHED}")]},
    )


def block_counters(change):
    four = rule_hits(change, "fw1", "iptables.rules", {"443 -m": 80, "LOGDROP -j DROP": 12}, {"443 -j DROP": 236})
    six = rule_hits(change, "fw1", "ip6tables.rules", {"443 -m": 40}, {"443 -j DROP": 96})
    return pd.concat([four, six])


def test_an_added_drop_in_both_families_is_blamed_in_the_family_of_more_flows(tmp_path: Path):
    change = blocked(tmp_path)
    flows = table(flow("a", 443), flow("b", 443), flow("c", 443, six=True), flow("web", 80))
    paths = dict.fromkeys(("a", "b", "c", "web"), TO_WEB)
    (told,) = blamed([finding("a", "b", "c")], change, shop(), block_counters(change), flows, paths)
    assert told.blame is not None
    assert (told.blame.node, told.blame.file) == ("fw1", "configs/fw1/iptables.rules")
    assert (told.blame.text, told.blame.line) == (BLOCK, line_of(change, "fw1", "iptables.rules", BLOCK))
    evidence = "\n".join(told.blame.evidence)
    assert "236 packets a window" in evidence
    assert "configs/fw1/ip6tables.rules" in evidence
    assert "96 packets" in evidence


def test_flows_of_ipv6_alone_are_blamed_on_ip6tables(tmp_path: Path):
    change = blocked(tmp_path)
    flows = table(flow("a", 443), flow("c", 443, six=True))
    (told,) = blamed([finding("c")], change, shop(), block_counters(change), flows, dict.fromkeys(("a", "c"), TO_WEB))
    assert told.blame is not None
    assert told.blame.file == "configs/fw1/ip6tables.rules"
    assert told.blame.text == BLOCK


def test_flows_that_the_rule_does_not_match_are_not_blamed_on_its_hits(tmp_path: Path):
    change = blocked(tmp_path)
    flows = table(flow("web", 80), flow("a", 443))
    (told,) = blamed([finding("web")], change, shop(), block_counters(change), flows, {"web": TO_WEB, "a": TO_WEB})
    assert told.blame is None or "no counter" in " ".join(told.blame.evidence)


def test_information_is_left_alone(tmp_path: Path):
    change = blocked(tmp_path)
    told = finding("a", severity=Severity.INFO)
    flows = table(flow("a", 443))
    assert blamed([told], change, shop(), block_counters(change), flows, {"a": TO_WEB}) == (told,)


def test_a_removed_accept_is_blamed_where_it_stood_and_the_drop_that_took_over_is_evidence(tmp_path: Path):
    change = edited(tmp_path, {FILTER: [(f"{HTTPS}\n", "")]})
    hits = rule_hits(
        change,
        "fw1",
        "iptables.rules",
        {"dport 443 -m conntrack": 118, "FORWARD -j LOGDROP": 12, "LOGDROP -j DROP": 12},
        {"FORWARD -j LOGDROP": 366, "LOGDROP -j DROP": 366},
    )
    flows = table(flow("a", 443))
    (told,) = blamed([finding("a")], change, shop(), hits, flows, {"a": TO_WEB})
    assert told.blame is not None
    old = change.before["fw1", "iptables.rules"].decode().splitlines()
    assert (told.blame.file, told.blame.line) == ("configs/fw1/iptables.rules", old.index(HTTPS) + 1)
    evidence = " ".join(told.blame.evidence)
    assert "118 packets a window before" in evidence
    assert "366 packets a window after the change, 12 before" in evidence


def test_an_accept_that_was_narrowed_is_blamed_in_its_new_form(tmp_path: Path):
    narrowed = HTTPS.replace("--dport 443", "--dport 4443")
    change = edited(tmp_path, {FILTER: [(HTTPS, narrowed)]})
    hits = rule_hits(change, "fw1", "iptables.rules", {"dport 443 -m conntrack": 118}, {"FORWARD -j LOGDROP": 300})
    (told,) = blamed([finding("a")], change, shop(), hits, table(flow("a", 443)), {"a": TO_WEB})
    assert told.blame is not None
    assert told.blame.text == narrowed
    assert told.blame.line == line_of(change, "fw1", "iptables.rules", narrowed)


def test_a_connection_limit_is_blamed_for_the_flows_over_it(tmp_path: Path):
    limit = (
        "-A FORWARD -p tcp -m tcp --syn --dport 80 -m connlimit --connlimit-above 2 --connlimit-mask 0"
        " -j REJECT --reject-with tcp-reset"
    )
    change = edited(tmp_path, {FILTER: [(ESTABLISHED, f"{ESTABLISHED}{limit}\n")]})
    hits = rule_hits(change, "fw1", "iptables.rules", {"--dport 80 -m": 96}, {"connlimit": 31, "--dport 80 -m": 65})
    flows = table(flow("w", 80), flow("x", 80), flow("c", 443))
    (told,) = blamed([finding("w", "x")], change, shop(), hits, flows, dict.fromkeys(("w", "x", "c"), TO_WEB))
    assert told.blame is not None
    assert told.blame.text == limit
    assert "31 packets" in told.blame.evidence[0]


def test_a_rule_outside_the_change_is_named_as_one_that_lay_in_wait(tmp_path: Path):
    change = edited(tmp_path, {"r1/frr.conf": [("hostname r1\n", "hostname r1\n! nothing\n")]})
    hits = rule_hits(change, "fw1", "iptables.rules", {"LOGDROP": 4}, {"FORWARD -j LOGDROP": 90})
    (told,) = blamed([finding("a")], change, shop(), hits, table(flow("a", 443)), {"a": TO_WEB})
    assert told.blame is not None
    assert told.blame.text == "-A FORWARD -j LOGDROP"
    assert told.blame.file == "configs/fw1/iptables.rules"
    assert "not part of the change" in " ".join(told.blame.evidence)


def test_comments_alone_are_never_blamed(tmp_path: Path):
    change = edited(tmp_path, {FILTER: [("# the shop\n", "# the shop, and nothing else\n\n")]})
    hits = rule_hits(change, "fw1", "iptables.rules", {"443": 80}, {"443": 80})
    (told,) = blamed([finding("a")], change, shop(), hits, table(flow("a", 443)), {"a": TO_WEB})
    assert told.blame is None


def test_an_unchanged_network_with_empty_counters_has_no_culprit(tmp_path: Path):
    change = edited(tmp_path, {})
    (told,) = blamed([finding("a")], change, shop(), counters(), table(flow("a", 443)), {})
    assert told.blame is None


def test_the_only_changed_line_on_the_way_is_blamed_as_just_that(tmp_path: Path):
    forward = ("net.ipv4.ip_forward = 1", "net.ipv4.ip_forward = 0")
    unknown = ("net.ipv4.ip_forward = 1", "net.ipv4.ip_forward = 1\nnet.ipv4.tcp_sack = 0")
    change = edited(tmp_path, {"r1/sysctl.conf": [unknown]})
    (told,) = blamed([finding("d")], change, shop(), counters(), table(flow("d", 53, protocol=17)), {"d": TO_DNS})
    assert told.blame is not None
    assert told.blame.text == "net.ipv4.tcp_sack = 0"
    assert told.blame.evidence[0] == "the only changed line on these flows' path"
    assert (told.blame.decided_by, told.blame.in_change) == ("diff", True)
    change = edited(tmp_path, {"r1/sysctl.conf": [forward]})
    refused = counters(("r1", "icmp", "ip", "InAddrErrors", 0, 30, "", ""))
    (told,) = blamed([finding("d")], change, shop(), refused, table(flow("d", 53, protocol=17)), {"d": TO_DNS})
    assert told.blame is not None
    assert (told.blame.object, told.blame.decided_by) == ("sysctl net.ipv4.ip_forward", "counters")
    assert "InAddrErrors 0 → 30 a window (packets for others" in told.blame.evidence[1]


def test_an_accept_moved_below_a_drop_is_blamed_in_its_new_place(tmp_path: Path):
    last = "-A FORWARD -j LOGDROP\n"
    change = edited(tmp_path, {FILTER: [(f"{HTTPS}\n", ""), (last, f"{last}{HTTPS}\n")]})
    hits = rule_hits(change, "fw1", "iptables.rules", {"dport 443 -m conntrack": 118}, {"FORWARD -j LOGDROP": 300})
    (told,) = blamed([finding("a")], change, shop(), hits, table(flow("a", 443)), {"a": TO_WEB})
    assert told.blame is not None
    assert (told.blame.text, told.blame.line) == (HTTPS, line_of(change, "fw1", "iptables.rules", HTTPS))


def test_a_destination_translation_that_is_gone_is_blamed(tmp_path: Path):
    nat = "-A PREROUTING -d 203.0.113.53/32 -i ens3 -p udp -m udp --dport 53 -j DNAT --to-destination 10.2.0.53\n"
    change = edited(tmp_path, {FILTER: [(nat, "")]})
    hits = rule_hits(change, "fw1", "iptables.rules", {"-p udp -m udp --dport 53 -j DNAT": 70}, {"INPUT/0": 210})
    flows = table(flow("d", 53, protocol=17, to="203.0.113.53"))
    (told,) = blamed([finding("d")], change, shop(), hits, flows, {"d": TO_DNS})
    assert told.blame is not None
    assert told.blame.text == nat.strip()
    assert "70 packets" in told.blame.evidence[0]


def test_a_rule_set_by_a_command_is_blamed_on_the_command(tmp_path: Path):
    yaml = """\
commands:
  - node: fw1
    run: [iptables, -I, FORWARD, "1", -p, tcp, --dport, "443", -j, DROP]
    rollback: [iptables, -D, FORWARD, "1"]
"""
    change = edited(tmp_path, {}, yaml)
    live = "-A FORWARD -p tcp -m tcp --dport 443 -j DROP"
    rows = counters(
        ("fw1", "rule", "iptables.rules:filter/FORWARD/1", "packets", 0, 90, "-A FORWARD -j ACCEPT", live),
    )
    (told,) = blamed([finding("a")], change, shop(), rows, table(flow("a", 443)), {"a": TO_WEB})
    assert told.blame is not None
    assert told.blame.text == "iptables -I FORWARD 1 -p tcp --dport 443 -j DROP"
    assert "90 packets a window" in told.blame.evidence[0]


@pytest.mark.parametrize(("file", "program"), [("iptables.rules", "iptables"), ("ip6tables.rules", "ip6tables")])
def test_the_kernels_own_text_of_every_rule_of_the_shop_is_recognised(file, program):
    text = (SHOP / "configs" / "fw1" / file).read_bytes()
    argv = ["unshare", "-rn", "sh", "-c", f"{program}-restore && {program}-save"]
    saved = {
        rule.key: rule
        for rule in parse_rules(subprocess.run(argv, input=text, capture_output=True, check=True).stdout.decode())
    }
    written = parse_rules(text.decode())
    assert len(written) > 8
    for rule in written:
        assert canonical(saved[rule.key].text) == canonical(rule.text)


def test_a_thousand_flows_are_blamed_in_seconds(tmp_path: Path):
    change = blocked(tmp_path)
    names = [f"f{n}" for n in range(1000)]
    flows = table(*(flow(name, 443) | {"source_port": 1024 + n} for n, name in enumerate(names)))
    started = time.monotonic()
    (told,) = blamed([finding(*names)], change, shop(), block_counters(change), flows, dict.fromkeys(names, TO_WEB))
    assert told.blame is not None
    assert time.monotonic() - started < 10


WORDS = st.sampled_from(
    ["-A", "FORWARD", "!", "-p", "tcp", "--dport", "443", ":", "-s", "10.0.0.0/8", "-j", "DROP", '"']
)


@settings(deadline=None)
@given(st.lists(st.one_of(WORDS, st.text(max_size=12)), max_size=14).map(" ".join))
def test_hostile_rules_in_the_kernels_own_text_never_break_the_search(text):
    change = edited_once()
    rows = rule_hits(change, "fw1", "iptables.rules", {"443": 3}, {"443": 9})
    rows["state"] = text
    (told,) = blamed([finding("a")], change, shop(), rows, table(flow("a", 443)), {"a": TO_WEB})
    assert told.finding_id == "f1"


def edited_once():
    with TemporaryDirectory() as folder:
        return blocked(Path(folder))


def test_an_accept_moved_above_a_ban_is_blamed_in_its_new_place_by_the_few_packets_more(tmp_path: Path):
    ban, web = "-A FORWARD -s 198.51.100.7/32 -p tcp -j DROP", "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT"
    old, new = (RULES.replace("-A FORWARD -j ACCEPT\n", f"{one}\n{other}\n") for one, other in ((ban, web), (web, ban)))
    evidence_lab(tmp_path)
    (tmp_path / "configs" / FILTER).write_text(old)
    lab = load_lab(tmp_path)
    change = change_of(lab, "moved", {FILTER: new})
    two, three = "iptables.rules:filter/FORWARD/2", "iptables.rules:filter/FORWARD/3"
    nan = float("nan")
    read = pd.concat(
        counters(("fw1", "rule", name, "packets", before, after, text, text))
        for name, before, after, text in (
            (two, 3, nan, ban),
            (three, 64, nan, web),
            (two, nan, 67, web),
            (three, nan, 0, ban),
        )
    )
    flows = table(flow("a", 80, to=SERVER, outcome="reset"))
    (told,) = blamed([finding("a")], change, lab, read, flows, {"a": THERE})
    assert told.blame is not None
    assert (told.blame.text, told.blame.decided_by) == (web, "counters")
    assert "67 packets a window after the change, 64 before" in told.blame.evidence[0]
    assert "took 0 packets a window after the change, 3 before" in told.blame.evidence[1]
