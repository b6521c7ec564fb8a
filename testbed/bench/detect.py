"""`testbed bench detect`: how well and how cheaply anomalies are found, on a labelled corpus and beside one-liners.

The first figure is held out: half of the files choose every threshold and all windows, the other half is scored. The
references get what the benchmark itself allows its entries: one threshold, the best for the very files scored.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analysis.detect.alarm import Alarms
from analysis.detect.port import Reading
from analysis.detect.watch import Evidence, Pace, Settings, Watch, detectors
from testbed.bench.detect_corpus import Series, corpus_folder, read_corpus
from testbed.bench.detect_heldout import Scored, alarm_rows
from testbed.bench.detect_nab import PROFILES, Labelled, Ledger, best_of_all_thresholds, normalised
from testbed.bench.detect_vus import vus_pr
from testbed.bench.result import BenchResult, Reference

Floats = npt.NDArray[np.float64]

PACES = (0.5, 1.0, 2.0)
ALONE_EVIDENCE = np.arange(3.0, 8.6, 0.25)
RANDOM_RUNS = 10
GRID_SHARE = 0.1
COST_ROWS = 3_000
ROLLING_ROWS = 1_000
LEAST_REFERENCE = 0.1
"""A reference that is worth nothing still gives a ratio."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of one file: the evidence and what each detector said of every row, and the seconds it took."""

    evidence: Floats
    said: Mapping[str, Floats]
    cpu_s: float


def bench_detect(corpus: Path | None, seed: int, paces: Sequence[float] = PACES) -> BenchResult:
    """Read the corpus, go through every file at every pace, and score.

    Raises Unsupported without a corpus, InvalidInput with a broken one.
    """
    series = read_corpus(corpus_folder(corpus))
    labels = [one.labels for one in series]
    heard = {pace: [_heard(one.readings, pace, seed) for one in series] for pace in {*paces, 1.0}}
    shipped = heard[1.0]
    held_out = Scored.of({pace: [one.evidence for one in heard[pace]] for pace in paces}, labels)
    halves = held_out.halves(seed)
    best = held_out.best()
    figures: dict[str, float] = {
        "nab_standard_held_out_halves": float(halves.mean()),
        "nab_standard_held_out_halves_lowest": float(halves.min()),
        "nab_standard_held_out_leave_one_file_out": held_out.leave_one_out(),
        "nab_standard_best_choice": held_out.score(best),
        "best_choice_evidence": held_out.among[best].rule.evidence,
        "best_choice_tightening": held_out.among[best].rule.tightening,
        "best_choice_quiet": held_out.among[best].rule.quiet,
        "best_choice_pace": held_out.among[best].pace,
    }
    figures |= _shipped(shipped, labels)
    figures |= {
        f"nab_standard_{name}_alone": _alone([one.said[name] for one in shipped], labels)
        for name in detectors(Pace(), seed)
    }
    figures["files"], figures["windows"] = len(series), sum(len(one.windows) for one in labels)
    figures |= _cost(series, shipped)
    return BenchResult("detect", _rounded(figures), _references(series, figures, seed))


def _heard(readings: Sequence[Reading], pace: float, seed: int) -> Heard:
    evidence = Evidence(Settings(pace=Pace().times(pace), seed=seed))
    rows: list[float] = []
    said: dict[str, list[float]] = {name: [] for name in evidence.voices}
    began = time.process_time()
    for reading in readings:
        rows.append(_or_nan(evidence.score_one(reading)))
        for name, score in evidence.said(reading).items():
            said[name].append(_or_nan(score))
        evidence.learn_one(reading)
    spent = time.process_time() - began
    return Heard(np.array(rows), {name: np.array(scores) for name, scores in said.items()}, spent)


def _shipped(heard: Sequence[Heard], files: Sequence[Labelled]) -> dict[str, float]:
    """The settings as they ship, by their own alarms, in all profiles, and the volume of the scores as printed."""
    rule = Settings().rule
    figures = {}
    windows = sum(len(labels.windows) for labels in files)
    for name, weights in PROFILES.items():
        total = sum(
            Ledger(labels, weights).total(alarm_rows(one.evidence, rule))
            for one, labels in zip(heard, files, strict=True)
        )
        figures[f"nab_{name}_as_shipped"] = normalised(total, windows, weights)
    printed = [_printed(one.evidence) for one in heard]
    figures["nab_standard_as_shipped_scores_swept"] = best_of_all_thresholds(printed, files)[0]
    figures["alarms_a_file_as_shipped"] = float(np.mean([len(alarm_rows(one.evidence, rule)) for one in heard]))
    figures["vus_pr_as_shipped"] = _mean_vus(printed, files)
    return figures


def _alone(said: Sequence[Floats], files: Sequence[Labelled]) -> float:
    """One detector with the same rule and the threshold that suits these files best: what the others add to it."""
    windows = sum(len(labels.windows) for labels in files)
    ledgers = [Ledger(labels) for labels in files]
    rules = [replace(Settings().rule, evidence=float(evidence)) for evidence in ALONE_EVIDENCE]
    totals = [
        sum(ledger.total(alarm_rows(one, rule)) for ledger, one in zip(ledgers, said, strict=True)) for rule in rules
    ]
    return normalised(max(totals), windows)


def _printed(evidence: Floats) -> Floats:
    """The scores that `testbed detect` prints for this evidence."""
    alarms, scores = Alarms(Settings().rule), []
    for given in evidence:
        known = None if np.isnan(given) else float(given)
        scores.append(_or_nan(alarms.score_one(known)))
        alarms.learn_one(known)
    return np.array(scores)


def _cost(series: Sequence[Series], heard: Sequence[Heard]) -> dict[str, float]:
    """Seconds of one core for one reading of each of 1,000 series, refits and new seasons included; and memory."""
    rows = sum(one.labels.rows for one in series)
    readings = max(series, key=lambda one: one.labels.rows).readings[:COST_ROWS]
    watch = Watch()
    scoring = 0
    for reading in readings:
        began = time.perf_counter_ns()
        watch.score_one(reading)
        scoring += time.perf_counter_ns() - began
        watch.learn_one(reading)
    return {
        "cpu_s_per_1000_series": 1000 * sum(one.cpu_s for one in heard) / rows,
        "score_one_us": scoring / len(readings) / 1_000,
        f"state_octets_after_{len(readings)}_rows": float(len(pickle.dumps(watch))),
    }


def _references(series: Sequence[Series], ours: Mapping[str, float], seed: int) -> dict[str, Reference]:
    files = [one.labels for one in series]
    windows = sum(len(labels.windows) for labels in files)
    random = np.random.default_rng(seed)
    drawn = [
        best_of_all_thresholds([random.random(labels.rows) for labels in files], files)[0] for _ in range(RANDOM_RUNS)
    ]
    grid = sum(
        Ledger(labels).total(range(labels.probation, labels.rows, max(1, int(GRID_SHARE * labels.rows))))
        for labels in files
    )
    found = {"random_scores": float(np.mean(drawn)), "an_alarm_every_tenth_of_the_file": normalised(grid, windows)}
    vus = {}
    for name, liner in ONE_LINERS.items():
        scores = [liner(one.values()) for one in series]
        found[name] = best_of_all_thresholds(scores, files)[0]
        vus[name] = _mean_vus(scores, files)
    vus["random_scores"] = _mean_vus([random.random(labels.rows) for labels in files], files)
    score, volume = ours["nab_standard_held_out_halves"], ours["vus_pr_as_shipped"]
    return {name: Reference(round(value, 2), "NAB standard", _ratio(score, value)) for name, value in found.items()} | {
        f"{name}_vus_pr": Reference(round(value, 3), "VUS-PR", _ratio(volume, value)) for name, value in vus.items()
    }


def _step(values: Floats) -> Floats:
    return np.abs(np.diff(values, prepend=values[0]))


def _rolling_z(values: Floats) -> Floats:
    scores = np.zeros(len(values))
    for row in range(2, len(values)):
        before = values[max(0, row - ROLLING_ROWS) : row]
        scores[row] = abs(values[row] - before.mean()) / (before.std() or 1.0)
    return scores


def _deviation_percent(values: Floats) -> Floats:
    means = np.cumsum(values)[:-1] / np.arange(1, len(values))
    off = np.abs(values[1:] - means)
    return np.append(0.0, np.divide(off, np.abs(means), out=np.zeros_like(off), where=means != 0) * 100)


ONE_LINERS: Mapping[str, Callable[[Floats], Floats]] = {
    "step": _step,
    "rolling_z": _rolling_z,
    "deviation_percent_of_the_seed": _deviation_percent,
}


def _mean_vus(scores: Sequence[Floats], files: Sequence[Labelled]) -> float:
    return float(
        np.mean([vus_pr(given, labels.windows) for given, labels in zip(scores, files, strict=True) if labels.windows])
    )


def _ratio(ours: float, other: float) -> float:
    return round(ours / max(other, LEAST_REFERENCE), 3)


def _or_nan(score: float | None) -> float:
    return float("nan") if score is None else score


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") if "octets" not in name else value for name, value in figures.items()}
