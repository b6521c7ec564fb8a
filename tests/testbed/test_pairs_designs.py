"""Which design is used and why, and what counts as a pair in either; on records and tables made here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from testbed.pairs.designs import LEAST_PROCESSORS, beforehand, by_pilot
from testbed.pairs.judged import at_once, valid_pairs
from testbed.plan import Design

MS = 1e6


def record(window: int, role: str = "baseline", shadow: int = 0, valid: bool = True, arm: str = "", pair: int = -1):
    return {
        "window": window,
        "role": role,
        "arm": arm,
        "pair": pair,
        "shadow": shadow,
        "valid": valid,
        "reason": "" if valid else "1 % of the events left more than 40 ms late",
    }


def pilot(in_turn: float, at_once_: float, valid: bool = True):
    """A warm-up, four windows in turn and four moments on both shadows; differences of so many milliseconds."""
    random = np.random.default_rng(1)
    records = [record(0, "warmup"), *(record(window) for window in range(1, 5))]
    base = {window: random.normal(0, in_turn) for window in range(1, 5)}
    for moment in range(4):
        weather = random.normal(0, in_turn)
        number = 5 + 2 * moment
        records += [record(number, "warmup", shadow=1, valid=valid), record(number + 1)]
        base |= {number + k: weather + random.normal(0, at_once_) for k in (0, 1)}
    flows = pd.DataFrame({"flow_id": ["a", "b"], "flow_class": "web", "priority": "normal"})
    rows = [
        {
            "window": window,
            "role": "baseline",
            "flow_id": flow,
            "completed": True,
            "error": "none",
            "as_expected": True,
            "response_ns": (50 + base.get(window, 0.0)) * MS,
        }
        for window in range(13)
        for flow in flows["flow_id"]
    ]
    return pd.DataFrame(rows), flows, {}, records


@pytest.mark.parametrize(
    ("asked", "processors", "unfit", "used", "why"),
    [
        (Design.DUET, 2, "", Design.DUET, "asked for"),
        (Design.ALTERNATE, 64, "", Design.ALTERNATE, "asked for"),
        (Design.AUTO, 2, "", Design.ALTERNATE, "2 processors, two shadows at once want 4"),
        (Design.AUTO, 64, "packets", Design.ALTERNATE, "packets"),
    ],
)
def test_what_needs_no_pilot_is_decided_before(asked, processors, unfit, used, why):
    decision = beforehand(asked, processors, unfit)
    assert (decision.used, decision.why) == (used, why)
    assert decision.to_json()["asked"] == asked.value


def test_with_processors_enough_the_smaller_variance_decides():
    assert beforehand(Design.AUTO, LEAST_PROCESSORS, "") is None
    assert beforehand(Design.AUTO, LEAST_PROCESSORS, "", 600.0) is None
    assert beforehand(Design.AUTO, LEAST_PROCESSORS, "", 60.0).why == "a budget of 60 s has no room for a pilot"
    weather = by_pilot(*pilot(in_turn=5.0, at_once_=0.5))
    apart = by_pilot(*pilot(in_turn=0.5, at_once_=5.0))
    assert (weather.used, apart.used) == (Design.DUET, Design.ALTERNATE)
    for decision in (weather, apart):
        assert decision.why.startswith("the smaller variance between windows as is")
        assert decision.variance[decision.used] == min(decision.variance.values())
        assert {*decision.to_json()["pair_variance"]} == {"alternate", "duet"}


def test_a_machine_that_two_shadows_overload_alternates():
    decision = by_pilot(*pilot(5.0, 0.5, valid=False))
    assert decision.used is Design.ALTERNATE
    assert decision.why == (
        "two shadows at once were too much for this machine: 1 % of the events left more than 40 ms late"
    )


def test_windows_at_once_are_those_of_both_shadows_in_no_pair():
    records = [record(0, "warmup"), record(1), record(2, "warmup", 1), record(3), record(4, "warmup", 1, valid=False)]
    records += [record(5), record(6, "warmup", 1), record(7, "transition"), record(8, "treatment", 1, arm="B", pair=0)]
    records += [record(9, arm="A", pair=0)]
    assert at_once(records) == [(2, 3)]


def test_a_pair_counts_where_a_and_b_do_and_nothing_of_it_is_lost():
    def pair(number: int, *arms: str, lost: str = ""):
        return [record(0, arm=arm, pair=number, valid=arm != lost) for arm in arms]

    alternating = [*pair(0, "A", "B", "A'"), *pair(1, "A", "B", "A'", lost="A'"), *pair(2, "A'", "B")]
    at_once_ = [*pair(3, "A", "B"), *pair(4, "A", "A'"), *pair(5, "A", "B", lost="B")]
    assert valid_pairs([*alternating, *at_once_, record(1)]) == {0, 3}
