"""Each link of the chain against a truth that is known: season, tail, vectors, alarm rule, and what they find."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from analysis.detect.alarm import ALARM, AlarmRule, Alarms
from analysis.detect.forest import Forest, _Trees
from analysis.detect.port import Reading
from analysis.detect.ranked import Ranked
from analysis.detect.recent import Recent, RecentVectors
from analysis.detect.scalar import DeviationPercent, TrendResidual
from analysis.detect.season import DAY_HOURS, HOUR_NS, WEEK_HOURS, Season
from analysis.detect.subspace import Subspace
from analysis.detect.tail import Surprise
from analysis.detect.watch import Pace, Settings, detect, detectors

STEP_NS = HOUR_NS // 4


def learned(values, step_ns=STEP_NS, until=None) -> tuple[Season, list[int]]:
    season, past, adopted = Season(20_000), [], []
    for row, value in enumerate(values):
        given = Reading(row * step_ns, float(value))
        season.learn(given)
        past.append(given)
        if season.renewed(given.time_ns, lambda: tuple(past)) is not None:
            adopted.append(row)
    return season, adopted


def daily(days: int, seed: int = 0) -> np.ndarray:
    hours = np.arange(days * 96) / 4
    return 50 + 20 * np.sin(2 * np.pi * hours / 24) + np.random.default_rng(seed).normal(size=len(hours))


def test_an_hour_of_day_is_known_after_three_days_and_not_before():
    season, adopted = learned(daily(4))
    assert adopted == [3 * 96]
    assert season.cycle_hours == DAY_HOURS
    assert season.baseline(4 * 96 * STEP_NS + 6 * HOUR_NS) == pytest.approx(70, abs=2)
    assert season.baseline(4 * 96 * STEP_NS + 18 * HOUR_NS) == pytest.approx(30, abs=2)


def test_an_hour_of_week_is_known_after_three_weeks():
    week = np.where(np.arange(168) < 120, 100.0, 10.0)
    values = np.tile(week, 4) + np.random.default_rng(0).normal(size=4 * 168)
    season, adopted = learned(values, HOUR_NS)
    assert adopted[-1] == 3 * 168
    assert season.cycle_hours == WEEK_HOURS
    assert season.baseline((4 * 168 + 130) * HOUR_NS) == pytest.approx(10, abs=2)


def test_noise_and_a_gap_have_no_season():
    assert learned(np.random.default_rng(0).normal(size=1_000))[0].cycle_hours == 0
    season = Season(1_000)
    past = [Reading(0, 1.0), Reading(1, 5.0), Reading(100 * 24 * HOUR_NS, 2.0)]
    for given in past:
        season.learn(given)
    assert season.renewed(past[-1].time_ns, lambda: tuple(past)) is None


def test_a_level_shift_against_the_season_is_found_though_no_value_is_new():
    values = daily(12)
    values[9 * 96 + 24 + 4 : 9 * 96 + 24 + 24] = 30 + np.random.default_rng(5).normal(size=20)  # a morning like a night
    found = detect([Reading(row * STEP_NS, float(value)) for row, value in enumerate(values)])
    assert any(9 * 96 + 28 <= row <= 9 * 96 + 34 for row in found.alarms)
    assert len([row for row in found.alarms if row > 4 * 96]) <= 3


def test_a_spike_is_an_alarm_at_once_and_only_once():
    values = np.random.default_rng(2).normal(size=700)
    values[600:606] += 12
    found = detect([Reading(row, float(value)) for row, value in enumerate(values)])
    assert found.alarms
    assert [row for row in found.alarms if 600 <= row <= 620] == [600]
    assert found.scores[600] >= ALARM
    assert len(found.loudest) == len(found.alarms)
    assert set(found.loudest) <= set(detectors(Pace(), 0))
    assert all((found.scores[row] or 0) < ALARM for row in range(601, 606))


def test_the_tail_counts_earlier_scores():
    surprise = Surprise(DeviationPercent(), 1_000)
    for value in range(1, 102):
        surprise.learn_one(float(value % 7) + 1)
    record = surprise.score_one(1e6)
    assert record == pytest.approx(math.log(101))
    assert surprise.score_one(4.0) < record


def test_ranked_forgets_the_oldest():
    ranked = Ranked(3)
    for value in (5.0, 1.0, 3.0, 4.0):
        ranked.push(value)
    assert (len(ranked), ranked.at_least(3.0), ranked.at_least(5.0), ranked.median()) == (3, 2, 0, 3.0)


def test_recent_is_the_latest_in_order():
    recent = Recent(3)
    for value in range(8):
        recent.push(float(value))
        kept = [float(other) for other in range(max(0, value - 2), value + 1)]
        assert recent.latest().tolist() == kept
        assert recent.latest(2).tolist() == kept[-2:]


def test_recent_vectors_are_the_latest_in_order():
    recent = RecentVectors(3, 2)
    assert recent.latest().tolist() == []
    for value in range(8):
        recent.push(np.full(2, float(value)))
        assert recent.latest()[:, 0].tolist() == [float(other) for other in range(max(0, value - 2), value + 1)]


def test_a_trend_is_no_anomaly_and_its_end_is():
    trend = TrendResidual(20, 2)
    for row in range(40):
        trend.learn_one(3.0 + 0.5 * row + 0.1 * row**2)
    assert trend.score_one(3.0 + 0.5 * 40 + 0.1 * 40**2) == pytest.approx(0, abs=1e-6)
    assert trend.score_one(0.0) == pytest.approx(183)


def test_the_percentage_deviation_is_the_seeds():
    detector = DeviationPercent()
    for value in (90.0, 110.0):
        detector.learn_one(value)
    assert detector.score_one(125.0) == pytest.approx(25.0)
    assert detector.score_one(75.0) == pytest.approx(25.0)


def test_a_subspace_knows_far_inside_the_plane_from_off_it():
    random = np.random.default_rng(0)
    base = random.normal(size=(400, 1)) @ np.array([[1.0, 2.0, -1.0]]) + random.normal(scale=0.05, size=(400, 3))
    subspace = Subspace(3, 1)
    for vector in base:
        subspace.learn_one(vector)
    usual = np.median([subspace.score_one(vector) for vector in base])
    assert subspace.score_one(np.array([1.0, -2.0, -1.0])) > 50 * usual  # no value is new, the way they go together is
    assert subspace.score_one(np.array([8.0, 16.0, -8.0])) > 5 * usual


def test_the_forest_scores_as_scikit_learn_does():
    random = np.random.default_rng(0)
    known = random.normal(size=(300, 4))
    grown = IsolationForest(n_estimators=Forest.TREES, max_samples=Forest.SAMPLES, random_state=1).fit(known)
    trees = _Trees.of(grown)
    asked = random.normal(scale=3, size=(20, 4))
    assert [trees.score(vector) for vector in asked] == pytest.approx((-grown.score_samples(asked)).tolist(), abs=1e-9)


def begun(evidence, rule: AlarmRule) -> list[int]:
    alarms, rows = Alarms(rule), []
    for row, given in enumerate(evidence):
        if (alarms.score_one(given) or 0) >= ALARM:
            rows.append(row)
        alarms.learn_one(given)
    return rows


def test_an_alarm_is_told_once_then_waits_for_recovery_and_quiet():
    flat = AlarmRule(3.0, tightening=0.0, quiet=0.1, recovery=2, escalation=9.0)
    assert begun([1.0] * 100 + [5.0] * 50 + [1.0] * 5 + [5.0], flat) == [100, 155]
    assert begun([1.0] * 100 + [5.0, 1.0, 1.0, 5.0] + [1.0] * 10 + [5.0], flat) == [100, 114]
    assert begun([1.0] * 100 + [5.0] * 50 + [1.0] + [5.0], flat) == [100]


def test_what_is_much_more_evident_than_the_last_alarm_does_not_wait():
    rule = AlarmRule(3.0, tightening=0.0, quiet=0.5, recovery=6, escalation=2.0)
    assert begun([1.0] * 100 + [3.1, 5.0, 5.2, 6.0, 7.0, 7.3], rule) == [100, 102, 105]


def test_m_of_n_rows_must_agree():
    rule = AlarmRule(3.0, tightening=0.0, agree=2, among=3)
    assert begun([1.0, 5.0, 1.0, 1.0, 5.0, 1.0, 5.0], rule) == [6]
    assert begun([None, 5.0, None, 5.0], rule) == [3]


def test_the_threshold_rises_with_what_is_known():
    rule = AlarmRule(4.0, tightening=0.5)
    assert rule.threshold(2_000) == 4.0
    assert rule.threshold(8_000) == pytest.approx(4.0 + math.log(2))
    assert rule.thresholds(np.array([0, 8_000])).tolist() == [rule.threshold(0), rule.threshold(8_000)]


def test_windows_scale_together():
    assert Pace().times(1.0) == Pace()
    assert Pace().times(2.0).trend == 2 * Pace().trend
    assert Settings().memory > Pace().trend
