"""The conformance kit: what every detector promises, and the whole watch too."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.detect.alarm import AlarmRule, Alarms
from analysis.detect.features import Lags, OnFeatures, OnResidual, OnValue, Sample, Shape
from analysis.detect.forest import Forest
from analysis.detect.port import Reading
from analysis.detect.scalar import Cusum, DeviationPercent, EwmaResidual, RobustZ, TrendResidual
from analysis.detect.subspace import Subspace
from analysis.detect.tail import Surprise
from analysis.detect.watch import Evidence, Pace, Settings, Watch, detectors

MINUTE_NS = 60_000_000_000


class SmallSubspace(Subspace):
    FIRST_FIT, REFIT_ROWS = 20, (20, 20)


class SmallForest(Forest):
    TREES, SAMPLES, REFIT_ROWS = 5, 32, (60, 60)


def sample(row: int, value: float) -> Sample:
    return Sample(value, value - 10.0)


def reading(row: int, value: float) -> Reading:
    return Reading(row * MINUTE_NS, value)


DETECTORS: dict[str, tuple[Callable[[], object], Callable[[int, float], object]]] = {
    "deviation_percent": (lambda: OnValue(DeviationPercent()), sample),
    "seasonal_z": (lambda: OnResidual(RobustZ(1)), sample),
    "sustained_z": (lambda: OnResidual(RobustZ(6)), sample),
    "trend": (lambda: OnResidual(TrendResidual(8, 2)), sample),
    "ewma": (lambda: OnResidual(EwmaResidual(10)), sample),
    "cusum": (lambda: OnResidual(Cusum(30)), sample),
    "subspace": (lambda: OnFeatures(Lags(5), SmallSubspace(5, 2, memory=50, alike=True)), sample),
    "forest": (lambda: OnFeatures(Shape(2, 3, 5), SmallForest(6, seed=3, memory=64)), sample),
    "surprise": (lambda: Surprise(OnValue(DeviationPercent()), 70), sample),
    "alarms": (lambda: Alarms(AlarmRule(3.0, agree=2, among=3)), lambda _, value: value),
    "evidence": (lambda: Evidence(Settings(Pace().times(0.1), memory=100)), reading),
    "watch": (lambda: Watch(Settings(Pace().times(0.1), memory=100)), reading),
}


def scores(name: str, values: Sequence[float]) -> list[float | None]:
    make, wrapped = DETECTORS[name]
    detector, found = make(), []
    for row, value in enumerate(values):
        given_ = wrapped(row, value)
        found.append(detector.score_one(given_))
        detector.learn_one(given_)
    return found


def noise(rows: int, seed: int = 1) -> list[float]:
    return (10 + np.random.default_rng(seed).normal(size=rows)).tolist()


@pytest.mark.parametrize("name", DETECTORS)
def test_the_past_is_scored_alike_whatever_comes_later(name):
    past = noise(90)
    first = scores(name, past + [10.0] * 20)
    later = scores(name, past + [1e6, -1e6] * 10)
    assert first[:90] == later[:90] == scores(name, past)
    assert any(score is not None for score in first[:90])


@pytest.mark.parametrize("name", ["seasonal_z", "sustained_z", "trend", "ewma", "cusum", "deviation_percent", "watch"])
@settings(max_examples=8, deadline=None)
@given(
    past=st.lists(st.floats(-1e6, 1e6), max_size=70),
    one=st.lists(st.floats(-1e9, 1e9), max_size=5),
    other=st.lists(st.floats(-1e9, 1e9), max_size=5),
)
def test_no_future_changes_a_score(name, past, one, other):
    assert scores(name, past + one)[: len(past)] == scores(name, past + other)[: len(past)]


@pytest.mark.parametrize("name", DETECTORS)
def test_scoring_changes_nothing(name):
    make, wrapped = DETECTORS[name]
    values = noise(90)
    once = scores(name, values)
    detector, found = make(), []
    for row, value in enumerate(values):
        detector.score_one(wrapped(row, value + 3))
        given_ = wrapped(row, value)
        found.append(detector.score_one(given_))
        assert detector.score_one(given_) == found[-1]
        detector.learn_one(given_)
    assert found == once


@pytest.mark.parametrize("name", DETECTORS)
def test_the_same_seed_gives_the_same_bytes(name):
    assert pickle.dumps(scores(name, noise(90))) == pickle.dumps(scores(name, noise(90)))


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in {"alarms", "forest", "watch"}])
def test_a_constant_series_is_never_odd_and_a_first_change_is(name):
    found = scores(name, [12.3] * 120 + [14.0])
    calm = [score for score in found[:-1] if score is not None]
    assert calm
    assert len(set(calm[5:])) == 1
    assert found[-1] > calm[-1]


def test_a_constant_series_has_no_alarm_and_its_first_change_is_one():
    found = scores("watch", [12.3] * 120 + [14.0])
    assert max(score for score in found[:-1] if score is not None) == 0
    assert found[-1] >= 0.5
    assert len(set(scores("forest", [12.3] * 120)[70:])) == 1  # trees of nothing but equals tell nothing


@pytest.mark.parametrize("name", DETECTORS)
def test_warm_up_is_told_by_none(name):
    found = scores(name, noise(120))
    if name != "alarms":
        assert found[0] is None
    numbers = [score for score in found if score is not None]
    assert numbers
    assert all(isinstance(score, float) and not math.isnan(score) for score in numbers)
    assert None not in found[found.index(numbers[0]) :]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, 1.0, math.nan, math.inf])),
        max_size=90,
    ),
    st.data(),
)
def test_a_watch_survives_any_numbers_and_any_times(values, data):
    watch = Watch(Settings(Pace().times(0.1), memory=60))
    for value in values:
        step = data.draw(st.sampled_from([0, 1, MINUTE_NS, -MINUTE_NS, 86_400 * 10**9, 30 * 86_400 * 10**9]))
        given_ = Reading(step, value)
        score = watch.score_one(given_)
        watch.learn_one(given_)
        assert score is None or 0 <= score <= 1
        assert not (math.isnan(value) and score is not None)


def test_a_gap_costs_only_its_own_scores():
    values = noise(140)
    values[100:110] = [math.nan] * 10
    found = scores("watch", values)
    assert all(score is None for score in found[100:110])
    assert all(score is not None for score in found[110:])


def test_what_never_came_is_odd_and_spoils_nothing():
    values = noise(300)
    values[200] = math.inf
    values[250] = 10_000.0
    found = scores("evidence", values)
    assert found[200] > 1.5 * np.median(found[100:200])
    assert found[250] > 3


def test_the_detectors_that_ship_are_the_eight_of_the_document():
    assert list(detectors(Pace(), 0)) == [
        "deviation_percent",
        "seasonal_z",
        "sustained_z",
        "trend",
        "ewma",
        "cusum",
        "subspace",
        "forest",
    ]
