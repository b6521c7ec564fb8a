import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.kpi import Tolerance
from analysis.pairs.case import Rules
from analysis.pairs.effects import Answer
from analysis.verdict import Scope, Severity, Verdict
from analysis.window import InvalidTable

MS = 1_000_000
TENTH = Tolerance(0.1, 0.0)


def fails(judgement):
    return [finding for finding in judgement.findings if finding.verdict is Severity.FAIL]


def test_an_unchanged_network_passes_and_everything_essential_was_shown(unchanged):
    told = unchanged.judged()
    assert told.verdict is Verdict.PASS, told.reason
    assert not fails(told)
    assert told.controlled
    assert told.pairs == 8
    assert {one.verdict for one in told.classes} == {Verdict.PASS}
    shown = [one for one in told.effects if one.subject.scope is not Scope.FLOW and one.kpi.essential and not one.tail]
    assert len(shown) == 3 * 5
    assert {one.answer for one in shown} == {Answer.NON_INFERIOR}


def test_a_slower_class_fails_with_an_interval_that_holds_the_truth(unchanged):
    slow = unchanged.changed(unchanged.where("http", "B"), response_ns=lambda ns: ns * 1.8)
    told = slow.judged()
    assert told.verdict is Verdict.FAIL
    finding = fails(told)[0]
    assert (finding.subject, finding.kpi, finding.scope, len(finding.flows)) == (
        "http",
        "response_ns",
        Scope.CLASS,
        24,
    )
    [effect] = [
        one for one in told.effects if (one.subject.name, one.kpi.name, one.tail) == ("http", "response_ns", False)
    ]
    assert finding.interval_low < effect.subject.baseline * 1.8 < finding.interval_high
    assert finding.interval_low > effect.subject.limit > effect.subject.baseline * 1.4
    assert finding.deviation_percent == pytest.approx(80, rel=0.15)
    assert finding.effect.startswith("http response time ")
    assert "limit " in finding.effect
    assert told.classes[0].flow_class == "http"
    assert [one.verdict for one in told.classes][1:] == [Verdict.PASS] * 3


def test_a_small_shift_of_a_class_is_seen_where_the_margin_asks_for_it(unchanged):
    slow = unchanged.changed(unchanged.where("dns", "B"), response_ns=lambda ns: ns * 1.25)
    assert slow.judged().verdict is Verdict.PASS
    told = slow.judged(response_ns=TENTH)
    assert [finding.subject for finding in fails(told)] == ["dns"]


def test_one_flow_of_ninety_seven_that_is_slower_fails_and_is_named(unchanged):
    one = (unchanged.kpis.flow_id == "dns-007") & (unchanged.kpis.arm == "B")
    rules = Rules(flow_tolerances={"response_ns": TENTH})
    told = unchanged.changed(one, response_ns=lambda ns: ns * 1.5).judged(rules)
    assert [(finding.scope, finding.subject) for finding in fails(told)] == [(Scope.FLOW, "dns-007")]
    assert fails(told)[0].effect.startswith("dns flow 198.51.100.7:40007 → 203.0.113.10:443 response time")


def test_a_faster_class_is_told_and_passes(unchanged):
    fast = unchanged.changed(unchanged.where("http", "B"), response_ns=lambda ns: ns / 3)
    told = fast.judged()
    assert told.verdict is Verdict.PASS
    assert [
        (f.subject, f.kpi, f.verdict) for f in told.findings if f.scope is Scope.CLASS and f.kpi == "response_ns"
    ] == [("http", "response_ns", Severity.INFO)]


def test_the_slowest_tenth_is_judged_where_the_typical_flow_is_as_before(unchanged):
    slow = unchanged.kpis.flow_id.isin([f"dns-{n:03}" for n in range(34, 40)]) & (unchanged.kpis.arm == "B")
    told = unchanged.changed(slow, response_ns=lambda ns: ns * 40).judged()
    tails = [one for one in told.effects if one.tail and one.subject.name == "dns" and one.kpi.name == "response_ns"]
    assert [one.answer for one in tails] == [Answer.INFERIOR]


def test_a_blocked_class_is_certain_with_its_flows(unchanged):
    told = unchanged.killed(unchanged.where("https", "B")).judged()
    assert told.verdict is Verdict.FAIL
    [finding] = fails(told)
    assert finding.effect == "30 of 30 https flows no longer complete: timeout"
    assert len(finding.flows) == 30
    shares = {one.flow_class: one.kpis["as_expected_ratio"] for one in told.classes}
    assert (shares["https"].before, shares["https"].after) == (1.0, 0.0), "a reader counts what the test leaves out"


def test_two_pairs_are_enough_to_be_certain_of_a_block_but_not_to_pass(build_pairs):
    few = build_pairs(pairs=2)
    assert few.killed(few.where("https", "B")).judged().verdict is Verdict.FAIL
    told = few.judged()
    assert told.verdict is Verdict.INCONCLUSIVE
    assert told.reason == "only 2 usable pairs of windows, at least 6 needed"


def test_another_part_of_a_class_hit_in_every_window_is_found_in_its_share(unchanged):
    random = np.random.default_rng(0)
    chosen = unchanged.where("dns", "B") & (random.random(len(unchanged.kpis)) < 0.4)
    told = unchanged.killed(chosen).judged()
    assert told.verdict is Verdict.FAIL
    assert "as_expected_ratio" in {finding.kpi for finding in fails(told)}


def test_flaky_flows_are_named_and_do_not_gate(unchanged):
    random = np.random.default_rng(0)
    flaky = (unchanged.kpis.flow_id == "dns-001") & (random.random(len(unchanged.kpis)) < 0.5)
    told = unchanged.killed(flaky).judged()
    assert told.verdict is Verdict.PASS, told.reason
    assert [f.flows for f in told.findings if "ended differently among" in f.effect] == [("dns-001",)]


def test_a_critical_flow_that_fails_now_and_then_with_the_change_alone_does_not_pass(unchanged):
    some = (unchanged.kpis.flow_id == "https-003") & (unchanged.kpis.arm == "B") & (unchanged.kpis.pair < 3)
    told = unchanged.killed(some).judged()
    assert told.verdict is Verdict.INCONCLUSIVE
    assert told.reason.endswith("ended worse in 3 of 8 windows with the change, in none without")
    once = (unchanged.kpis.flow_id == "https-003") & (unchanged.kpis.arm == "B") & (unchanged.kpis.pair < 1)
    assert unchanged.killed(once).judged().verdict is Verdict.PASS


@pytest.mark.parametrize("share", ["all", "response"])
def test_no_data_on_a_critical_flow_fails(unchanged, share):
    gone = (unchanged.kpis.flow_id == "https-003") & (unchanged.kpis.arm == "B")
    scene = unchanged.without(gone) if share == "all" else unchanged.changed(gone, response_ns=np.nan)
    told = scene.judged()
    assert told.verdict is Verdict.FAIL
    assert told.reason.startswith("no data on critical flow 198.51.100.3:40003 → 203.0.113.10:443")


def test_no_data_on_another_flow_does_not_fail(unchanged):
    gone = (unchanged.kpis.flow_id == "bulk-002") & (unchanged.kpis.arm == "B")
    assert unchanged.without(gone).judged().verdict is not Verdict.FAIL


def test_too_much_noise_is_inconclusive_and_never_a_fail(build_pairs):
    told = build_pairs(noise=0.8, seed=3).judged(response_ns=TENTH, connect_ns=TENTH)
    assert told.verdict is Verdict.INCONCLUSIVE
    assert told.reason.startswith("undecided: ")


def test_a_drifting_machine_passes_where_windows_in_a_row_would_not(build_pairs):
    scene = build_pairs()
    trend = np.exp(scene.kpis.window / 24 * 0.7)
    for kpi in ("response_ns", "connect_ns"):
        scene = scene.changed(scene.where(), **{kpi: lambda values: values * trend})
    assert scene.judged().verdict is Verdict.PASS


def test_a_control_that_is_not_like_the_first_makes_the_run_invalid(unchanged):
    slow = unchanged.changed(unchanged.where("http", "A'"), response_ns=lambda ns: ns * 3)
    worse = slow.changed(slow.where("dns", "B"), response_ns=lambda ns: ns * 9)
    for scene in (slow, worse):
        told = scene.judged()
        assert told.verdict is Verdict.INCONCLUSIVE
        assert told.reason.startswith("A' is not like A though nothing was changed: http response time")
        assert not fails(told)
        assert {one.verdict for one in told.classes} <= {Verdict.INCONCLUSIVE}
    faster = unchanged.changed(unchanged.where("http", "A'"), response_ns=lambda ns: ns / 3)
    assert faster.judged().invalid


def test_a_flow_that_ends_otherwise_in_the_control_makes_the_run_invalid(unchanged):
    told = unchanged.killed((unchanged.kpis.flow_id == "dns-001") & (unchanged.kpis.arm == "A'")).judged()
    assert told.verdict is Verdict.INCONCLUSIVE
    assert told.reason == "A' is not like A: 1 flow ended otherwise without any change"


def test_without_control_windows_a_pass_says_so(build_pairs):
    told = build_pairs(arms=("A", "B")).judged()
    assert told.verdict is Verdict.PASS
    assert not told.controlled
    assert told.reason.endswith("no control windows were played")


def test_another_path_is_told_and_does_not_gate(unchanged):
    told = unchanged.changed(unchanged.where("http", "B"), path="a>c>b").judged()
    assert told.verdict is Verdict.PASS
    assert [f.effect for f in told.findings if f.kpi == "path"] == ["24 flows take another path: a>b → a>c>b"]


def test_six_pairs_share_one_alpha_and_still_find(build_pairs):
    scene = build_pairs(pairs=6)
    assert scene.judged().verdict is Verdict.PASS
    told = scene.changed(scene.where("http", "B"), response_ns=lambda ns: ns * 2).judged()
    assert [finding.subject for finding in fails(told)] == ["http"]


def test_an_unusable_window_takes_its_pair_along(unchanged):
    records = [{**one, "valid": one["window"] > 2, "reason": "drops"} for one in unchanged.instruments]
    told = unchanged.__class__(unchanged.flows, unchanged.kpis, records).judged()
    assert told.pairs == 7
    assert told.verdict is Verdict.PASS


def test_nothing_is_no_pass(unchanged):
    empty = unchanged.without(unchanged.where())
    assert empty.judged().verdict is Verdict.INCONCLUSIVE
    assert empty.judged().reason == "nothing was measured: no KPIs"


def test_the_same_data_and_seed_give_the_same_bytes_in_whatever_order(unchanged, build_pairs):
    slow = unchanged.changed(unchanged.where("http", "B"), response_ns=lambda ns: ns * 1.8)
    first = json.dumps(slow.judged(seed=4, triage=True).to_json())
    shuffled = slow.__class__(slow.flows, slow.kpis.sample(frac=1, random_state=1), slow.instruments)
    assert json.dumps(slow.judged(seed=4, triage=True).to_json()) == first
    assert json.dumps(shuffled.judged(seed=4, triage=True).to_json()) == first
    many = build_pairs(pairs=13)
    assert json.dumps(many.judged(seed=4).to_json()) == json.dumps(many.judged(seed=4).to_json())


def test_a_flow_twice_in_a_window_is_refused(unchanged):
    twice = pd.concat([unchanged.kpis, unchanged.kpis.iloc[:1]])
    with pytest.raises(InvalidTable, match="twice in window 0"):
        unchanged.__class__(unchanged.flows, twice, unchanged.instruments).judged()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_holes_and_infinities_give_a_verdict(build_pairs, data):
    scene = build_pairs(pairs=data.draw(st.integers(1, 7)), arms=("A", "B"))
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    kpis = scene.kpis[random.random(len(scene.kpis)) < data.draw(st.floats(0.02, 1))].copy()
    for kpi in ("response_ns", "connect_ns", "loss_ratio", "goodput_bps"):
        for value in (np.nan, np.inf, 0.0, -1.0, 1e300):
            kpis.loc[random.random(len(kpis)) < data.draw(st.floats(0, 0.6)), kpi] = value
    kpis["completed"] = random.random(len(kpis)) < data.draw(st.floats(0, 1))
    kpis["as_expected"] = random.random(len(kpis)) < data.draw(st.floats(0, 1))
    told = scene.__class__(scene.flows, kpis, scene.instruments).judged(triage=True)
    assert told.verdict in Verdict
    assert told.reason
    json.dumps(told.to_json(), allow_nan=False)
