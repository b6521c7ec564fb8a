import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.kpi import KPIS
from analysis.pairs.chance import by_chance, worsened
from analysis.pairs.margins import scaled

LOSS, RETRANSMITS = KPIS["loss_ratio"], KPIS["retransmits"]


@pytest.mark.parametrize(("share", "trials"), [(0.03, 40), (0.5, 12), (0.99, 60), (0.2, 900), (0.4, 9_000)])
def test_a_share_of_few_trials_is_as_uneven_as_drawn_ones(share, trials):
    drawn = scaled(LOSS, np.random.default_rng(1).binomial(trials, share, 40_000) / trials, trials)
    mean, variance = by_chance(LOSS, share, trials)
    assert mean == pytest.approx(drawn.mean(), abs=0.02)
    assert variance == pytest.approx(drawn.var(), rel=0.05)


def test_a_mean_count_is_poisson():
    drawn = scaled(RETRANSMITS, stats.poisson.rvs(4.0, size=40_000, random_state=1) / 20, 20)
    mean, variance = by_chance(RETRANSMITS, 0.2, 20)
    assert (mean, variance) == (pytest.approx(drawn.mean(), abs=0.02), pytest.approx(drawn.var(), rel=0.05))


def test_what_is_measured_is_not_counted():
    with pytest.raises(ValueError, match="response_ns is measured, not counted"):
        by_chance(KPIS["response_ns"], 1.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 0.5), st.floats(0.1, 3), st.integers(5, 100_000))
def test_worse_by_so_much_is_where_the_mean_comes_to(baseline, worse, trials):
    value = worsened(LOSS, baseline, worse, trials)
    assert baseline <= value <= 1
    if value < 0.999:
        came_to = by_chance(LOSS, value, trials)[0] - by_chance(LOSS, baseline, trials)[0]
        assert came_to == pytest.approx(worse, abs=0.02)
