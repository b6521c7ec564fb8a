"""The bench that measures the judge: that its windows are what they say, that rivals do what is published of them."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from testbed.bench.judge import rivals
from testbed.bench.judge.bench import dose_at, upper_bound
from testbed.bench.judge.synthetic import MODELS, NoiseModel, Size, Truth, members, windows
from testbed.bench.judge.trial import RIVALS, Trial, played
from testbed.cli import commands

SMALL = Size(flows=36, classes=6, pairs=6)


def test_the_same_seed_gives_the_same_windows():
    one, two = (windows(SMALL, MODELS[0], Truth(), 3) for _ in range(2))
    assert one.kpis.equals(two.kpis)
    assert not one.kpis.equals(windows(SMALL, MODELS[0], Truth(), 4).kpis)


def test_what_is_injected_is_there_in_the_changed_windows_alone():
    quiet = NoiseModel("quiet", window_sd=0.0)
    hit = members(SMALL, 1)
    run = windows(SMALL, quiet, Truth(hit, delay=2.0, goodput=0.5, loss_odds=5.0), 1)
    table = run.kpis.merge(run.flows, on="flow_id")
    mine = table.flow_class == "class1"
    middle = table.groupby([mine, "arm"])[["response_ns", "goodput_bps", "loss_ratio"]].median()
    for column, factor in (("response_ns", 2.0), ("goodput_bps", 0.5)):
        assert middle.loc[(True, "B"), column] / middle.loc[(True, "A"), column] == pytest.approx(factor, rel=0.1)
        assert middle.loc[(False, "B"), column] / middle.loc[(False, "A"), column] == pytest.approx(1, rel=0.1)
    assert table[mine & (table.arm == "B")].loss_ratio.mean() > 3 * table[mine & (table.arm == "A")].loss_ratio.mean()


def test_windows_in_a_row_are_alike_by_the_persistence_asked_for():
    model = next(model for model in MODELS if model.name == "autocorrelated_0.9")
    levels = []
    for seed in range(40):
        run = windows(Size(pairs=8), model, Truth(), seed)
        levels.append(np.log(run.delays).mean(axis=(0, 2)))
    centred = np.array(levels) - np.mean(levels)
    assert np.mean(centred[:, 1:] * centred[:, :-1]) / np.mean(centred**2) == pytest.approx(0.9, abs=0.1)


def test_an_unchanged_run_alarms_the_rivals_and_not_the_judge():
    told = played(Trial(Size(), MODELS[0], Truth(), 1, with_rivals=True))
    assert set(told.rivals) == set(RIVALS)
    assert told.rivals["percentage_deviation"]
    assert told.rivals["pooled_mann_whitney"]
    assert not told.inferior
    assert told.covered


def test_a_changed_class_is_found():
    told = played(Trial(Size(), MODELS[0], Truth(members(Size(), 2), delay=1.5), 1))
    assert told.found
    assert told.verdict.name == "FAIL"


def test_the_canary_classifier_calls_a_clear_shift_high_and_equals_not():
    random = np.random.default_rng(0)
    before = random.normal(10, 1, (3, 50))
    after = np.array([before[0], before[1] + 3, before[2] - 3])
    assert rivals.canary_high(before, after).tolist() == [False, True, False]
    assert rivals.canary_score(before, after) == pytest.approx(100 * 2 / 3)


def test_the_canary_classifier_flags_a_shift_that_nobody_would_feel():
    """Its tolerance is a share of the shift itself, not of the baseline."""
    random = np.random.default_rng(0)
    before = 1000 + random.normal(0, 0.01, (1, 60))
    assert rivals.canary_high(before, before + 0.5).all()


def test_bounds_and_doses_are_read_rightly():
    assert upper_bound([False] * 1999 + [True]) < 0.003
    assert upper_bound([False] * 58 + [True] * 2) == pytest.approx(0.115, abs=0.001)
    assert dose_at([1, 2, 3], [0.2, 0.5, 0.8]) == pytest.approx(3, rel=0.01)


@pytest.mark.slow
def test_the_command_meets_its_targets():
    result = CliRunner().invoke(commands, ["bench", "judge", "--json", "--runs", "400"], standalone_mode=False)
    assert result.exception is None
    document = json.loads(result.stdout)
    figures = document["figures"]
    assert figures["unchanged_failed_ratio"] <= 0.05
    assert figures["unchanged_failed_ratio_upper"] <= 0.065
    assert figures["covered_ratio"] >= 0.9
    assert figures["covered_ratio_when_changed"] >= 0.9
    assert figures["timed_s"] < 10
    assert figures["timed_peak_mib"] < 1024
    told = [value for name, value in figures.items() if name.startswith("smallest_effect_told_to_seen_ratio")]
    assert len(told) == 3
    assert all(0.75 <= value <= 1.25 for value in told)
    assert document["references"]["unchanged_failed_ratio.pooled_mann_whitney"]["ratio"] > 10
