"""Who is replayed when there is not room for all: promises that hold for any flows, any room and any seed."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.flow_priority import PRIORITIES
from replay.sampling import Share, sampled


def table(*classes):
    """Flows of (class, priority, how many)."""
    rows = [(f"{name}-{n}", name, priority) for name, priority, count in classes for n in range(count)]
    return pd.DataFrame(rows, columns=["flow_id", "flow_class", "priority"])


def test_room_for_all_keeps_all():
    flows = table(("a", "low", 3), ("b", "critical", 2))
    sample = sampled(flows, 5, seed=0)
    assert sample.kept == set(flows["flow_id"])
    assert sample.shares == (Share("b", "critical", 2, 2), Share("a", "low", 3, 3))


def test_what_is_lower_goes_first_and_classes_share_in_proportion():
    flows = table(
        ("pay", "critical", 10), ("web", "high", 60), ("api", "high", 30), ("rare", "high", 1), ("bulk", "low", 500)
    )
    shares = {one.flow_class: one.replayed for one in sampled(flows, 56, seed=1).shares}
    assert shares["pay"] == 10
    assert shares["rare"] == 1
    assert sum(shares.values()) == 56
    assert shares["bulk"] == 0
    assert shares["web"] == pytest.approx(2 * shares["api"], abs=2)


def test_critical_flows_go_only_when_nothing_lower_is_left():
    flows = table(("pay", "critical", 10), ("web", "normal", 10))
    assert [one.replayed for one in sampled(flows, 4, seed=0).shares] == [4, 0]


def test_the_seed_alone_decides_who():
    flows = table(("web", "normal", 200))
    one, again, other = (sampled(flows, 50, seed).kept for seed in (7, 7, 8))
    assert one == again != other
    assert sampled(flows.sample(frac=1, random_state=3), 50, 7).kept == one


def test_a_negative_room_is_refused():
    with pytest.raises(ValueError, match="-1"):
        sampled(table(), -1, 0)


@settings(max_examples=150, deadline=None)
@given(
    classes=st.lists(
        st.tuples(st.integers(0, 6).map("c{}".format), st.sampled_from(PRIORITIES), st.integers(1, 25)),
        max_size=8,
        unique_by=lambda one: one[0],
    ),
    most=st.integers(0, 120),
    seed=st.integers(0, 2**70),
)
def test_promises(classes, most, seed):
    flows = table(*classes)
    sample = sampled(flows, most, seed)
    assert len(sample.kept) == min(most, len(flows))
    assert sum(one.replayed for one in sample.shares) == len(sample.kept)
    assert [PRIORITIES.index(one.priority) for one in sample.shares] == sorted(
        PRIORITIES.index(one.priority) for one in sample.shares
    )
    away = [one for one in sample.shares if one.replayed < one.offered]
    if away:
        first = away[0].priority
        lower = PRIORITIES[PRIORITIES.index(first) + 1 :]
        assert all(one.replayed == 0 for one in sample.shares if one.priority in lower)
        touched = [one for one in sample.shares if one.priority == first]
        if sum(one.replayed for one in touched) >= len(touched):
            assert all(one.replayed for one in touched)
