"""Real unchanged runs counted, and their windows dealt anew; nothing is played here."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.kpi import KPIS, Tolerance
from analysis.pairs.cube import Face
from testbed.bench.judge.dose import Deal, Unchanged, bench_dose, crossing, dealt, dosed, unchanged_run
from testbed.bench.judge.real import RealRun, Series, bench_real, cause, counted, earlier, loaded, unchanging
from testbed.bench.judge.synthetic import MODELS, Size, Truth, windows
from testbed.errors import InvalidInput, Unsupported


def line(number, verdict="PASS", why="", **other):
    known = {
        "number": number,
        "lab": "shop",
        "load": "none",
        "budget_s": 60.0,
        "seed": number,
        "verdict": verdict,
        "cause": why,
        "reason": "",
        "wall_s": 58.0 + number,
        "asked": 6,
        "pairs": 6,
        "windows": 18,
        "lost": 0,
        "window_s": 0.6,
        "flows": 125,
        "pressure_percent": 10.0,
        "pressure_most_percent": 20.0,
        "lateness_p99_us": 900.0,
        "restored": True,
        "others": 0.5,
        "run": f"run-{number}",
    }
    return RealRun.model_validate({**known, **other})


@pytest.fixture
def series(tmp_path):
    return Series(3, tmp_path / "shop", tmp_path / "runs.jsonl", tmp_path)


def written(path, lines):
    path.write_text("".join(one.model_dump_json() + "\n" for one in lines))


def test_verdicts_are_counted_with_exact_bounds_and_causes(series):
    runs = [line(n) for n in range(58)] + [
        line(58, "FAIL", "response_ns of a class"),
        line(59, "INCONCLUSIVE", "undecided"),
    ]
    figures = counted(runs, series).figures
    assert (figures["pass"], figures["fail"], figures["inconclusive"]) == (58, 1, 1)
    assert figures["fail_ratio_upper"] == pytest.approx(0.0894, abs=1e-4)
    assert figures["cause.undecided"] == 1
    assert counted(runs, series).references["fail_ratio_allowed"].ratio == 3


def test_a_series_goes_on_where_it_ended(series, tmp_path):
    lab = tmp_path / "shop" / "configs" / "fw1"
    lab.mkdir(parents=True)
    (lab / "iptables.rules").write_text("*filter\nCOMMIT\n")
    other = [line(7, lab="depot"), line(8, load="stress"), line(9, budget_s=120.0)]
    written(series.results, [line(0), *other, line(1), line(2)])
    told = []
    assert bench_real(series, told.append).figures["runs"] == 3
    assert not told


def test_the_unchanging_change_is_a_comment(tmp_path):
    rules = tmp_path / "lab" / "configs" / "fw1" / "iptables.rules"
    rules.parent.mkdir(parents=True)
    rules.write_bytes(b"*filter\nCOMMIT\n")
    change = unchanging(tmp_path / "lab", tmp_path / "out")
    assert (change / "configs/fw1/iptables.rules").read_bytes().startswith(b"*filter\nCOMMIT\n# ")
    with pytest.raises(Unsupported, match="no packet filter"):
        unchanging(tmp_path / "empty", tmp_path / "out")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_a_file_of_results_is_read_or_refused_with_its_line(tmp_path_factory, garbage):
    path = tmp_path_factory.mktemp("results") / "runs.jsonl"
    path.write_bytes(line(0).model_dump_json().encode() + b"\n" + garbage)
    refused_at, read = 0, [line(0)]
    try:
        read = earlier(path)
    except InvalidInput as refused:
        refused_at = refused.line
    assert read[0] == line(0)
    assert refused_at != 1


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"verdict": "PASS", "paired": {}}, ""),
        (
            {"verdict": "FAIL", "findings": [{"verdict": "FAIL", "kpi": "pdv_ns", "scope": "class"}]},
            "pdv_ns of a class",
        ),
        ({"verdict": "INCONCLUSIVE", "paired": {"asked": 0}}, "budget too short"),
        (
            {"verdict": "INCONCLUSIVE", "paired": {"asked": 6, "invalid": ["the player was +9 ms later in arm B"]}},
            "not measured alike: later",
        ),
        ({"verdict": "INCONCLUSIVE", "paired": {"asked": 6}, "reason": "undecided: http"}, "undecided"),
        (
            {"verdict": "INCONCLUSIVE", "paired": {"asked": 6}, "reason": "only 5 usable pairs of windows"},
            "too few pairs left",
        ),
    ],
)
def test_what_made_a_run_no_pass_is_said_in_few_words(told, said):
    assert cause({"paired": None, "reason": "", "findings": [], **told}) == said


def test_the_load_ends_with_the_block(series):
    with loaded(replace(series, load="stress")):
        pass
    with loaded(series):
        pass


def test_where_four_of_five_are_found():
    assert crossing((0.7, 1.0, 1.2), (0.0, 0.4, 1.0)) == pytest.approx(1.0 + 0.2 * 4 / 6)
    assert crossing((0.7, 1.0), (0.9, 1.0)) == 0.7
    assert crossing((0.7, 1.0), (0.0, 0.1)) == 1.0


def test_a_dose_is_a_delay_a_share_of_the_rate_or_packets_lost_by_chance():
    random, rows = np.random.default_rng(0), np.array([True, False])

    def face(name, value):
        values = np.full((2, 400), value)
        return Face(KPIS[name], values, values.copy(), np.array([100.0, 100.0]))

    assert dosed(face("response_ns", 1e7), rows, 2e6, 1e7, random)[:, 0].tolist() == [1.2e7, 1e7]
    assert dosed(face("goodput_bps", 1e6), rows, 3e5, 1e6, random)[:, 0].tolist() == [7e5, 1e6]
    lost = dosed(face("loss_ratio", 0.0), rows, 0.05, 0.0, random)
    assert lost[0].mean() == pytest.approx(0.05, abs=0.005)
    assert not lost[1].any()


def test_a_large_dose_is_found_and_a_small_one_is_not():
    made = windows(Size(flows=48, classes=4), MODELS[0], Truth(), 3)
    allowed = {name: Tolerance(0.05, 0.0) for name in ("response_ns", "goodput_bps", "loss_ratio")}
    baseline = float(made.kpis["response_ns"].median())
    run = Unchanged(
        made.kpis, made.flows, tuple(made.instruments), allowed, {("class1", "response_ns"): (baseline, baseline)}
    )
    assert dealt(Deal(run, "class1", "response_ns", 1.0, 1)).found
    assert dealt(Deal(run, "class1", "response_ns", 1.0, 1)).covered
    assert not dealt(Deal(run, "class1", "response_ns", 0.01, 1)).found


def test_without_a_run_that_has_windows_there_is_no_dose(tmp_path):
    with pytest.raises(ValueError, match="found no unchanged run"):
        bench_dose([line(0)], tmp_path, tmp_path, 5)
    run = tmp_path / "run"
    run.mkdir()
    (run / "measured.json").write_text(json.dumps({"windows": []}))
    (run / "verdict.json").write_text(json.dumps({"paired": None}))
    assert unchanged_run(run, tmp_path) is None
