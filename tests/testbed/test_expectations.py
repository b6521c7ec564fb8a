"""What is declared, held against tables of what was seen; no network."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from ipaddress import ip_address, ip_network

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.judge import judge
from analysis.kpi import MS, Tolerance, Tolerances
from analysis.pairs.judge import judge_pairs
from analysis.reach import COLUMNS as PROBED
from analysis.verdict import Blame, Severity, Verdict
from testbed.change.model import Change
from testbed.expectations.file import read_expectations
from testbed.expectations.matching import bounds_by_class, parted
from testbed.expectations.model import NONE, Expectations, Fate, Intent, Match
from testbed.expectations.weighed import Weighed
from testbed.preflight.opened import exposures
from testbed.preflight.places import places
from testbed.preflight.probe import Kind
from tests.testbed.quick_lab import quick_lab
from topologies.load import load_lab
from topologies.model import Topology

TODAY = date(2026, 11, 25)
CLASSES = ("web", "dns")
WAY = "outside>fw1>r1>sw1>web1"


@pytest.fixture(scope="module")
def topology(tmp_path_factory):
    return load_lab(quick_lab(tmp_path_factory.mktemp("quick") / "lab")).topology


@pytest.fixture
def expecting(tmp_path, topology):
    def reading(text):
        path = tmp_path / "expect.yaml"
        path.write_text(text)
        return read_expectations(path, topology, CLASSES, TODAY, "expect.yaml")

    return reading


def flow_table(web=6, dns=6):
    rows = [("web", 6, 80, n) for n in range(web)] + [("dns", 17, 53, n) for n in range(dns)]
    return pd.DataFrame(
        {
            "flow_id": [f"{name}{n}" for name, _, _, n in rows],
            "flow_class": [name for name, *_ in rows],
            "priority": "normal",
            "protocol": [protocol for _, protocol, _, _ in rows],
            "source_address": [f"198.51.100.{n + 1}" for *_, n in rows],
            "source_port": 40_000,
            "destination_address": "10.1.0.11",
            "destination_port": [port for _, _, port, _ in rows],
            "label": "",
            "application": "",
            "outcome": "accepted",
        }
    )


def windows(flows, errors=(), delay_ms=(), paths=(), count=3):
    """The KPI table and records of `count` windows before and after; the mappings are by class, for windows after."""
    errors, delay_ms, paths = dict(errors), dict(delay_ms), dict(paths)
    rows, records = [], []
    for window in range(2 * count):
        after = window >= count
        role = "treatment" if after else "baseline"
        records.append({"window": window, "role": role, "arm": "", "pair": -1, "valid": True, "reason": ""})
        for number, (flow, name) in enumerate(zip(flows["flow_id"], flows["flow_class"], strict=True)):
            key = name if name in errors or name in delay_ms or name in paths else name.partition(" · ")[0]
            error = errors.get(flow, errors.get(key, "none")) if after else "none"
            response = (10 + number % 3 + window % 2 * 0.1 + (delay_ms.get(key, 0) if after else 0)) * MS
            rows.append(
                {
                    "window": window,
                    "role": role,
                    "flow_id": flow,
                    "completed": error == "none",
                    "error": error,
                    "as_expected": error == "none",
                    "response_ns": response if error == "none" else np.inf,
                    "path": paths.get(key, WAY) if after else WAY,
                }
            )
    return pd.DataFrame(rows), records


def probe_table(*probes):
    rows = [
        {
            "probe_id": f"exposure{n}",
            "kind": "rule",
            "subject": "outside",
            "flow_class": "other",
            "priority": "normal",
            "flows": 0,
            "protocol": 6,
            "source_address": source,
            "source_port": 50_000,
            "destination_address": "10.1.0.11",
            "destination_port": port,
            "source_node": "outside",
            "expected": "",
            "before": before,
            "after": after,
            "restored": "",
            "error_before": "",
            "error_after": "",
            "unsteady": False,
            "origin": "",
            "wanted": False,
            "path": WAY,
        }
        for n, (source, port, before, after) in enumerate(probes)
    ]
    return pd.DataFrame(rows, columns=list(PROBED))


def judged(expectations, topology, flows, kpis, records, probes=None, blame=None):
    """As a run does it: what moved as declared is set aside, the rest judged, and then all of it told."""
    probes = probe_table() if probes is None else probes
    weighed = Weighed.of(expectations, topology, flows, kpis, records, probes)
    tolerances = Tolerances({}, bounds_by_class(flows, expectations.intents))
    found = judge(kpis, weighed.rest, tolerances, records)
    if blame is not None:
        found = replace(found, findings=tuple(one.with_blame(blame) for one in found.findings))
    return weighed.applied(found)


def states(entries):
    return [entry["state"] for entry in entries]


def test_what_changes_as_declared_is_met_and_does_not_gate(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={"dns": "timeout"})
    must = "must: [{name: dns goes, match: {class: dns}, becomes: permitted -> denied}]"
    judgement, (entry,) = judged(expecting(must), topology, flows, kpis, records)
    assert (judgement.verdict, entry["state"]) == (Verdict.PASS, "met")
    assert "6 flows changed as declared" in judgement.reason
    assert entry["evidence"] == ["6 flows permitted → timed out"]
    assert len(entry["flows"]) == 6
    assert {one.flow_class: one.verdict for one in judgement.classes} == {"web": Verdict.PASS, "dns": Verdict.PASS}
    assert [f.verdict for f in judgement.findings if f.kpi == "expectation"] == [Severity.INFO]
    assert judged(NONE, topology, flows, kpis, records)[0].verdict is Verdict.FAIL


def test_all_flows_may_be_declared_to_change(expecting, topology):
    flows = flow_table(web=0)
    kpis, records = windows(flows, errors={"dns": "timeout"})
    judgement, _ = judged(expecting("may: [{becomes: timed out}]"), topology, flows, kpis, records)
    assert (judgement.verdict, judgement.reason) == (Verdict.PASS, "6 flows changed as declared; nothing else gates")


def test_an_undeclared_change_is_collateral(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={"dns": "timeout", "web": "timeout"})
    must = "must: [{match: {service: udp/53}, becomes: permitted -> denied}]"
    judgement, entries = judged(expecting(must), topology, flows, kpis, records)
    assert (judgement.verdict, states(entries)) == (Verdict.FAIL, ["met"])
    assert "6 of 6 web flows no longer complete" in judgement.reason
    assert not any(flow.startswith("dns") for f in judgement.findings if f.verdict is Severity.FAIL for flow in f.flows)


def test_a_change_that_is_not_the_declared_one_gates(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={"dns": "timeout"})
    must = "must: [{match: {class: dns}, becomes: permitted -> reset}]"
    judgement, entries = judged(expecting(must), topology, flows, kpis, records)
    assert (judgement.verdict, states(entries)) == (Verdict.FAIL, ["not_met"])
    assert "dns flows no longer complete" in " ".join(f.effect for f in judgement.findings)


@pytest.mark.parametrize(("group", "verdict", "state"), [("must", "FAIL", "not_met"), ("may", "PASS", "absent")])
def test_declared_and_absent_fails_where_it_is_demanded(expecting, topology, group, verdict, state):
    flows = flow_table()
    kpis, records = windows(flows)
    text = f"{group}: [{{name: closing, match: {{class: dns}}, becomes: permitted -> denied}}]"
    judgement, entries = judged(expecting(text), topology, flows, kpis, records)
    assert (judgement.verdict.name, states(entries)) == (verdict, [state])
    if group == "must":
        assert judgement.reason.startswith("declared and not so: closing (of class dns: permitted → denied): all of 6 ")


def test_some_flows_left_behind_are_told(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={f"dns{n}": "timeout" for n in range(5)})
    text = "must: [{match: {class: dns}, becomes: permitted -> denied}]"
    judgement, (entry,) = judged(expecting(text), topology, flows, kpis, records)
    assert (judgement.verdict, entry["state"]) == (Verdict.FAIL, "not_met")
    assert entry["evidence"] == ["1 flow of 6 flows still permitted: 198.51.100.6 → 10.1.0.11 port 53"]


def test_what_nothing_matches_was_not_tested_and_says_what_would(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows)
    text = "must: [{name: api, match: {class: web, application: smtp}, becomes: denied -> permitted}]"
    judgement, entries = judged(expecting(text), topology, flows, kpis, records)
    assert (judgement.verdict, states(entries)) == (Verdict.INCONCLUSIVE, ["not_tested"])
    assert "a captured flow of class web of smtp (or name a service and a destination" in judgement.reason
    assert judged(expecting(text.replace("must", "may")), topology, flows, kpis, records)[0].verdict is Verdict.PASS


def test_an_access_that_nobody_used_is_held_to_its_probes(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows)
    opens = expecting("must: [{match: {service: tcp/8443}, becomes: denied -> permitted}]")
    here, there = ("198.51.100.1", 8443, "unanswered"), ("192.0.2.1", 8443, "unanswered")
    some = probe_table((*here, "accepted"), (*there, "unanswered"))
    judgement, (entry,) = judged(opens, topology, flows, kpis, records, some)
    assert (judgement.verdict, entry["state"], entry["probes"]) == (Verdict.PASS, "met", 2)
    assert "1 probe still timed out: 192.0.2.1 → 10.1.0.11 port 8443" in entry["evidence"][0]
    none = probe_table((*here, "unanswered"))
    assert judged(opens, topology, flows, kpis, records, none)[0].verdict is Verdict.FAIL
    unmeasured = probe_table((*here, "unmeasured"))
    assert judged(opens, topology, flows, kpis, records, unmeasured)[0].verdict is Verdict.INCONCLUSIVE


def test_no_way_may_stay_open_that_is_to_be_closed(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows)
    closes = expecting("must: [{match: {service: tcp/22}, becomes: permitted -> denied}]")
    half = probe_table(("198.51.100.1", 22, "accepted", "denied"), ("192.0.2.1", 22, "accepted", "accepted"))
    judgement, (entry,) = judged(closes, topology, flows, kpis, records, half)
    assert (judgement.verdict, entry["state"]) == (Verdict.FAIL, "not_met")
    assert "still permitted: 192.0.2.1" in entry["evidence"][0]


def test_a_refused_flow_that_gets_through_to_nobody_counts_as_let_in(expecting, topology):
    flows = flow_table(web=1, dns=6).assign(outcome=["unanswered", *["accepted"] * 6])
    kpis, records = windows(flows)
    kpis.loc[kpis["flow_id"] == "web0", ["completed", "error"]] = [False, "timeout"]
    kpis.loc[(kpis["flow_id"] == "web0") & (kpis["role"] == "treatment"), "error"] = "refused"
    probe = probe_table(("198.51.100.1", 80, "unanswered", "accepted"))
    opens = expecting("must: [{match: {class: web}, becomes: denied -> permitted}]")
    _, (entry,) = judged(opens, topology, flows, kpis, records, probe)
    assert (entry["state"], entry["evidence"]) == ("met", ["1 flow timed out → permitted"])


@pytest.mark.parametrize(
    ("clause", "state"),
    [
        ("via: lb1", "met"),
        ("via: [lb1, web1]", "met"),
        ("not_via: lb1", "not_met"),
        ("not_via: r1", "not_met"),
        ("backend: web1", "met"),
        ("backend: [lb1, fw1]", "not_met"),
        ("translated_to: 10.1.0.11", "met"),
        ("translated_to: 10.1.0.10", "not_met"),
    ],
)
def test_ways_ends_and_translations(expecting, topology, clause, state):
    flows = flow_table()
    kpis, records = windows(flows, paths={"web": "outside>fw1>r1>lb1>web1"})
    found = expecting(f"must: [{{match: {{class: web}}, {clause}}}]")
    judgement, entries = judged(found, topology, flows, kpis, records)
    assert states(entries) == [state]
    assert judgement.verdict is (Verdict.PASS if state == "met" else Verdict.FAIL)


@pytest.mark.parametrize(
    ("bound", "verdict", "state"), [("+100 %", "PASS", "met"), ("+30 ms", "PASS", "met"), ("+20 %", "FAIL", "not_met")]
)
def test_a_bound_takes_the_place_of_the_tolerance_for_its_flows_alone(expecting, topology, bound, verdict, state):
    flows = flow_table()
    kpis, records = windows(flows, delay_ms={"web": 8})
    assert judged(NONE, topology, flows, kpis, records)[0].verdict is Verdict.FAIL
    found = expecting(f"may: [{{match: {{class: web}}, kpis: {{response_ns: {bound}}}}}]")
    judgement, entries = judged(found, topology, flows, kpis, records)
    assert (judgement.verdict.name, states(entries)) == (verdict, [state])
    both, records = windows(flows, delay_ms={"web": 8, "dns": 8})
    collateral, _ = judged(found, topology, flows, both, records)
    assert collateral.verdict is Verdict.FAIL
    assert any(f.subject == "dns" for f in collateral.findings if f.verdict is Severity.FAIL)


def test_of_a_class_only_the_flows_that_match_have_the_bound(expecting):
    flows = flow_table(web=12)
    found = expecting("may: [{name: far, match: {source: 198.51.100.0/29}, kpis: {response_ns: +100 %}}]")
    told = parted(flows, found.intents)
    assert told.groupby("flow_class").size().to_dict() == {"web": 5, "web · far": 7, "dns": 6}
    assert bounds_by_class(told, found.intents) == {
        ("web · far", "response_ns"): Tolerance(1.0, 0.0),
        ("dns", "response_ns"): Tolerance(1.0, 0.0),
    }
    assert parted(told, ()) is told


def test_pairs_hold_a_class_to_its_bound_in_the_same_test(expecting):
    flows = flow_table(web=8, dns=8)
    rng = np.random.default_rng(7)
    rows, records = [], []
    for pair in range(8):
        for at, arm in enumerate(("A", "B", "A'")):
            window = 3 * pair + at
            role = "treatment" if arm == "B" else "baseline"
            records.append({"window": window, "role": role, "arm": arm, "pair": pair, "valid": True, "reason": ""})
            for flow in flows["flow_id"]:
                slow = 1.6 if arm == "B" and flow.startswith("web") else 1.0
                value = 20 * MS * slow * rng.lognormal(0, 0.02)
                rows.append((window, role, arm, pair, flow, True, "none", True, value, value / 4, WAY))
    names = ["window", "role", "arm", "pair", "flow_id", "completed", "error", "as_expected"]
    kpis = pd.DataFrame(rows, columns=[*names, "response_ns", "connect_ns", "path"])

    def verdict(text):
        bounds = bounds_by_class(flows, expecting(text).intents)
        tight = {"response_ns": Tolerance(0.3, MS), "connect_ns": Tolerance(0.3, MS)}
        return judge_pairs(kpis, flows, Tolerances(tight, bounds), records, 1).verdict

    assert verdict("may: [{match: {class: dns}, kpis: {response_ns: +90 %}}]") is Verdict.FAIL
    both = "kpis: {response_ns: +90 %, connect_ns: +90 %}"
    assert verdict(f"may: [{{match: {{class: web}}, {both}}}]") is Verdict.PASS
    assert verdict("may: [{match: {class: web}, kpis: {response_ns: +90 %}}]") is Verdict.FAIL


WAIVER = """\
waivers:
  - finding: {{kpi: disposition, class: dns, node: fw1, text: "*timeout"}}
    owner: network team
    reason: ticket 12
    expires: {day}
"""
CULPRIT = Blame("fw1", "rule 2", "configs/fw1/iptables.rules", 6)


def test_a_waived_finding_warns_until_the_waiver_expires(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={"dns": "timeout"})
    inforce, late = (expecting(WAIVER.format(day=day)) for day in ("2026-11-25", "2026-11-24"))
    judgement, (entry,) = judged(inforce, topology, flows, kpis, records, blame=CULPRIT)
    assert (judgement.verdict, entry["state"], entry["owner"]) == (Verdict.PASS, "met", "network team")
    assert judgement.findings[0].effect.startswith("waived until 2026-11-25 by network team (ticket 12): 6 of 6 dns")
    assert {one.verdict for one in judgement.classes} == {Verdict.PASS}
    judgement, (entry,) = judged(late, topology, flows, kpis, records, blame=CULPRIT)
    assert (judgement.verdict, entry["state"]) == (Verdict.FAIL, "expired")
    assert entry["evidence"] == ["expired: it was good until 2026-11-24, today is 2026-11-25"]
    judgement, (entry,) = judged(inforce, topology, flows, kpis, records, blame=replace(CULPRIT, node="r1"))
    assert (judgement.verdict, entry["state"]) == (Verdict.FAIL, "absent")


def test_a_waiver_does_not_hide_what_its_failure_hid(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={"dns": "timeout"})
    # beyond tolerance in the median, but the windows do not agree
    kpis.loc[(kpis["flow_id"].str.startswith("web")) & kpis["window"].isin([3, 4]), "response_ns"] += 9 * MS
    judgement, _ = judged(expecting(WAIVER.format(day="2027-01-01")), topology, flows, kpis, records, blame=CULPRIT)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "undecided" in judgement.reason


def test_nobody_waives_a_change_that_was_never_in_force(expecting, topology):
    flows = flow_table()
    weighed = Weighed.of(
        expecting("waivers: [{finding: {kpi: '*'}, owner: a, reason: b, expires: 2027-01-01}]\nmust: [{via: r1}]"),
        topology,
        flows,
        pd.DataFrame(),
        [],
        probe_table(),
    )
    kpis, records = windows(flows, errors={"dns": "timeout"})
    failed = judge(kpis, flows, {}, records)
    refused = replace(failed, findings=tuple(replace(one, kpi="syntax") for one in failed.findings))
    judgement, entries = weighed.applied(refused)
    assert judgement.verdict is Verdict.FAIL
    assert states(entries) == ["not_tested", "not_tested"]


def test_a_waiver_of_a_class_holds_for_its_single_flows_and_no_others(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={"dns3": "timeout"})
    waived, _ = judged(expecting(WAIVER.format(day="2027-01-01")), topology, flows, kpis, records, blame=CULPRIT)
    assert (waived.verdict, waived.findings[0].subject) == (Verdict.PASS, "dns3")
    kpis, records = windows(flows, errors={"web3": "timeout"})
    gated, _ = judged(expecting(WAIVER.format(day="2027-01-01")), topology, flows, kpis, records, blame=CULPRIT)
    assert gated.verdict is Verdict.FAIL


def test_what_may_change_may_do_so_in_part(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={f"dns{n}": "timeout" for n in range(4)})
    text = "may: [{match: {class: dns}, becomes: permitted -> denied}]"
    judgement, (entry,) = judged(expecting(text), topology, flows, kpis, records)
    assert (judgement.verdict, entry["state"]) == (Verdict.PASS, "met")
    assert entry["evidence"][0].startswith("4 flows permitted → timed out; 2 flows still permitted: ")


def test_flows_that_all_became_something_else_have_no_kpi_to_hold_to_a_bound(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={"dns": "timeout"})
    text = "must: [{match: {class: dns}, becomes: permitted -> denied, kpis: {response_ns: +20 %}}]"
    judgement, entries = judged(expecting(text), topology, flows, kpis, records)
    assert (judgement.verdict, states(entries)) == (Verdict.INCONCLUSIVE, ["not_tested"])
    assert "with nothing to compare" in judgement.reason


def ways_of(folder, text):
    """What is probed of a declaration on the quick lab, as (source, address, protocol, port)."""
    lab = load_lab(quick_lab(folder / "lab"))
    path = folder / "expect.yaml"
    path.write_text(text)
    intents = read_expectations(path, lab.topology, CLASSES, TODAY).intents
    configs = {n.name: {file: at.read_bytes() for file, at in n.configs.items()} for n in lab.topology.nodes}
    flows = flow_table(web=1, dns=1)
    here = places(lab.topology, configs, flows)
    probes, _ = exposures(Change("none", folder), configs, configs, here, flows, (), intents)
    told = [probe for probe in probes if probe.kind is Kind.DECLARED]
    return {(p.script.source[0], *p.script.target[:1], p.script.protocol, p.script.target[1]) for p in told}


@pytest.mark.parametrize(
    ("match", "ways"),
    [
        (
            "service: tcp/7000-7010, source: 198.51.100.9, destination: 10.1.0.11",
            {("198.51.100.9", "10.1.0.11", 6, 7000), ("198.51.100.9", "10.1.0.11", 6, 7010)},
        ),
        # known services of what is named: the lab's own and captured ones
        (
            "source: 198.51.100.0/24, destination: 10.1.0.11",
            {("198.51.100.1", "10.1.0.11", 6, 80), ("198.51.100.1", "10.1.0.11", 6, 8080)}
            | {("198.51.100.1", "10.1.0.11", 17, 53)},
        ),
        # behind a translation an address that no node has
        ("service: udp/9, source: 198.51.100.0/24, destination: 10.9.9.9", {("198.51.100.1", "10.9.9.9", 17, 9)}),
        ("service: icmp, destination: 10.1.0.11", set()),
        ("service: tcp/9, source: 203.0.113.0/24", set()),
        ("class: web", set()),
    ],
)
def test_what_is_declared_is_probed_from_where_to_where_it_says(tmp_path, match, ways):
    assert ways_of(tmp_path, f"may: [{{match: {{{match}}}, becomes: permitted}}]") == ways


def test_flaky_flows_are_not_called_moved(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows)
    late = (kpis["flow_id"] == "dns0") & (kpis["window"] == 4)
    kpis.loc[late, ["completed", "error", "as_expected"]] = [False, "timeout", False]
    text = "must: [{match: {destination: 10.1.0.11, service: udp/53, source: 198.51.100.1}, becomes: timed out}]"
    judgement, (entry,) = judged(expecting(text), topology, flows, kpis, records)
    assert (judgement.verdict, entry["state"]) == (Verdict.INCONCLUSIVE, "not_tested")
    assert "1 flow of it gave no steady answer" in entry["evidence"]


def test_windows_that_do_not_count_have_no_say(expecting, topology):
    flows = flow_table()
    kpis, records = windows(flows, errors={"dns": "timeout"})
    bad = kpis["window"] == 5
    kpis.loc[bad, ["completed", "error"]] = [True, "none"]
    records[5] |= {"valid": False, "reason": "overloaded"}
    text = "must: [{match: {class: dns}, becomes: permitted -> denied}]"
    _, (entry,) = judged(expecting(text), topology, flows, kpis, records)
    assert entry["state"] == "met"


ENDS = {"none": "accepted", "timeout": "unanswered", "refused": "reset", "unreachable": "denied"}


@settings(max_examples=40, deadline=None)
@given(
    errors=st.lists(st.sampled_from(list(ENDS)), min_size=6, max_size=6),
    intents=st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([(a, b) for a in (None, *Fate) for b in Fate if a is not b]),
            st.integers(198 * 2**24, 198 * 2**24 + 8),
            st.integers(29, 32),
        ),
        max_size=3,
    ),
)
def test_no_declaration_hides_what_it_does_not_declare(errors, intents):
    flows = flow_table(web=6, dns=0).assign(source_address=[f"198.0.0.{n}" for n in range(6)])
    kpis, records = windows(flows, errors={f"web{n}": error for n, error in enumerate(errors)}, count=2)
    declared = [
        Intent(f"i{n}", must, Match(source=(ip_network((low, bits), strict=False),)), 1, "", becomes=becomes)
        for n, (must, becomes, low, bits) in enumerate(intents)
    ]
    expectations = Expectations("e", TODAY, tuple(declared))
    judgement, entries = judged(expectations, Topology("empty", (), ()), flows, kpis, records)
    worse = [
        n
        for n, error in enumerate(errors)
        if error != "none"
        and not any(
            ip_address(f"198.0.0.{n}") in one.match.source[0] and one.explains("accepted", ENDS[error])
            for one in declared
        )
    ]
    told = {
        flow for f in judgement.findings if f.verdict is Severity.FAIL and f.kpi != "expectation" for flow in f.flows
    }
    assert told == {f"web{n}" for n in worse}
    unmet = any(entry["kind"] == "must" and entry["state"] == "not_met" for entry in entries)
    assert (judgement.verdict is Verdict.FAIL) == bool(worse or unmet)
    if judgement.verdict is Verdict.PASS:
        assert all(entry["state"] == "met" for entry in entries if entry["kind"] == "must")
