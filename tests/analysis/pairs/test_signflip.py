"""The test itself, held against scipy's permutation test, against its promise, and against nonsense."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.pairs import signflip
from analysis.pairs.signflip import PRIOR_WEIGHT, Block, answers, flips, needed_worsening


def block(worse, margin=0.0, multiplier=1.0):
    worse = np.asarray(worse, dtype=float)
    return Block(worse, np.full(len(worse), margin), np.full(len(worse), multiplier))


def moderated(values, axis=-1):
    """The statistic of one hypothesis per row over pairs in the last axis, written a second time."""
    pairs = values.shape[-1]
    variance = values.var(axis=-1, ddof=1)
    usual = np.median(variance, axis=0) if variance.ndim else variance
    drawn = (PRIOR_WEIGHT * usual + (pairs - 1) * variance) / (PRIOR_WEIGHT + pairs - 1)
    return values.mean(axis=-1) / np.sqrt(drawn / pairs)


def test_the_first_flip_swaps_nothing_and_all_are_different():
    signs = flips(6, 0)
    assert signs.shape == (64, 6)
    assert (signs[0] == 1).all()
    assert len({tuple(row) for row in signs}) == 64


def test_with_many_pairs_flips_are_drawn_and_the_seed_decides():
    assert flips(16, 1).shape == (2048, 16)
    assert (flips(16, 1)[0] == 1).all()
    assert np.array_equal(flips(16, 1), flips(16, 1))
    assert not np.array_equal(flips(16, 1), flips(16, 2))


@pytest.mark.parametrize("seed", range(4))
def test_one_hypothesis_has_the_p_value_of_scipys_permutation_test(seed):
    values = np.random.default_rng(seed).normal(0.3, 1, 8)
    [ours] = answers([block([values])], flips(8, 0), 0.05)
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert ours.p_inferior[0] == theirs.pvalue
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="less", n_resamples=np.inf
    )
    assert ours.p_non_inferior[0] == theirs.pvalue


def test_a_family_has_the_p_value_of_scipys_permutation_of_pair_numbers():
    """One sign a pair for all: scipy flips the signs of the pairs' numbers, the statistic looks the differences up."""
    random = np.random.default_rng(5)
    worse = random.normal(0.0, 1, (40, 7))
    worse[3] += 2.5
    numbers = np.arange(1.0, 8.0)

    def largest(signed, axis=-1):
        flipped = worse[:, np.abs(signed).astype(int) - 1] * np.sign(signed)
        values = np.moveaxis(flipped, 0, 0)
        return moderated(values).max(axis=0)

    found = [answers([block(worse)], flips(7, 0), 0.05)[0].p_inferior.min()]
    theirs = stats.permutation_test(
        (numbers,), largest, permutation_type="samples", alternative="greater", n_resamples=np.inf, vectorized=True
    )
    assert found[0] == pytest.approx(theirs.pvalue)


def test_a_real_effect_among_many_is_found_and_the_others_are_not():
    random = np.random.default_rng(2)
    worse = random.normal(0, 0.05, (500, 8)) + random.normal(0, 0.02, 8)
    worse[17] += 0.4
    [told] = answers([block(worse, margin=0.05)], flips(8, 0), 0.025)
    assert np.flatnonzero(told.p_inferior <= 0.025).tolist() == [17]
    assert told.low[17] < 0.4 < told.high[17]


def test_false_alarms_of_the_whole_family_stay_at_alpha_whatever_is_shared():
    """2,000 hypotheses would give a false alarm in every run if each were tested alone."""
    random = np.random.default_rng(3)
    signs = flips(6, 0)
    for shared in (0.0, 0.9):
        alarms = 0
        for _ in range(120):
            own = random.standard_t(3, (300, 6)) * np.sqrt(1 - shared)
            worse = own + random.normal(0, np.sqrt(shared), 6)
            alarms += bool((answers([block(worse)], signs, 0.05)[0].p_inferior <= 0.05).any())
        assert stats.binomtest(alarms, 120, 0.05, alternative="greater").pvalue > 0.001


def test_what_never_moved_is_not_worse_and_disturbs_nobody():
    moving = np.random.default_rng(4).normal(0.5, 0.1, (1, 8))
    alone, both = block(moving, 0.1), block(np.vstack([moving, np.zeros((5, 8))]), 0.1)
    [one], [six] = answers([alone], flips(8, 0), 0.05), answers([both], flips(8, 0), 0.05)
    assert six.p_inferior[0] == one.p_inferior[0]
    assert (six.p_inferior[1:] == 1).all()
    assert (six.p_non_inferior[1:] == 1 / 256).all()


def test_a_pair_that_was_not_measured_takes_no_part():
    values = np.random.default_rng(6).normal(0.3, 1, 8)
    values[2] = np.nan
    with_gap = answers([block([values])], flips(8, 0), 0.05)[0]
    without = answers([block([np.delete(values, 2)])], flips(7, 0), 0.05)[0]
    assert with_gap.p_inferior[0] == without.p_inferior[0]
    assert with_gap.mean[0] == pytest.approx(without.mean[0])
    assert with_gap.low[0] == pytest.approx(without.low[0])


def test_pieces_give_what_the_whole_gives(monkeypatch):
    worse = np.random.default_rng(7).normal(0, 1, (50, 8))
    whole = answers([block(worse)], flips(8, 0), 0.05)[0]
    monkeypatch.setattr(signflip, "_CELLS", 130)
    pieces = answers([block(worse)], flips(8, 0), 0.05)[0]
    assert np.array_equal(whole.p_inferior, pieces.p_inferior)
    assert np.allclose(whole.high, pieces.high)


def test_a_multiplier_favours_one_and_not_another():
    random = np.random.default_rng(8)
    worse = random.normal(0, 0.1, (60, 8))
    worse[:2] += 0.3
    favoured = Block(worse, np.zeros(60), np.where(np.arange(60) == 0, 1.5, 1.0))
    [told] = answers([favoured], flips(8, 0), 0.05)
    [plain] = answers([block(worse)], flips(8, 0), 0.05)
    assert told.p_inferior[0] <= plain.p_inferior[0]
    assert told.p_inferior[1] >= plain.p_inferior[1]


def test_the_needed_worsening_is_just_found_when_it_is_added():
    worse = np.random.default_rng(9).normal(0, 0.1, (20, 8))
    [needed] = needed_worsening([block(worse, 0.05)], flips(8, 0), 0.05)
    more = worse.copy()
    more[0] += needed[0] * 1.3
    less = worse.copy()
    less[0] += needed[0] * 0.7
    assert answers([block(more, 0.05)], flips(8, 0), 0.05)[0].p_inferior[0] <= 0.05
    assert answers([block(less, 0.05)], flips(8, 0), 0.05)[0].p_inferior[0] > 0.05


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_numbers_give_probabilities_and_ordered_intervals(data):
    pairs = data.draw(st.integers(2, 7))
    rows = data.draw(st.integers(1, 5))
    number = st.one_of(st.floats(-20, 20), st.sampled_from([0.0, np.nan]))
    worse = np.array(
        data.draw(st.lists(st.lists(number, min_size=pairs, max_size=pairs), min_size=rows, max_size=rows))
    )
    margin = data.draw(st.floats(0, 5))
    [told] = answers([block(worse, margin)], flips(pairs, 0), 0.05)
    for p in (told.p_inferior, told.p_non_inferior):
        assert ((p >= 0.5**pairs) & (p <= 1)).all()
    assert (told.low <= told.high).all()
    order = data.draw(st.permutations(range(pairs)))
    [again] = answers([block(worse[:, order], margin)], flips(pairs, 0), 0.05)
    assert np.allclose(again.p_inferior, told.p_inferior)
