"""How many pairs fit into a budget, and which budgets are refused; arithmetic."""

from __future__ import annotations

import pytest

from analysis.pairs.design import FLOOR
from testbed.pairs.play import Pace, pace
from testbed.plan import MOST_PAIRS, BudgetTooShort, Plan


def test_what_fits_takes_no_longer_than_the_budget_and_one_more_would():
    going = Pace(window_s=0.9, change_s=0.1, settle_s=0.4)
    for budget in (30.0, 47.0, 120.0):
        fits = going.pairs_in(budget)
        assert going.seconds_of(fits) <= budget < going.seconds_of(fits + 1)
    assert going.pairs_in(1.0) == 0
    assert going.pairs_in(1e6) == MOST_PAIRS


def test_one_slow_window_does_not_set_the_pace():
    assert pace([0.9, 1.0, 9.0], 0.1, 0.4).window_s == 1.0


def test_a_budget_is_refused_before_anything_is_built_only_if_replay_alone_exceeds_it():
    plan = Plan(budget_s=60.0)
    plan.refuse_budget(2.0)
    with pytest.raises(BudgetTooShort, match=rf"^60 s: {FLOOR} pairs are 23 windows of 3.0 s, 69 s .* 1.3 s"):
        plan.refuse_budget(3.0)
    with pytest.raises(BudgetTooShort) as refusal:
        Plan(budget_s=2.0).refuse_budget(3.0)
    assert "--window" not in str(refusal.value)
    Plan(pairs=50).refuse_budget(1e6)
