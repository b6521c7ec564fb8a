"""A budget buys windows: how long they last and what of the flows is in them."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.pairs.design import FLOOR, Arm
from replay.sampling import thinned
from testbed.pairs.budget import AROUND_S, BEGIN_S, OTHERS, SWITCH_S, fit
from testbed.plan import SHORTEST_WINDOW_S


def test_a_minute_buys_six_pairs_of_short_windows():
    found = fit(60, 3.5)
    windows = OTHERS + FLOOR * len(Arm)
    lasts = BEGIN_S + windows * (found.window_s + AROUND_S) + (FLOOR * len(Arm) + 2) * SWITCH_S
    assert 50 < lasts < 60
    assert found.window_s > SHORTEST_WINDOW_S
    assert found.share == pytest.approx(found.window_s / 3.5)


def test_what_fits_is_left_as_it_is():
    assert fit(600, 3.5) is None
    assert fit(60, 0.3) is None


@settings(max_examples=100, deadline=None)
@given(st.floats(1, 5000), st.floats(0.2, 500))
def test_a_cut_window_is_shorter_and_never_empty(budget_s, window_s):
    found = fit(budget_s, window_s)
    if found is not None:
        assert SHORTEST_WINDOW_S <= found.window_s < window_s
        assert 0 < found.share < 1


def flows(**sizes):
    rows = [(name, at) for name, size in sizes.items() for at in range(size)]
    return pd.DataFrame(
        {
            "flow_id": [f"{name}-{at}" for name, at in rows],
            "flow_class": [name for name, _ in rows],
            "priority": ["critical" if name == "pay" else "normal" for name, _ in rows],
        }
    )


def test_a_thinned_case_keeps_critical_flows_and_some_of_every_class():
    sample = thinned(flows(pay=10, web=100, ssh=3), 0.1, seed=1)
    assert [(one.flow_class, one.replayed) for one in sample.shares] == [("pay", 10), ("web", 10), ("ssh", 1)]
    assert sample == thinned(flows(pay=10, web=100, ssh=3), 0.1, seed=1)
    assert len(sample.kept) == 21


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"found a share of 1\.5, expected 0 to 1"):
        thinned(flows(web=2), 1.5, seed=0)
