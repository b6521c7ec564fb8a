"""The benchmark's score and the volume against answers worked out by hand; files, command and corpus."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.detect.alarm import ALARM, AlarmRule, Alarms
from testbed.bench.detect import bench_detect
from testbed.bench.detect_corpus import corpus_folder, read_corpus
from testbed.bench.detect_heldout import alarm_rows
from testbed.bench.detect_nab import PROFILES, Labelled, Ledger, best_of_all_thresholds, normalised
from testbed.bench.detect_vus import vus_pr
from testbed.cli.detect import detect_command
from testbed.errors import InvalidInput, Unsupported
from testbed.series_file import read_series

LABELS = Labelled(1_000, ((300, 399), (700, 799)))


def test_silence_is_zero_and_the_first_row_of_every_window_a_hundred():
    ledger = Ledger(LABELS)
    assert normalised(ledger.total([]), 2) == 0
    assert normalised(ledger.total([300, 700]), 2) == pytest.approx(100)
    assert normalised(ledger.total([300, 350, 399, 700]), 2) == pytest.approx(100)  # only the best of a window counts


def test_late_counts_less_and_false_alarms_cost():
    ledger = Ledger(LABELS)
    at_half = (2 / (1 + math.exp(-2.5)) - 1) / (2 / (1 + math.exp(-5)) - 1)
    assert ledger.total([350, 700]) == pytest.approx(1 + at_half)
    assert ledger.total([200]) == pytest.approx(-2 - 0.11)
    assert ledger.total([149]) == -2  # probation
    just_behind = 0.11 * (2 / (1 + math.exp(5 / 99)) - 1)
    assert ledger.total([400]) == pytest.approx(-2 + just_behind)
    assert ledger.total([698]) == pytest.approx(-2 - 0.11, abs=1e-6)
    low_fp = PROFILES["reward_low_fp"]
    assert Ledger(LABELS, low_fp).total([200]) == pytest.approx(-2 - 0.22)
    low_fn = PROFILES["reward_low_fn"]
    assert normalised(Ledger(LABELS, low_fn).total([300]), 2, low_fn) == pytest.approx(50)


def test_the_sweep_finds_what_trying_every_threshold_finds():
    random = np.random.default_rng(0)
    scores = random.random(1_000).round(2)
    scores[:30] = np.nan
    ledger = Ledger(LABELS)
    by_hand = max(ledger.total(np.flatnonzero(scores >= cut)) for cut in [*np.unique(scores[30:]), 2.0])
    swept, threshold = best_of_all_thresholds([scores], [LABELS])
    assert swept == pytest.approx(normalised(by_hand, 2))
    assert ledger.total(np.flatnonzero(scores >= threshold)) == pytest.approx(by_hand)


def test_the_volume_is_one_for_the_truth_and_the_density_for_noise():
    truth = np.zeros(1_000)
    truth[300:400] = truth[700:800] = 1
    assert vus_pr(truth, LABELS.windows) > 0.85
    noise = np.random.default_rng(0).random(1_000)
    assert 0.2 < vus_pr(noise, LABELS.windows) < 0.35
    assert vus_pr(-truth, LABELS.windows) < vus_pr(noise, LABELS.windows)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.floats(0, 8), st.just(math.nan)), max_size=120),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.05, 0.3]),
    st.integers(1, 2),
    st.sampled_from([1.0, 9.0]),
)
def test_alarms_of_a_whole_series_are_those_of_the_rule_row_by_row(evidence, recovery, quiet, agree, escalation):
    rule = AlarmRule(4.0, 0.5, quiet, agree=agree, among=3, recovery=recovery, escalation=escalation)
    alarms, rows = Alarms(rule), []
    for row, value in enumerate(evidence):
        known = None if math.isnan(value) else value
        if (alarms.score_one(known) or 0) >= ALARM:
            rows.append(row)
        alarms.learn_one(known)
    assert alarm_rows(np.array(evidence, float), rule) == rows


def test_a_file_is_read_as_it_stands(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("timestamp,value\n2014-04-01 00:00:00,1.5\n2014-04-01T00:05:00+00:00,\n1396311000,inf\n")
    found = read_series(path)
    assert [reading.time_ns for reading in found] == [1396310400 * 10**9, 1396310700 * 10**9, 1396311000 * 10**9]
    assert found[0].value == 1.5
    assert math.isnan(found[1].value)
    assert found[2].value == math.inf
    path.write_text("flow,Time,rtt\na,0,7\n")
    assert read_series(path, "rtt")[0].value == 7


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "1:1: found an empty file"),
        ("timestamp,value\n2014-04-01,x\n", "2:12: found 'x', expected a number"),
        ("timestamp,value\n2014-04-01,1\nnever,2\n", "3:1: found 'never'"),
        ("timestamp,value\n1e300,2\n", "2:1: found '1e300'"),
        ("timestamp,value\n2014-04-01\n", "2:1: found 1 columns, expected 2"),
        ("a,b,c\n1,2,3\n", "1:1: found columns 'a,b,c', expected one named timestamp or time"),
        ("time,b,c\n1,2,3\n", "expected one named value"),
        ('time,value\n1,"2\n', "found no CSV"),
        ("time,value\n\n1,2\n", "2:1: found an empty line"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path, text, place):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_series(path)
    assert place in str(refused.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='time,value\n\r"0129.e-:T\x00', max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused(tmp_path, content):
    path = tmp_path / "any.csv"
    for start in (b"", b"timestamp,value\n"):
        path.write_bytes(start + content)
        with suppress(InvalidInput):
            assert all(isinstance(reading.time_ns, int) for reading in read_series(path))


def test_the_command_prints_a_score_a_row_and_the_rows_of_alarms(tmp_path):
    values = np.random.default_rng(0).normal(size=400)
    values[350] = 40
    path = tmp_path / "series.csv"
    path.write_text("timestamp,value\n" + "".join(f"{row * 60},{value}\n" for row, value in enumerate(values)))
    ran = CliRunner().invoke(detect_command, [str(path), "--json"])
    document = json.loads(ran.output)
    assert set(document) == {"scores", "alarms"}
    assert len(document["scores"]) == 400
    assert document["scores"][0] is None
    assert 350 in document["alarms"]
    assert document["alarms"] == [row for row, score in enumerate(document["scores"]) if (score or 0) >= 0.5]
    calmer = json.loads(CliRunner().invoke(detect_command, [str(path), "--json", "--evidence", "20"]).output)
    assert calmer["alarms"] == []
    shown = CliRunner().invoke(detect_command, [str(path)]).output
    assert "400 rows" in shown
    assert "1970-01-01 05:50:00" in shown


def test_a_corpus_is_read_and_benched(tmp_path):
    random = np.random.default_rng(1)
    windows = {}
    for name, spike in (("a/one.csv", 250), ("b/two.csv", 200), ("calm.csv", None)):
        values = random.normal(size=320)
        if spike is not None:
            values[spike : spike + 5] += 15
        (tmp_path / name).parent.mkdir(exist_ok=True)
        stamps = np.datetime64("2014-04-01 00:00:00") + np.arange(320) * np.timedelta64(5, "m")
        rows = (f"{str(stamp).replace('T', ' ')},{value}\n" for stamp, value in zip(stamps, values, strict=True))
        (tmp_path / name).write_text("timestamp,value\n" + "".join(rows))
        windows[name] = [] if spike is None else [[f"{stamps[spike - 10]}", f"{stamps[spike + 10]}"]]
    (tmp_path / "windows.json").write_text(json.dumps(windows))
    series = read_corpus(corpus_folder(tmp_path))
    assert [one.labels.windows for one in series] == [((240, 260),), ((190, 210),), ()]
    document = bench_detect(tmp_path, seed=0, paces=(1.0,)).document()
    figures, references = document["figures"], document["references"]
    assert figures["nab_standard_as_shipped"] > 80
    assert 0 < figures["vus_pr_as_shipped"] <= 1
    assert figures["cpu_s_per_1000_series"] > 0
    assert {"random_scores", "step", "rolling_z", "deviation_percent_of_the_seed"} <= set(references)


def test_without_a_corpus_it_says_what_to_do(tmp_path):
    with pytest.raises(Unsupported, match="--corpus"):
        corpus_folder(tmp_path)
    (tmp_path / "windows.json").write_text('{"a.csv": [["x", "y"]]}')
    with pytest.raises(InvalidInput, match=r"a\.csv"):
        read_corpus(tmp_path)


@pytest.mark.slow
def test_the_corpus_is_scored_as_the_document_says():
    try:
        folder = corpus_folder(None)
    except Unsupported:
        pytest.skip("the corpus is not here")
    figures = bench_detect(folder, seed=0, paces=(1.0,)).figures
    assert figures["nab_standard_held_out_halves"] > 58
    assert figures["nab_standard_held_out_leave_one_file_out"] > 58
    assert figures["nab_standard_as_shipped"] > 65
