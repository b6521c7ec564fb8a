"""Data on which users of other judges say that those judges were wrong, with the verdict that they asked for.

kayenta#780 (both of its cases), kayenta#426, spinnaker#6278 and #5622; what each of them reported is data, retyped.
"""

import numpy as np
import pandas as pd
import pytest

from analysis.kpi import Tolerance
from analysis.pairs.case import Rules
from analysis.pairs.judge import judge_pairs
from analysis.verdict import Severity, Verdict
from testbed.bench.judge.rivals import canary_high

MS = 1_000_000
QUARTER = Tolerance(0.25, 0.0)
STEADY = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 17.0, 17.1, 17.2, 17.3, 17.4, 17.5, 17.6, 17.7]
WILD = [1.0, 100.0, 4.0, 101.0, 5.0, 102.0, 6.0, 103.0, 7.0, 104.0, 8.0, 105.0, 9.0, 106.0, 17.0]


def judged(before, after, *, kpi="response_ns", flows=1, priority="normal", floor=6):
    """Each number a window of its own; `before` and `after` are lists of windows, each with a number a flow."""
    rows = []
    for pair, (early, late) in enumerate(zip(before, after, strict=True)):
        for arm, values in (("A", early), ("B", late)):
            for flow, value in enumerate(np.atleast_1d(values)):
                rows.append(
                    {
                        "window": 2 * pair + (arm == "B"),
                        "role": "pair",
                        "arm": arm,
                        "pair": pair,
                        "flow_id": f"f{flow}",
                        "completed": True,
                        "error": "none",
                        "as_expected": True,
                        kpi: value,
                    }
                )
    table = pd.DataFrame(rows)
    who = pd.DataFrame([{"flow_id": f"f{flow}", "flow_class": "web", "priority": priority} for flow in range(flows)])
    records = [{"window": window, "valid": True} for window in range(2 * len(before))]
    rules = Rules(flow_tolerances={kpi: QUARTER}, floor=floor)
    return judge_pairs(table, who, {kpi: QUARTER}, records, 0, rules)


def rival(before, after):
    return bool(canary_high(np.array([before]), np.array([after]))[0])


def test_780_a_metric_that_becomes_wild_passes_there_and_never_here():
    assert not rival(STEADY, WILD)
    over_time = judged([[v * MS] for v in STEADY], [[v * MS] for v in WILD])
    assert over_time.verdict is not Verdict.PASS
    random = np.random.default_rng(0)
    windows = [[v * MS * random.lognormal(0, 0.02) for v in values] for values in [STEADY] * 8 + [WILD] * 8]
    over_flows = judged(windows[:8], windows[8:], flows=15)
    assert over_flows.verdict is Verdict.FAIL


def test_780_a_start_that_fluctuates_is_warmed_up_away_and_one_that_stays_is_seen():
    random = np.random.default_rng(1)
    calm = [[10 * MS * random.lognormal(0, 0.03)] for _ in range(16)]
    assert judged(calm[:8], calm[8:]).verdict is Verdict.PASS
    started_badly = [[50.0 * MS], *calm[9:]]
    assert judged(calm[:8], started_badly).verdict is not Verdict.FAIL


@pytest.mark.parametrize(("high", "verdict"), [(10, "FAIL"), (8, "FAIL"), (7, "FAIL"), (6, "FAIL")])
def test_6278_most_points_a_hundred_times_higher_fail(high, verdict):
    late = [[(100.0 if at < high else 1.0) * MS] for at in range(10)]
    assert judged([[1.0 * MS]] * 10, late).verdict.name == verdict


def test_6278_passes_with_seven_of_ten_in_the_canary_score():
    assert not rival([1.0] * 10, [100.0] * 7 + [1.0] * 3)
    assert rival([1.0] * 10, [100.0] * 10)


def test_426_a_few_errors_where_there_were_none_do_not_pass():
    """Four errors in six windows are no proof (the exact binomial says p = 0.06), but silence would be wrong."""
    errors = [[0.0], [1.0], [2.0], [1.0], [0.0], [0.0]]
    assert not rival([0.0] * 6, [v[0] for v in errors])
    told = judged([[0.0]] * 6, errors, kpi="retransmits")
    assert told.verdict is Verdict.INCONCLUSIVE
    assert [f.verdict for f in told.findings if f.kpi == "retransmits" and f.verdict is not Severity.INFO] == [
        Severity.WARN
    ]


def test_5622_a_baseline_without_data_is_not_a_pass():
    nothing = float("nan")
    errors = [[nothing], [0.048], [nothing], [0.18], [0.089], [nothing], [0.098], [0.035], [nothing], [nothing]]
    told = judged([[nothing]] * 10, errors, kpi="loss_ratio", priority="critical")
    assert told.verdict is not Verdict.PASS
