import math

import pytest

from analysis.kpi import Tolerance
from analysis.pairs.beforehand import pair_variance, smallest_beforehand, smallest_of_couples
from analysis.pairs.power import per_kpi

TENTH = Tolerance(0.1, 0.0)


def told(scene, count=6, pairs=8):
    windows = sorted(scene.kpis.window.unique())[:count]
    found = smallest_beforehand(scene.kpis, scene.flows, {"response_ns": TENTH}, windows, pairs, 0)
    return [one for one in found if one.level.kpi.name == "response_ns" and not one.level.tail]


def test_a_few_windows_as_is_tell_what_would_be_found(unchanged):
    found = told(unchanged)
    assert {one.subject.name for one in found} == {"https", "http", "dns", "bulk", "network"}
    assert all(10 * 0.75 < one.change_percent < 60 for one in found)
    best, worst = per_kpi(found)["response_ns"]
    assert best.worsening <= worst.worsening
    assert best.to_json()["unit"] == "ns"


def test_a_noisier_machine_sees_less(build_pairs, unchanged):
    noisy = {one.subject.name: one.worsening for one in told(build_pairs(noise=0.2))}
    assert all(noisy[one.subject.name] > one.worsening for one in told(unchanged))


def test_one_or_two_windows_tell_nothing(unchanged):
    with pytest.raises(ValueError, match="found 2 windows as is, expected at least 3"):
        told(unchanged, count=2)


def test_couples_that_share_their_weather_differ_less(build_pairs):
    calm, rough = (build_pairs(noise=noise) for noise in (0.03, 0.2))
    couples = [(0, 1), (3, 4), (6, 7), (9, 10)]
    variances = [pair_variance(one.kpis, one.flows, {"response_ns": TENTH}, couples) for one in (calm, rough)]
    assert 0 < variances[0] < variances[1] / 10
    late = smallest_of_couples(calm.kpis, calm.flows, {"response_ns": TENTH}, couples, 8, 0)
    assert {one.subject.name for one in late} == {"https", "http", "dns", "bulk", "network"}


def test_windows_that_follow_one_another_are_couples_too(unchanged):
    found = pair_variance(unchanged.kpis, unchanged.flows, {"response_ns": TENTH}, [(0, 1), (1, 2), (2, 3)])
    assert found > 0


def test_too_few_couples_tell_nothing(unchanged):
    with pytest.raises(ValueError, match="found 2 couples of windows, expected at least 3"):
        smallest_of_couples(unchanged.kpis, unchanged.flows, {}, [(0, 1), (2, 3)], 8, 0)
    assert math.isnan(pair_variance(unchanged.kpis, unchanged.flows, {}, []))
