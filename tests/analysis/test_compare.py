import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.compare import contrast, deviation_percent
from analysis.kpi import KPIS, Tolerance

RESPONSE = KPIS["response_ns"]
GOODPUT = KPIS["goodput_bps"]
TOLERANCE = Tolerance(0.5, 5.0)
numbers = st.floats(allow_nan=True, allow_infinity=True)
sane = st.floats(min_value=0, max_value=1e15)
windows = st.lists(sane, min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("kpi", "baseline", "percent"),
    [
        (12, 10, 20),
        (8, 10, 20),
        (84, 12, 600),
        (10, -10, 200),
        (0, 0, 0),
        (1, 0, math.inf),
        (5e-324, 0, math.inf),
        (math.inf, math.inf, 0),
        (math.inf, 10, math.inf),
        (10, math.inf, 100),
        (0, 10, 100),
    ],
)
def test_the_seeds_percentage_deviation_with_its_holes_closed(kpi, baseline, percent):
    assert deviation_percent(kpi, baseline) == pytest.approx(percent)


@given(numbers, numbers)
def test_deviation_is_never_negative_never_raises_and_nan_only_from_nan(kpi, baseline):
    percent = deviation_percent(kpi, baseline)
    assert math.isnan(percent) == (math.isnan(kpi) or math.isnan(baseline))
    assert math.isnan(percent) or percent >= 0


def test_a_move_needs_the_relative_and_the_absolute_floor():
    assert contrast(RESPONSE, TOLERANCE, [10, 10, 10], [16, 16, 16]).certain
    assert not contrast(RESPONSE, TOLERANCE, [100, 100, 100], [140, 140, 140]).beyond, "40 % is under 50 %"
    assert not contrast(RESPONSE, TOLERANCE, [1, 1, 1], [5, 5, 5]).beyond, "+400 %, but only by 4"


def test_one_treatment_window_that_overlaps_leaves_it_undecided():
    found = contrast(RESPONSE, TOLERANCE, [10, 10, 11], [30, 10.5, 30])
    assert found.beyond
    assert found.undecided


def test_a_move_inside_twice_the_baselines_own_stray_is_undecided():
    found = contrast(RESPONSE, TOLERANCE, [10, 10, 40], [60, 60, 60])
    assert found.noise == 30
    assert found.noisy
    assert found.undecided


def test_higher_is_better_turns_the_comparison_round():
    assert contrast(GOODPUT, Tolerance(0.3, 1.0), [100, 101, 102], [50, 50, 50]).certain
    assert contrast(GOODPUT, Tolerance(0.3, 1.0), [100, 101, 102], [200, 200, 200]).improved


def test_never_answered_after_is_certain_and_never_answered_before_and_after_is_nothing():
    assert contrast(RESPONSE, TOLERANCE, [10, 10, 10], [math.inf] * 3).certain
    assert contrast(RESPONSE, TOLERANCE, [math.inf] * 3, [math.inf] * 3).noise == 0
    assert not contrast(RESPONSE, TOLERANCE, [math.inf] * 3, [math.inf] * 3).beyond


def test_no_window_at_all_is_an_error():
    with pytest.raises(ValueError, match="at least one before"):
        contrast(RESPONSE, TOLERANCE, [], [1])


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        Tolerance(-0.1, 1)


@given(windows, windows)
def test_certain_excludes_improved_and_undecided(baseline, after):
    found = contrast(RESPONSE, TOLERANCE, baseline, after)
    assert found.certain + found.improved + found.undecided <= 1


@given(windows)
def test_a_baseline_held_against_itself_is_neither_worse_nor_better(baseline):
    found = contrast(RESPONSE, TOLERANCE, baseline, baseline)
    assert not found.beyond
    assert not found.improved
    assert found.deviation_percent == 0
