import numpy as np
import pytest
from scipy import stats

from analysis.pairs.suspects import LABEL, _one_sided


def test_the_t_test_is_scipys():
    change = np.random.default_rng(0).normal(0.2, 1, (6, 8))
    theirs = stats.ttest_1samp(change, 0, axis=1, alternative="greater").pvalue
    assert _one_sided(change, np.full(6, 8)) == pytest.approx(theirs)


def test_what_did_not_move_is_no_suspect_and_what_always_moved_alike_is():
    p = _one_sided(np.array([np.zeros(8), np.full(8, 0.5), np.full(8, -0.5)]), np.full(3, 8))
    assert p.tolist() == [1.0, 0.0, 1.0]


def test_a_flow_that_moves_within_its_margin_is_a_suspect_and_does_not_gate(unchanged):
    one = (unchanged.kpis.flow_id == "dns-007") & (unchanged.kpis.arm == "B")
    told = unchanged.changed(one, response_ns=lambda ns: ns * 1.4).judged(triage=True)
    assert told.verdict.name == "PASS"
    assert ("dns-007", "response_ns") in {(one.flow_id, one.kpi) for one in told.suspects}
    notes = [f for f in told.findings if "dns-007" in f.flows and LABEL in f.effect]
    assert notes
    assert notes[0].q_value < 0.1


def test_a_flow_that_moved_strangely_is_noted_by_the_forest(unchanged):
    odd = unchanged.kpis.flow_id.isin(["dns-007", "http-001", "https-002", "dns-009"]) & (unchanged.kpis.arm == "B")
    told = unchanged.changed(odd, response_ns=lambda ns: ns * 0.3, goodput_bps=lambda bps: bps * 4).judged(triage=True)
    assert {one.flow_id for one in told.odd} <= {"dns-007", "http-001", "https-002", "dns-009"}
    assert all(one.p_value <= one.q_value for one in told.odd)


def test_an_unchanged_run_has_next_to_no_suspects(unchanged):
    assert len(unchanged.judged(triage=True).suspects) <= 2
    assert unchanged.judged(triage=True).odd == ()
