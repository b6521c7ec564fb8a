from collections import Counter

import pandas as pd
import pytest

from analysis.pairs.design import DEFAULT, FLOOR, Arm, alphas, lack_of_pairs, layout_of, moments, order, smallest_p
from analysis.window import InvalidTable


def test_every_pair_has_each_arm_once_and_the_seed_decides_the_order():
    plan = order(8, seed=3)
    assert Counter((one.arm, one.pair) for one in plan) == {(arm, pair): 1 for arm in Arm for pair in range(8)}
    assert plan == order(8, seed=3)
    assert plan != order(8, seed=4)
    assert [one.pair for one in plan] == sorted(one.pair for one in plan)


def test_the_change_stands_first_as_often_as_last():
    firsts = sum([one.arm for one in order(1, seed, control=False)] == [Arm.CHANGED, Arm.AS_IS] for seed in range(400))
    assert 150 < firsts < 250


def test_no_pairs_are_no_plan():
    with pytest.raises(ValueError, match="at least 1"):
        order(0, 1)


def test_the_floor_is_where_the_smallest_p_value_is_below_alpha():
    assert smallest_p(FLOOR) == 1 / 64
    assert lack_of_pairs(FLOOR, 0.05) == ""
    assert lack_of_pairs(DEFAULT, 0.05) == ""
    assert lack_of_pairs(5, 0.05) == "only 5 usable pairs of windows, at least 6 needed"
    assert "their smallest is 0.015625" in lack_of_pairs(6, 0.01)
    for pairs in (6, 7, 8, 9, 16):
        assert min(alphas(pairs, 0.05)) > smallest_p(pairs)


def table(rows):
    return pd.DataFrame(rows, columns=["window", "arm", "pair"])


def valid(*windows):
    return [{"window": window, "valid": True} for window in windows]


def test_a_pair_counts_when_both_its_windows_are_valid():
    kpis = table([(0, "A", 0), (1, "B", 0), (2, "A'", 0), (3, "B", 1), (4, "A", 1), (5, "warmup", 1)])
    layout = layout_of(kpis, [*valid(0, 1, 2, 4), {"window": 3, "valid": False, "reason": "drops"}])
    assert layout.pairs == (0,)
    assert layout.controls == (0,)
    assert layout.all_of(Arm.AS_IS) == (0, 4)
    assert [(one.window, one.reason) for one in layout.excluded] == [(3, "drops")]


def test_a_window_without_a_record_does_not_count():
    layout = layout_of(table([(0, "A", 0), (1, "B", 0)]), valid(0))
    assert layout.pairs == ()
    assert layout.excluded[0].reason == "no instrument record"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([(0, "A", 0), (0, "B", 0)], "window 0 in two arms"),
        ([(0, "A", 0), (1, "A", 0)], "arm A of pair 0 in two windows"),
    ],
)
def test_a_window_has_one_place(rows, complaint):
    with pytest.raises(InvalidTable, match=complaint):
        layout_of(table(rows), valid(0, 1))


def test_a_table_without_arms_is_refused():
    with pytest.raises(InvalidTable, match=r"expected also \['arm', 'pair'\]"):
        layout_of(pd.DataFrame({"window": [1]}), [])


def test_every_pair_has_two_moments_on_two_shadows_and_who_is_who_is_drawn():
    plan = moments(8, seed=3)
    assert plan == moments(8, seed=3) != moments(8, seed=4)
    assert [moment.pair for moment in plan] == list(range(16))
    for early, late in zip(plan[::2], plan[1::2], strict=True):
        others = [({*moment.arms} - {Arm.AS_IS}).pop() for moment in (early, late)]
        assert {*others} == {Arm.CHANGED, Arm.CONTROL}
    drawn = [moments(1, seed) for seed in range(400)]
    changed = [moment.arms.index(Arm.CHANGED) for run in drawn for moment in run if Arm.CHANGED in moment.arms]
    assert 150 < sum(changed) < 250
    assert 150 < sum(Arm.CHANGED in run[0].arms for run in drawn) < 250


def test_moments_of_two_shadows_are_pairs_and_controls_of_one_layout():
    played = [(arm.value, moment.pair) for moment in moments(6, 0) for arm in moment.arms]
    rows = [(window, arm, pair) for window, (arm, pair) in enumerate(played)]
    layout = layout_of(table(rows), [{"window": window, "valid": True} for window, _, _ in rows])
    assert (len(layout.pairs), len(layout.controls)) == (6, 6)
    assert not {*layout.pairs} & {*layout.controls}
