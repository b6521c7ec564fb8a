import pytest

from analysis.kpi import Tolerance
from analysis.pairs.beforehand import smallest_beforehand
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
