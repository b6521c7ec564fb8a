"""What is pure about a blame's witnesses: ports through translation, session logs, a trace's word, the way back."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.verdict import Blame
from replay.schedule import FlowScript
from testbed.attribution.match import Leg, meets_routing
from testbed.attribution.way import Ways, rewritten
from testbed.devices.nft_text import FILE as NFT
from testbed.devices.packet_filter import tables
from testbed.devices.session_log import Tally, code_in_words, log_places, read_tally
from testbed.gate.undoing import undoing, undoing_tables
from testbed.preflight.probe import Survey
from testbed.store import RunDirectory
from testbed.trace.journey import Culprit, Decision, End, Ended, Hop, Journey, Parting, Trace, TracedFlow, Tuple
from testbed.trace.journey import Leg as TracedLeg
from testbed.trace.of_run import chosen, failed_with_change
from testbed.trace.witnessed import NAME, read_testimony, witnessed
from testbed.trace.witnessed import testimony as told_by
from tests.testbed.shop_scene import TO_WEB, finding, flow, shop, table

DNAT = "-A PREROUTING -d 203.0.113.10/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination {}"
HTTP_LOG = (
    "<134>Nov 25 09:00:00 haproxy[7]: 198.51.100.7:40000 [25/Nov/2026:09:00:00.000] web~ servers/web1 0/0/1/-1/102"
    ' 504 194 - - sH-- 1/1/0/0/0 0/0 "GET /slow HTTP/1.1"'
)
TCP_LOG = (
    "<134>Nov 25 09:00:00 haproxy[7]: 198.51.100.7:1 [25/Nov/2026:09:00:00.000] db pool/<NOSRV> -1/-1/5 0 SC"
    " 1/1/0/0/3 0/0"
)


def leg(port: int = 443) -> Leg:
    ends = (frozenset({ip_address(end)}) for end in ("198.51.100.7", "203.0.113.10"))
    return Leg(4, 6, *ends, 40_000, frozenset({port}))


@pytest.mark.parametrize(
    ("rules", "before", "behind"),
    [
        (DNAT.format("10.2.0.10"), {443}, {443}),
        (DNAT.format("10.2.0.10:8443"), {443}, {8443}),
        (DNAT.format("10.2.0.10:8443-8450"), {443}, None),
        (DNAT.format("10.2.0.10:8443").replace("--dport 443", "--dport 80"), {443}, {443}),
        ("-A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 3128", {443}, {3128}),
    ],
)
def test_a_flow_has_another_port_behind_the_rule_that_gives_it_one(rules, before, behind):
    text = f"*nat\n:PREROUTING ACCEPT [0:0]\n{rules}\nCOMMIT\n"
    ways = Ways.of(shop().topology.nodes, {("fw1", "iptables.rules"): text})
    found = ways.legs(leg(), TO_WEB[:6])
    assert found.legs[0][1].ports == before
    assert found.legs[-1][1].ports == found.doors == behind
    assert "fw1" in found.legs[0][0] & found.legs[-1][0]
    assert "r1" in found.legs[-1][0]


def test_nftables_translates_ports_by_rule_and_by_map():
    words = "table ip nat {{\n chain prerouting {{\n  type nat hook prerouting priority -100;\n  {}\n }}\n}}\n"
    (one,) = rewritten({NFT: words.format("tcp dport 443 dnat to 10.2.0.10:8443")})
    assert (one.version, one.port) == (4, 8443)
    (mapped,) = rewritten({NFT: words.format("dnat to tcp dport map { 443 : 10.2.0.10, 80 : 10.2.0.11 }")})
    assert mapped.port is None


@given(st.text(alphabet="-ADNTRECto:[]0123456789. redirct\n*COMMITnat", max_size=200))
def test_any_text_as_packet_filter_rewrites_something_or_nothing(text):
    for one in rewritten({"iptables.rules": f"*nat\n{text}\nCOMMIT\n", NFT: text}):
        assert one.port is None or 0 <= one.port <= 65_535


def test_sessions_are_counted_by_server_and_code_in_both_formats():
    tally = Tally()
    for line in (HTTP_LOG, HTTP_LOG, TCP_LOG, "<133>haproxy[7]: Server servers/web1 is DOWN, reason: Layer4"):
        tally.hear(line)
    assert tally.sessions == {"servers/web1 sH": 2, "pool/<NOSRV> SC": 1}
    assert tally.lines == 4
    again = read_tally(tally.text())
    assert (again.sessions, again.lines, list(again.last)) == (tally.sessions, 4, list(tally.last))


def test_codes_are_told_in_words():
    assert code_in_words("sH--") == "the server's timeout, before the server's whole answer head"
    assert code_in_words("SC") == "the server gave up or refused, while connecting to the server"
    assert code_in_words("----") == "an ordinary end"
    assert code_in_words("??") == "a code that is not known here"


@given(st.text(max_size=300), st.binary(max_size=60))
def test_no_log_line_and_no_tally_breaks_the_count(line, rest):
    tally = Tally()
    tally.hear(line)
    assert tally.lines == 1
    assert read_tally(rest.decode(errors="replace")).lines == 0
    assert isinstance(code_in_words(line), str)
    assert isinstance(log_places(line), list)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)))
def test_a_tally_of_any_shape_is_read_as_one_or_as_none(value):
    for told in (value, {"sessions": value, "lines": value, "last": value}, {"sessions": {"a": value}, "lines": 1}):
        assert read_tally(json.dumps(told)).lines >= 0 or isinstance(value, int)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("global\n  log 127.0.0.1 local0\n", ["127.0.0.1:514"]),
        ("global\n  log 127.0.0.1:5140 local0\n  log 10.0.0.9:514 local0\n", ["127.0.0.1:5140"]),
        ("global\n  log /dev/log local0\n  chroot /var/lib/haproxy\n", ["/var/lib/haproxy/dev/log"]),
        ("global\n  log /dev/log local0\n", []),
        ("defaults\n  log global\n", []),
    ],
)
def test_logs_are_received_only_where_nobody_else_stands(text, places):
    assert log_places(text) == places


def test_rules_that_routers_speak_through_are_known():
    assert meets_routing("-A INPUT -p ospf -j DROP", 4)
    assert meets_routing("-A INPUT -p tcp -m tcp --dport 179 -j DROP", 4)
    assert not meets_routing("-A INPUT -p tcp -m tcp --dport 22 -j DROP", 4)


def hop(node: str, *decisions: Decision) -> Hop:
    packet = Tuple(6, "198.51.100.7", 40_000, "203.0.113.10", 443)
    return Hop(node, "firewall", "ens3", "ens4", 0, 1, 1, 1, packet, packet, decisions)


DROP = Decision("rule", "fw1", "ip/filter FORWARD rule 2", "-A FORWARD -j DROP", "drop", "iptables.rules", 7)


def traced(in_change: bool = True) -> Trace:
    legs = (TracedLeg(0, "forward", (hop("fw1"),)),)
    before = Journey(legs, End(Ended.DELIVERED, "web1"), {"completed": True})
    after = Journey(legs, End(Ended.DROPPED, "fw1", decision=DROP), {"completed": False})
    who = Culprit("fw1", DROP.object, "configs/fw1/iptables.rules", 7, DROP.text, in_change)
    known = TracedFlow("a", "checkout", "high", 6, "198.51.100.7", 40_000, "203.0.113.10", 443, "accepted")
    return Trace("run", "change", known, before, after, Parting("fw1", "how it ended", "on", "dropped", 0, 0), (who,))


def test_a_trace_takes_the_place_of_a_guess_and_confirms_what_counters_say():
    told = told_by(traced())
    assert told.sentences[0].startswith("traced 198.51.100.7:40000 → 203.0.113.10:443: before the change delivered")
    guess = Blame("r1", "x", "configs/r1/frr.conf", 3, "ip route", ("the only changed line",), "diff")
    (better,) = witnessed([finding("a").with_blame(guess)], told)
    assert better.blame is not None
    assert (better.blame.node, better.blame.line, better.blame.decided_by) == ("fw1", 7, "trace")
    assert "the change alone would suggest configs/r1/frr.conf:3" in better.blame.evidence
    (nobody,) = witnessed([finding("a")], told)
    assert nobody.blame is not None
    assert nobody.blame.line == 7
    same = Blame("fw1", "rule", "configs/fw1/iptables.rules", 7, DROP.text, ("80 packets",), "counters")
    (confirmed,) = witnessed([finding("a").with_blame(same)], told)
    assert confirmed.blame == replace(same, evidence=("80 packets", *told.sentences), decided_by="trace")
    other = replace(same, node="r2", file="configs/r2/frr.conf")
    (kept,) = witnessed([finding("a").with_blame(other)], told)
    assert kept.blame is not None
    assert (kept.blame.node, kept.blame.decided_by) == ("r2", "counters")


def test_a_latent_line_that_the_trace_shows_is_said_to_be_none_of_the_change():
    (found,) = witnessed([finding("a")], told_by(traced(in_change=False)))
    assert found.blame is not None
    assert not found.blame.in_change
    assert any("not part of the change: configs/fw1/iptables.rules:7" in said for said in found.blame.evidence)
    guess = Blame("fw1", "x", "configs/fw1/iptables.rules", 3, "-A FORWARD", ("the only changed line",), "diff")
    (kept,) = witnessed([finding("a").with_blame(guess)], told_by(traced(in_change=False)))
    assert kept.blame is not None
    assert (kept.blame.line, kept.blame.in_change, kept.blame.decided_by) == (3, True, "diff")
    assert any("not part of the change: configs/fw1/iptables.rules:7" in said for said in kept.blame.evidence)


def test_a_stored_testimony_tells_the_same_again_and_a_damaged_one_is_refused(tmp_path: Path):
    run = RunDirectory.created(tmp_path, "r")
    assert read_testimony(run) is None
    told = told_by(traced())
    run.write_json(NAME, {"told": told.model_dump(mode="json"), "trace": {}})
    assert read_testimony(run) == told
    for damage in ({}, {"told": []}, {"told": {"flow_id": 1}}):
        run.write_json(NAME, damage)
        with pytest.raises(ValueError, match="no testimony"):
            read_testimony(run)


def script(name: str, start_s: float) -> FlowScript:
    ends = ("198.51.100.7", 40_000), ("203.0.113.10", 443)
    return FlowScript(name, 6, "internet", *ends, int(start_s * 1e9), (), "fin", "accepted", "", "high")


def test_the_flow_to_trace_is_the_soonest_that_an_unsure_finding_names():
    flows, scripts = (
        table(flow("a", 443), flow("b", 443), flow("c", 443)),
        [script("a", 5), script("b", 1), script("c", 60)],
    )
    survey = Survey((), ())
    sure = Blame("fw1", "rule", "f", 1, "", (), "counters")
    assert chosen([finding("a").with_blame(sure)], flows, scripts, survey, {}, frozenset()) is None
    one = chosen([finding("a", "b")], flows, scripts, survey, {}, frozenset())
    assert one is not None
    assert (one.flow_id, one.lost) == ("b", False)
    lost = chosen([finding("a", "b")], flows, scripts, survey, {}, frozenset({"a"}))
    assert lost is not None
    assert (lost.flow_id, lost.lost) == ("a", True)
    assert chosen([finding("c")], flows, scripts, survey, {}, frozenset()) is None
    latent = replace(sure, in_change=False)
    assert chosen([finding("a").with_blame(latent)], flows, scripts, survey, {}, frozenset()) is not None


def test_flows_that_came_through_only_before_are_the_lost_ones():
    rows = [("a", "baseline", True), ("a", "treatment", False), ("b", "baseline", True), ("b", "treatment", True)]
    rows += [("c", "baseline", False), ("c", "treatment", False)]
    kpis = pd.DataFrame(rows, columns=["flow_id", "role", "completed"])
    assert failed_with_change(kpis) == {"a"}


def test_what_is_loaded_to_go_back_takes_away_tables_and_members_that_only_the_change_made():
    old = b"*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"
    new = old + b"*mangle\n-A FORWARD -j DROP\nCOMMIT\n"
    told = undoing("iptables.rules", old, new)
    assert told is not None
    assert told.startswith(old)
    assert tables(told) == {"filter", "mangle"}
    assert undoing("iptables.rules", old, old) == old
    gone = undoing("ip6tables.rules", None, old)
    assert gone is not None
    assert b":FORWARD ACCEPT" in gone
    sets = undoing("ipset.rules", b"create a hash:ip\nadd a 10.0.0.1\n", b"create a hash:ip\nadd a 10.0.0.2\n")
    assert sets == b"create a hash:ip\nflush a\nadd a 10.0.0.1\n"
    guard = {NFT: b"table inet guard {\n}\n"}
    assert undoing_tables({}, guard) == b"add table inet guard\ndelete table inet guard\n"


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_any_two_files_have_a_way_back(old, new):
    for file in ("iptables.rules", "ipset.rules", "frr.conf", "haproxy.cfg"):
        assert undoing(file, old, new) is not None
    assert isinstance(undoing_tables({NFT: old}, {NFT: new}), bytes)
