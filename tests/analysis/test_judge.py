import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.judge import judge, judge_restored
from analysis.kpi import Tolerance
from analysis.verdict import Scope, Severity, Verdict
from analysis.window import InvalidTable, summary

AFTER = ("treatment",)


def fails(judgement):
    return [finding for finding in judgement.findings if finding.verdict is Severity.FAIL]


def test_an_unchanged_network_passes(scene):
    judgement = scene.judged()
    assert judgement.verdict is Verdict.PASS
    assert not fails(judgement)
    assert {one.verdict for one in judgement.classes} == {Verdict.PASS}
    assert judgement.noise_percent["response_ns"] < 20


def test_a_blocked_class_is_one_finding_that_lists_exactly_its_flows(scene):
    judgement = scene.killed(scene.where("https", *AFTER, "transition")).judged()
    assert judgement.verdict is Verdict.FAIL
    [finding] = fails(judgement)
    assert finding.effect == "60 of 60 https flows no longer complete: timeout"
    assert judgement.reason == finding.effect
    assert finding.scope is Scope.CLASS
    assert finding.flows == tuple(f"https-{number:03}" for number in range(60))
    assert (finding.before, finding.after, finding.priority) == (60, 0, "critical")
    assert judgement.classes[0].flow_class == "https"
    assert [one.verdict for one in judgement.classes] == [Verdict.FAIL, Verdict.PASS, Verdict.PASS, Verdict.PASS]


def test_a_single_lost_flow_fails_and_is_named_by_its_addresses(scene):
    judgement = scene.killed((scene.kpis.flow_id == "dns-007") & scene.kpis.role.isin(AFTER), "refused").judged()
    [finding] = fails(judgement)
    assert finding.scope is Scope.FLOW
    assert finding.subject == "dns-007"
    assert finding.effect == "dns flow 198.51.100.7:40007 → 203.0.113.10:443 no longer completes: refused"


def test_flows_hit_in_different_ways_are_different_findings(scene):
    some = scene.kpis.flow_id.isin([f"http-{n:03}" for n in range(10)]) & scene.kpis.role.isin(AFTER)
    other = scene.kpis.flow_id.isin([f"http-{n:03}" for n in range(10, 14)]) & scene.kpis.role.isin(AFTER)
    judgement = scene.killed(some).killed(other, "reset").judged()
    assert sorted(len(finding.flows) for finding in fails(judgement)) == [4, 10]


def test_a_doubled_class_is_found(scene):
    slow = scene.changed(scene.where("http", *AFTER), response_ns=lambda ns: ns * 3)
    judgement = slow.judged()
    assert judgement.verdict is Verdict.FAIL
    finding = fails(judgement)[0]
    assert (finding.subject, finding.kpi, finding.scope) == ("http", "response_ns", Scope.CLASS)
    assert finding.deviation_percent == pytest.approx(200, rel=0.1)
    assert finding.effect.startswith("http response time ")


def test_one_big_download_that_loses_half_its_goodput_is_found(scene):
    slow = scene.changed(
        (scene.kpis.flow_id == "bulk-001") & scene.kpis.role.isin(AFTER), goodput_bps=lambda bps: bps / 4
    )
    judgement = slow.judged()
    assert judgement.verdict is Verdict.FAIL
    assert [(finding.kpi, finding.flows) for finding in fails(judgement)] == [("goodput_bps", ("bulk-001",))]


def test_a_moderately_slower_flow_is_a_suspect_that_does_not_gate(scene):
    slow = scene.changed(
        (scene.kpis.flow_id == "http-003") & scene.kpis.role.isin(AFTER), response_ns=lambda ns: ns * 2.2
    )
    judgement = slow.judged()
    assert judgement.verdict is Verdict.PASS
    assert [f.flows for f in judgement.findings if f.verdict is Severity.WARN] == [("http-003",)]


def test_queueing_that_hits_only_a_fifth_of_a_class_is_found_in_its_slowest_tenth(scene):
    random = np.random.default_rng(4)
    kpis = scene.kpis.copy()
    for window in (5, 6, 7):
        chosen = random.choice([f"https-{n:03}" for n in range(60)], 15, replace=False)
        kpis.loc[(kpis.window == window) & kpis.flow_id.isin(chosen), "response_ns"] += 300e6
    judgement = judge(kpis, scene.flows, {}, scene.instruments)
    assert judgement.verdict is Verdict.FAIL
    assert "slowest tenth" in fails(judgement)[0].effect


def test_a_connection_limit_that_hits_other_flows_each_time_is_one_class_finding(scene):
    random = np.random.default_rng(5)
    limited = scene
    for window in (5, 6, 7):
        chosen = random.choice([f"https-{n:03}" for n in range(60)], 25, replace=False)
        limited = limited.killed((limited.kpis.window == window) & limited.kpis.flow_id.isin(chosen), "refused")
    judgement = limited.judged()
    assert judgement.verdict is Verdict.FAIL
    [finding] = fails(judgement)
    assert finding.kpi == "as_expected_ratio"
    assert finding.effect == (
        "25 of 60 https flows end otherwise than captured in each window, not always the same ones: refused"
    )
    assert finding.before == 1.0
    assert finding.after == pytest.approx(35 / 60)


def test_flaky_flows_are_named_and_do_not_gate(scene):
    flaky = scene.killed((scene.kpis.flow_id == "http-001") & scene.kpis.window.isin([2, 5, 6, 7])).judged()
    assert flaky.verdict is Verdict.PASS
    assert [f.flows for f in flaky.findings if "baseline windows" in f.effect] == [("http-001",)]


def test_a_flow_hit_in_some_treatment_windows_only_warns(scene):
    judgement = scene.killed((scene.kpis.flow_id == "http-001") & scene.kpis.window.isin([5, 7])).judged()
    assert judgement.verdict is Verdict.PASS
    assert [(f.flows, f.verdict) for f in judgement.findings] == [(("http-001",), Severity.WARN)]


def test_a_refusal_that_is_now_let_through_fails(scene):
    ssh = scene.kpis.flow_id.isin(["bulk-000", "bulk-001"])
    before = scene.changed(ssh, completed=False, error="refused", response_ns=np.nan)
    before.flows.loc[before.flows.flow_id.isin(["bulk-000", "bulk-001"]), "outcome"] = "reset"
    opened = before.changed(ssh & scene.kpis.role.isin(AFTER), completed=True, error="none", as_expected=False)
    judgement = opened.judged()
    assert judgement.verdict is Verdict.FAIL
    assert judgement.reason == "2 of 3 bulk flows, refused when captured, now complete"


def test_an_improvement_is_told_and_passes(scene):
    judgement = scene.changed(scene.where("https", *AFTER), response_ns=lambda ns: ns / 4).judged()
    assert judgement.verdict is Verdict.PASS
    assert ("https", "response_ns", Severity.INFO) in {(f.subject, f.kpi, f.verdict) for f in judgement.findings}


def test_flows_hit_only_during_the_change_are_told_and_never_gate(scene):
    judgement = scene.killed(scene.where("https", "transition"), "reset").judged()
    assert judgement.verdict is Verdict.PASS
    [finding] = [f for f in judgement.findings if f.verdict is Severity.WARN]
    assert finding.effect == "60 of 60 https flows hit only while the change was applied: reset"


def test_a_noisy_baseline_makes_a_deviation_undecided_not_a_failure(scene):
    noisy = scene.changed(scene.where("http") & (scene.kpis.window == 2), response_ns=lambda ns: ns * 4)
    slower = noisy.changed(scene.where("http", *AFTER), response_ns=lambda ns: ns * 3)
    judgement = slower.judged()
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "stray by" in judgement.reason
    assert noisy.judged().verdict is Verdict.PASS


def test_a_critical_class_whose_baseline_is_too_noisy_to_judge_is_inconclusive(scene):
    noisy = scene.changed(scene.where("https") & (scene.kpis.window == 2), response_ns=lambda ns: ns * 4)
    assert noisy.judged().verdict is Verdict.INCONCLUSIVE


def test_delays_of_lost_packets_are_infinite_and_judged(scene):
    judgement = scene.changed(scene.where("dns", *AFTER), one_way_delay_forward_ns=np.inf).judged()
    assert judgement.verdict is Verdict.FAIL
    finding = fails(judgement)[0]
    assert finding.after == np.inf
    assert finding.effect.endswith("→ never")
    json.dumps([one.to_json() for one in (*judgement.findings, *judgement.classes)], allow_nan=False)


def test_loss_that_appears_from_nothing_is_found(scene):
    judgement = scene.changed(scene.where("dns", *AFTER), loss_ratio=0.04).judged()
    assert fails(judgement)[0].effect == "dns loss 0 % → 4 %"


def test_a_policy_tolerance_replaces_the_default(scene):
    slow = scene.changed(scene.where("http", *AFTER), response_ns=lambda ns: ns * 3)
    assert slow.judged(response_ns=Tolerance(5.0, 5e6)).verdict is Verdict.PASS


@pytest.mark.parametrize("empty", ["flows", "kpis", "both"])
def test_nothing_measured_is_inconclusive(scene, empty):
    kpis = scene.kpis if empty == "flows" else pd.DataFrame()
    flows = scene.flows if empty == "kpis" else pd.DataFrame()
    judgement = judge(kpis, flows, {}, scene.instruments)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "nothing was measured" in judgement.reason


def test_one_window_the_instrument_spoiled_is_left_out(scene):
    assert scene.invalid(2, 6).judged().verdict is Verdict.PASS


@pytest.mark.parametrize("windows", [(1, 2), (5, 6), (5, 6, 7), (1, 2, 3)])
def test_an_instrument_that_failed_more_than_once_is_inconclusive_with_its_reason(scene, windows):
    judgement = scene.invalid(*windows).judged()
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "capture dropped packets" in judgement.reason
    assert all(one.verdict is Verdict.INCONCLUSIVE for one in judgement.classes)


def test_windows_without_an_instrument_record_do_not_count(scene):
    judgement = judge(scene.kpis, scene.flows, {}, [])
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "no instrument record" in judgement.reason


def test_a_blocked_class_fails_although_two_treatment_windows_are_invalid(scene):
    judgement = scene.killed(scene.where("https", *AFTER)).invalid(5, 6).judged()
    assert judgement.verdict is Verdict.FAIL


def test_one_flow_lost_in_the_only_valid_treatment_window_does_not_fail(scene):
    lost = scene.killed((scene.kpis.flow_id == "dns-007") & scene.kpis.role.isin(AFTER))
    assert lost.invalid(5, 6).judged().verdict is Verdict.INCONCLUSIVE


def test_flows_that_the_instrument_did_not_start_are_too_little_measured_not_a_failure(scene):
    lazy = scene.changed(scene.where("http", *AFTER), completed=False, error="not_started", as_expected=False)
    judgement = lazy.judged()
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason == "too little was measured: 40 of 183 flows lack a result in some window"


def test_a_missing_column_is_named(scene):
    with pytest.raises(InvalidTable, match="as_expected"):
        judge(scene.kpis.drop(columns="as_expected"), scene.flows, {}, scene.instruments)


def test_a_flow_twice_in_a_window_is_refused(scene):
    with pytest.raises(InvalidTable, match="twice in window"):
        judge(pd.concat([scene.kpis, scene.kpis.iloc[:1]]), scene.flows, {}, scene.instruments)


def test_findings_come_worst_and_most_important_first(scene):
    two = scene.killed(scene.where("dns", *AFTER)).killed(scene.where("https", *AFTER))
    judgement = two.changed(scene.where("http", *AFTER), response_ns=lambda ns: ns / 5).judged()
    assert [f.subject for f in judgement.findings][:2] == ["https", "dns"]
    assert judgement.reason.endswith("(and 1 more finding)")
    assert judgement.findings[-1].verdict is Severity.INFO


def test_the_same_data_give_the_same_findings(scene):
    killed = scene.killed(scene.where("https", *AFTER))
    once, again = killed.judged(), killed.judged()
    assert [f.to_json() for f in once.findings] == [f.to_json() for f in again.findings]
    assert [c.to_json() for c in once.classes] == [c.to_json() for c in again.classes]


def test_restored_is_told_with_one_window(scene):
    assert scene.killed(scene.where("https", *AFTER)).restored()[0]


@pytest.mark.parametrize("count", [1, 60])
def test_a_rollback_that_left_a_flow_broken_is_seen(scene, count):
    hit = scene.kpis.flow_id.isin([f"https-{n:03}" for n in range(count)]) & scene.kpis.role.isin((*AFTER, "restored"))
    restored, detail = scene.killed(hit).restored()
    assert not restored
    assert "still as under the change: timeout" in detail


def test_a_rollback_that_left_a_class_slow_is_seen(scene):
    slow = scene.changed(scene.where("http", *AFTER, "restored"), response_ns=lambda ns: ns * 4)
    assert not slow.restored()[0]


def busier(scene, percent):
    """The scene with this pressure in the restored window, and next to none before."""
    records = [{**one, "cpu_pressure_percent": percent if one["window"] == 8 else 3.0} for one in scene.instruments]
    return replace(scene, instruments=records)


def test_a_machine_that_has_become_busy_is_not_taken_for_a_rollback_that_failed(scene):
    slow = scene.changed(scene.where("http", "restored"), response_ns=lambda ns: ns * 40)
    assert not busier(slow, 15.0).restored()[0]
    restored, detail = busier(slow, 90.0).restored()
    assert restored
    assert "tasks waited for a CPU +87 % of the time" in detail
    assert not busier(scene.killed(scene.where("http", "restored")), 90.0).restored()[0]


def test_what_was_not_measured_is_not_called_restored(scene):
    restored, detail = scene.invalid(8).restored()
    assert restored is None
    assert "could not be told" in detail
    assert not judge_restored(pd.DataFrame(), scene.flows, {}, [])[0]


def test_the_window_table_counts_and_gives_medians(scene):
    rows = summary(scene.killed(scene.where("https", *AFTER)).kpis, scene.instruments)
    assert [row["role"] for row in rows][:2] == ["warmup", "baseline"]
    assert (rows[1]["as_expected"], rows[5]["as_expected"]) == (183, 123)
    assert rows[1]["kpis"]["pdv_ns"] is None


MODELS = {
    "independent": lambda random: (random.uniform(0.01, 0.3), None),
    "window": lambda random: (0.1, random.lognormal(0, 0.25, 9)),
    "drift": lambda random: (0.1, np.linspace(1, random.uniform(0.8, 1.4), 9)),
    "burst": lambda random: (0.1, 1 + 9 * (np.arange(9) == random.integers(9))),
    "walk": lambda random: (0.05, np.exp(np.cumsum(random.normal(0, 0.08, 9)))),
}


@pytest.mark.parametrize("model", MODELS)
def test_unchanged_networks_do_not_fail_whatever_the_noise(build_scene, model):
    random = np.random.default_rng(11)
    verdicts = []
    for seed in range(60):
        noise, windows = MODELS[model](random)
        verdicts.append(build_scene(seed, noise, windows).judged().verdict)
    assert verdicts.count(Verdict.FAIL) <= 1, verdicts
    assert verdicts.count(Verdict.PASS) >= 40, verdicts


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    flow_class=st.sampled_from(["https", "http"]),
    factor=st.floats(3, 50),
    noise=st.floats(0.01, 0.1),
)
def test_a_class_that_became_several_times_slower_is_found_in_quiet_noise(build_scene, seed, flow_class, factor, noise):
    scene = build_scene(seed, noise)
    judgement = scene.changed(scene.where(flow_class, *AFTER), response_ns=lambda ns: ns * factor).judged()
    assert judgement.verdict is Verdict.FAIL
    assert all(finding.subject == flow_class for finding in fails(judgement))


def test_ten_thousand_flows_and_sixteen_windows_take_seconds():
    count, random = 10_000, np.random.default_rng(3)
    flows = pd.DataFrame(
        {
            "flow_id": [f"f{n}" for n in range(count)],
            "flow_class": [f"c{n % 12}" for n in range(count)],
            "priority": "normal",
        }
    )
    roles = ["baseline"] * 8 + ["treatment"] * 8
    kpis = pd.concat(
        [
            pd.DataFrame(
                {"window": window, "role": role, "flow_id": flows.flow_id, "completed": True, "error": "none"}
                | {"as_expected": True, "response_ns": random.lognormal(16, 0.1, count)}
            )
            for window, role in enumerate(roles)
        ]
    )
    records = [{"window": window, "valid": True, "reason": ""} for window in range(16)]
    started = time.process_time()
    assert judge(kpis, flows, {}, records).verdict is Verdict.PASS
    assert time.process_time() - started < 10
