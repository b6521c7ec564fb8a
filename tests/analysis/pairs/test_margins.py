import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.disposition import AS_EXPECTED
from analysis.kpi import KPIS, Tolerance
from analysis.pairs.margins import (
    CRITICALITY,
    criticality,
    limits,
    margins,
    moved_by,
    offset_of,
    scaled,
    unscaled,
    worsening,
)

RESPONSE, GOODPUT, LOSS, RETRANSMITS = (KPIS[n] for n in ("response_ns", "goodput_bps", "loss_ratio", "retransmits"))


def test_a_delay_must_exceed_the_relative_and_the_absolute_margin():
    wide = Tolerance(0.1, 5e6)
    short, long = margins(RESPONSE, wide, np.array([1e6, 1e9]))
    assert limits(RESPONSE, wide, np.array([1e6, 1e9])).tolist() == [6e6, 1.1e9]
    assert short == pytest.approx(np.log((6 + 5) / (1 + 5)))
    assert long == pytest.approx(np.log(1.105 / 1.005), rel=1e-3)


def test_what_is_small_beside_the_absolute_margin_is_no_noise():
    wide = Tolerance(0.1, 5e6)
    small = scaled(RESPONSE, np.array([30e3, 60e3]), 1.0, offset_of(RESPONSE, wide))
    large = scaled(RESPONSE, np.array([0.5e9, 1e9]), 1.0, offset_of(RESPONSE, wide))
    assert small[1] - small[0] < 0.01
    assert large[1] - large[0] == pytest.approx(np.log(2), rel=0.01)


def test_a_rate_may_fall_by_its_margin_and_no_margin_reaches_below_nothing():
    assert margins(GOODPUT, Tolerance(0.2, 0), np.array([1e6]))[0] == pytest.approx(-np.log(0.8))
    assert np.isinf(margins(GOODPUT, Tolerance(0.2, 5e6), np.array([1e6]))[0])


def test_loss_counts_what_was_lost_of_how_many():
    none, one = scaled(LOSS, np.array([0.0, 0.01]), 100.0)
    assert none == pytest.approx(np.log(0.5 / 100.5))
    assert one == pytest.approx(np.log(1.5 / 99.5))
    assert scaled(LOSS, np.array([1.0]), 100.0)[0] == pytest.approx(-none)
    assert margins(LOSS, Tolerance(0, 0.01), np.array([0.0]), 1.0, 100.0)[0] == pytest.approx(one - none)
    assert np.isinf(margins(LOSS, Tolerance(0, 0.5), np.array([0.6]))[0])


def test_counts_have_a_half_added():
    assert scaled(RETRANSMITS, np.array([0.0, 3.0]))[1] == pytest.approx(np.log(3.5))


def test_what_never_came_is_not_compared():
    assert np.isnan(scaled(RESPONSE, np.array([np.inf, np.nan]))).all()


def test_worse_is_positive_for_delays_rates_and_shares_alike():
    assert worsening(RESPONSE, np.array([2.0]), np.array([1.0]))[0] == 1
    assert worsening(GOODPUT, np.array([2.0]), np.array([1.0]))[0] == -1
    assert worsening(AS_EXPECTED, np.array([1.0]), np.array([2.0]))[0] == 1
    assert moved_by(RESPONSE, 1e6, np.log(1.1)) == pytest.approx(1.1e6)
    assert moved_by(GOODPUT, 1e6, -np.log(0.8)) == pytest.approx(0.8e6)


def test_critical_is_held_to_tighter_margins_and_its_multiplier_is_the_largest():
    ranks = [CRITICALITY[name] for name in ("critical", "high", "normal", "low")]
    assert [rank.margin for rank in ranks] == sorted(rank.margin for rank in ranks)
    assert [rank.multiplier for rank in ranks] == sorted((rank.multiplier for rank in ranks), reverse=True)
    assert criticality("whatever") == CRITICALITY["normal"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(KPIS)), st.floats(0, 10), st.floats(0, 1e9), st.floats(0, 1e12), st.floats(1, 1e4))
def test_every_margin_is_a_distance(name, relative, absolute, baseline, trials):
    kpi = KPIS[name]
    value = min(baseline, 1.0) if kpi.unit == "ratio" else baseline
    assert margins(kpi, Tolerance(relative, absolute), np.array([value]), 1.0, trials)[0] >= 0


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(KPIS)), st.floats(0, 1), st.floats(1, 1e4), st.floats(0, 1e7))
def test_a_place_on_the_scale_is_the_value_again(name, part, trials, offset):
    kpi = KPIS[name]
    value = part if kpi.unit == "ratio" else 1e3 + part * 1e9
    place = scaled(kpi, np.array([value]), trials, offset)
    assert unscaled(kpi, place, trials, offset)[0] == pytest.approx(value, rel=1e-6, abs=1e-6)
