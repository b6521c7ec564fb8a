"""Dose and response on real windows: what a run told it would find, beside what is found four times out of five.

The windows are those of real runs in which nothing was changed. They are dealt into arms at random, a known delay,
loss or drop of rate is put on one class in arm B, and the judge is asked. Pure but for reading the runs; it may not
know how a run is played.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.kpi import Tolerance
from analysis.pairs.case import Case, Rules
from analysis.pairs.cube import Face
from analysis.pairs.design import FLOOR, Arm, layout_of, order
from analysis.pairs.effects import Answer, Effect
from analysis.pairs.hierarchy import Grouping, group_levels
from analysis.verdict import Scope
from testbed.bench.judge.real import RealRun
from testbed.bench.result import BenchResult, Reference
from testbed.policy import read_policy

Floats = npt.NDArray[np.float64]

KPIS = ("response_ns", "goodput_bps", "loss_ratio")
"""What a delay, a rate and a loss on a link move."""
FACTORS = (0.7, 0.85, 1.0, 1.1, 1.2, 1.4)
"""Doses, as multiples of what the run told."""
MOST_CLASSES = 4
"""Of each KPI, the largest."""
POWER = 0.8
MOST_DROP = 0.95
WITHIN = 0.25


@dataclass(frozen=True, slots=True)
class Unchanged:
    """One run in which nothing was changed: the windows that count, and what it told beforehand, by (class, KPI).

    A told effect is how far from the baseline, in the KPI's unit, and the baseline.
    """

    kpis: pd.DataFrame
    flows: pd.DataFrame
    records: tuple[Mapping[str, Any], ...]
    tolerances: Mapping[str, Tolerance]
    told: Mapping[tuple[str, str], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Deal:
    """Windows of one run dealt by `seed`, with `factor` times what was told put on one class."""

    run: Unchanged
    flow_class: str
    kpi: str
    factor: float
    seed: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Whether the class was called worse on that KPI, and whether its interval holds what was done to it."""

    found: bool
    covered: bool


def bench_dose(runs: Sequence[RealRun], kept: Path, lab: Path, deals: int, seed: int = 0) -> BenchResult:
    """Deal `deals` times for each class, KPI and dose, over all runs in turn; those of a class that few runs have too.

    ValueError where no run has enough windows.
    """
    unchanged = [one for one in (unchanged_run(kept / run.run, lab) for run in runs) if one is not None]
    if not unchanged:
        raise ValueError("found no unchanged run with enough windows, expected at least one")
    subjects = _subjects(unchanged)
    figures: dict[str, float] = {"runs": len(unchanged), "deals": deals}
    references: dict[str, Reference] = {}
    covered: list[bool] = []
    ratios: dict[str, list[float]] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("forkserver")) as pool:
        for flow_class, kpi in subjects:
            having = [run for run in unchanged if (flow_class, kpi) in run.told]
            asked = [
                Deal(having[at % len(having)], flow_class, kpi, factor, seed + 1000 * at)
                for factor in FACTORS
                for at in range(deals)
            ]
            seen = list(pool.map(dealt, asked, chunksize=max(1, len(asked) // 16)))
            found = [sum(one.found for one in seen[at : at + deals]) / deals for at in range(0, len(seen), deals)]
            covered += [one.covered for one in seen]
            here = f"{kpi}.{flow_class}"
            figures[f"told.{here}"] = median(run.told[flow_class, kpi][0] for run in having)
            figures |= {f"found_ratio.{here}.{f:g}x": share for f, share in zip(FACTORS, found, strict=True)}
            figures[f"told_to_seen_ratio.{here}"] = 1 / crossing(FACTORS, found)
            ratios.setdefault(kpi, []).append(figures[f"told_to_seen_ratio.{here}"])
    for kpi, each in ratios.items():
        figures[f"told_to_seen_ratio.{kpi}"] = middle = median(each)
        off = abs(middle - 1)
        references[f"told_to_seen.{kpi}"] = Reference(1.0, "ratio", round(WITHIN / max(off, 0.01), 2))
    figures["covered_ratio"] = sum(covered) / len(covered)
    return BenchResult("judge_dose", figures, references)


def crossing(doses: Sequence[float], found: Sequence[float], power: float = POWER) -> float:
    """The dose found with this probability: straight lines between doses; the first or last where that is beyond."""
    rising = np.maximum.accumulate(found)
    at = int(np.searchsorted(rising, power))
    if at == 0 or at == len(doses):
        return doses[min(at, len(doses) - 1)]
    part = (power - rising[at - 1]) / (rising[at] - rising[at - 1])
    return float(doses[at - 1] + part * (doses[at] - doses[at - 1]))


def _subjects(runs: Sequence[Unchanged]) -> list[tuple[str, str]]:
    """(class, KPI) of the largest classes that any run told of, KPI by KPI."""
    sizes = pd.concat([run.flows["flow_class"] for run in runs]).value_counts()
    told = {subject for run in runs for subject in run.told}
    found = []
    for kpi in KPIS:
        own = sorted((name for name, of in told if of == kpi), key=lambda name: (-int(sizes.get(name, 0)), name))
        found += [(name, kpi) for name in own[:MOST_CLASSES]]
    return found


def unchanged_run(run: Path, lab: Path) -> Unchanged | None:
    """A run as it lies on disk; None where it is gone, too few windows count, or nothing was told."""
    if not (run / "measured.json").exists():
        return None
    records = [one for one in json.loads((run / "measured.json").read_text())["windows"] if one["arm"] and one["valid"]]
    verdict = json.loads((run / "verdict.json").read_text())
    told = dict(_told((verdict["paired"] or {}).get("smallest", ())))
    if len(records) < FLOOR * len(Arm) or not told:
        return None
    windows = {int(one["window"]) for one in records}
    parts = (pd.read_parquet(path) for path in sorted((run / "kpis").glob("*.parquet")))
    kpis = pd.concat([part for part in parts if len(part)], ignore_index=True)
    policy = read_policy(lab / "policy.yaml") if (lab / "policy.yaml").exists() else None
    given = {} if policy is None else policy.tolerances
    tolerances = {name: Tolerance(own.relative, own.absolute) for name, own in given.items()}
    flows = pd.read_parquet(run / "flows.parquet")
    return Unchanged(kpis[kpis["window"].isin(list(windows))], flows, tuple(records), tolerances, told)


def _told(smallest: Iterable[Mapping[str, Any]]) -> Iterable[tuple[tuple[str, str], tuple[float, float]]]:
    for one in smallest:
        far = abs(float(one["smallest_found"]) - float(one["baseline"]))
        if one["scope"] == "class" and not one["tail"] and one["kpi"] in KPIS and 0 < far < math.inf:
            yield (str(one["subject"]), str(one["kpi"])), (far, float(one["baseline"]))


def dealt(deal: Deal) -> Seen:
    """Deal the windows, put the dose on, and ask the judge."""
    run, random = deal.run, np.random.default_rng(deal.seed)
    windows = random.permutation([int(one["window"]) for one in run.records])
    slots = order(len(windows) // len(Arm), deal.seed)
    placed = {int(window): slot for window, slot in zip(windows, slots, strict=False)}
    kpis = run.kpis[run.kpis["window"].isin(list(placed))]
    kpis = kpis.assign(
        arm=kpis["window"].map({window: slot.arm.value for window, slot in placed.items()}),
        pair=kpis["window"].map({window: slot.pair for window, slot in placed.items()}),
    )
    layout = layout_of(kpis, run.records)
    case = Case.of(kpis, run.flows, run.tolerances, layout, Rules(triage=False), deal.seed)
    far, baseline = run.told[deal.flow_class, deal.kpi]
    rows = (run.flows["flow_class"] == deal.flow_class).to_numpy()
    hit = {
        face.kpi.name: replace(face, after=dosed(face, rows, far * deal.factor, baseline, random))
        for face in case.faces
        if face.kpi.name == deal.kpi
    }
    groups, _ = replace(case, faces=tuple(hit.get(face.kpi.name, face) for face in case.faces)).effects()
    own = [one for one in groups if one.subject.name == deal.flow_class and one.kpi.name == deal.kpi and not one.tail]
    done = _done(case, hit[deal.kpi], deal)
    return Seen(
        any(one.answer is Answer.INFERIOR for one in own), all(_holds(one, done) for one in own) if own else True
    )


def dosed(face: Face, rows: npt.NDArray[np.bool_], far: float, baseline: float, random: np.random.Generator) -> Floats:
    """What arm B's values of these rows become: a delay is added, packets are lost by chance, a rate is scaled."""
    after = face.after.copy()
    own = after[rows]
    if face.kpi.name == "loss_ratio":
        trials = face.trials[rows][:, None]
        lost = np.rint(np.nan_to_num(own) * trials)
        more = random.binomial(np.maximum(trials - lost, 0).astype(np.int64), min(far, 1.0))
        after[rows] = np.where(np.isfinite(own), (lost + more) / trials, own)
    elif face.kpi.unit == "bps":
        after[rows] = own * (1 - min(MOST_DROP, far / baseline))
    else:
        after[rows] = own + far
    return after


def _done(case: Case, hit: Face, deal: Deal) -> float:
    """How much worse the dose alone made the class, on the KPI's scale."""
    plain = next(face for face in case.faces if face.kpi.name == deal.kpi)
    grouping = Grouping.of(case.roster, case.flow_ids, frozenset(case.certain))
    alone = group_levels([replace(hit, before=plain.after)], grouping, case.tolerances, case.rules.floor)
    for level in alone:
        for at, subject in enumerate(level.subjects):
            if subject.scope is Scope.CLASS and subject.name == deal.flow_class and not level.tail:
                return float(np.nanmean(level.block.worse[at]))
    return math.nan


def _holds(effect: Effect, done: float) -> bool:
    return math.isnan(done) or effect.low - 1e-9 <= done <= effect.high + 1e-9
