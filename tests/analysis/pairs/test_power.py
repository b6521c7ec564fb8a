import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from analysis.kpi import KPIS
from analysis.pairs.hierarchy import Level, Subject
from analysis.pairs.margins import margins, scaled
from analysis.pairs.power import pairs_within, per_kpi, smallest_effects
from analysis.pairs.signflip import Block, answers, flips
from analysis.verdict import Scope

RESPONSE = KPIS["response_ns"]


def level(worse, margin=0.05):
    count = len(worse)
    subjects = tuple(Subject(Scope.CLASS, f"c{n:02}", "normal", 9, 1e7, 1e7, 1e7, 1.05e7) for n in range(count))
    return Level(RESPONSE, False, 0.0, subjects, Block(np.asarray(worse), np.full(count, margin), np.ones(count)))


def as_is(count, sd, pairs=40, seed=1):
    return np.random.default_rng(seed).normal(0, sd, (count, pairs))


def test_for_one_hypothesis_it_is_little_more_than_the_t_test_needs():
    """With 8 pairs p-values come in steps of 1/256, and a mean may not be as far out as normal noise would allow."""
    own = as_is(1, 0.1)
    sd = float(np.sqrt((own**2).mean()))
    [found] = smallest_effects([level(own, margin=0.0)], 8, 0.05, 0)
    needed = TTestPower().solve_power(nobs=8, alpha=0.05, power=0.8, alternative="larger") * sd
    assert needed < found.worsening < 1.25 * needed


def test_it_is_found_four_times_out_of_five():
    margin, sd = 0.05, 0.08
    told = smallest_effects([level(as_is(12, sd), margin)], 8, 0.025, 0)
    worsening = float(np.median([one.worsening for one in told]))
    random, signs, found = np.random.default_rng(2), flips(8, 0), 0
    for _ in range(200):
        worse = random.normal(0, sd, (12, 8))
        worse[0] += worsening
        found += answers([level(worse, margin).block], signs, 0.025)[0].p_inferior[0] <= 0.025
    assert 0.68 < found / 200 < 0.92


def test_loss_where_none_was_seen_is_told_with_the_chance_of_so_few_packets():
    loss, trials, pairs = KPIS["loss_ratio"], 40.0, 8
    subject = Subject(Scope.CLASS, "dns", "normal", 10, 0.0, 0.0, 0.0, 0.01, trials)
    margin = float(margins(loss, loss.tolerance, np.array([0.0]), trials=trials)[0])
    still = Level(loss, False, 0.0, (subject,), Block(np.zeros((1, 20)), np.array([margin]), np.ones(1)))
    [told] = smallest_effects([still], pairs, 0.05, 0)
    random, signs, found = np.random.default_rng(3), flips(pairs, 0), 0
    for _ in range(200):
        lost = random.binomial(int(trials), told.value, (1, pairs)) / trials
        worse = scaled(loss, lost, trials) - scaled(loss, np.zeros((1, pairs)), trials)
        found += answers([Block(worse, np.array([margin]), np.ones(1))], signs, 0.05)[0].p_inferior[0] <= 0.05
    assert 0.65 < found / 200 < 0.95


def test_more_pairs_see_less():
    own = level(as_is(6, 0.1))
    by_pairs = [smallest_effects([own], pairs, 0.05, 0)[0].worsening for pairs in (6, 8, 10)]
    assert by_pairs == sorted(by_pairs, reverse=True)
    assert min(by_pairs) > 0.05


def test_with_too_few_pairs_nothing_is_ever_found():
    [found] = smallest_effects([level(as_is(1, 0.1))], 4, 0.05, 0)
    assert math.isinf(found.worsening)
    assert found.to_json()["smallest_effect_percent"] == "Infinity"


def test_it_is_told_per_kpi_for_who_is_seen_best_and_worst():
    own = as_is(3, 0.02)
    own[2] *= 10
    best, worst = per_kpi(smallest_effects([level(own)], 8, 0.05, 0))["response_ns"]
    assert worst.subject.name == "c02"
    assert best.change_percent < worst.change_percent


def test_as_many_pairs_as_fit_a_budget():
    assert pairs_within(60, 1.5, 0.5, 4) == 10
    assert pairs_within(60, 1.5, 0.5, 4, control=False) == 14
    assert pairs_within(3, 1.5, 0.5, 4) == 0
    with pytest.raises(ValueError, match="positive duration"):
        pairs_within(60, 0, 0, 0)
