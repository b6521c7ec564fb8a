"""`testbed bench judge`: false alarms, power, coverage and speed of our judge, beside other judges on the same data."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
from scipy import stats

from analysis.kpi import Tolerance
from analysis.pairs.case import Rules
from analysis.pairs.cube import faces
from analysis.pairs.design import Arm, alphas, layout_of
from analysis.pairs.hierarchy import Grouping, group_levels
from analysis.pairs.judge import judge_pairs
from analysis.pairs.power import smallest_effects
from analysis.roster import Roster
from analysis.verdict import Verdict
from testbed.bench.judge.synthetic import MODELS, Size, Truth, members, windows
from testbed.bench.judge.trial import KPIS, MARGIN, RIVALS, Outcome, Play, Trial, players, share
from testbed.bench.result import BenchResult, Reference

ALPHA = 0.05
_CLASS = 2
"""The class that a change hits: 20 flows of priority normal."""
_DOSES = (0.7, 0.9, 1.1, 1.4)
_PILOTS = 10


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is played: `runs` unchanged ones over all noise models, and the size of the one that is timed."""

    runs: int = 160
    pairs: int = 8
    flows: int = 120
    timed_flows: int = 10_000

    @property
    def changed_runs(self) -> int:
        """Runs for each injected effect."""
        return min(max(20, self.runs // 10), 100)


def bench_judge(sizes: Sizes, seed: int = 0) -> BenchResult:
    """Play synthetic runs whose truth is known, and count what each judge says of them."""
    size = Size(flows=sizes.flows, pairs=sizes.pairs)
    figures: dict[str, float] = {}
    references: dict[str, Reference] = {}
    with players() as play:
        _unchanged(play, sizes, size, seed, figures, references)
        _changed(play, sizes, size, seed, figures, references)
        _smallest(play, sizes, size, seed, figures)
    figures |= _timed(sizes.timed_flows, seed)
    return BenchResult("judge", figures, references)


def upper_bound(outcomes: Sequence[bool]) -> float:
    """The upper end of the exact 95 % interval (Clopper and Pearson) of a share."""
    return float(stats.binomtest(sum(outcomes), len(outcomes)).proportion_ci(0.95, method="exact").high)


def _unchanged(
    play: Play, sizes: Sizes, size: Size, seed: int, figures: dict[str, float], references: dict[str, Reference]
) -> None:
    each = max(10, sizes.runs // len(MODELS))
    bare: list[Outcome] = []
    real: list[Outcome] = []
    for number, model in enumerate(MODELS):
        seeds = range(seed + 1_000_000 * number, seed + 1_000_000 * number + each)
        bare_here = play([Trial(size, model, Truth(), one, margin=0.0, with_rivals=True) for one in seeds])
        real_here = play([Trial(size, model, Truth(), one) for one in seeds])
        figures[f"unchanged_failed_ratio.{model.name}"] = share(_failed(real_here))
        figures[f"unchanged_failed_ratio_margin_0.{model.name}"] = share(_failed(bare_here))
        bare += bare_here
        real += real_here
    for name, outcomes in (("", real), ("_margin_0", bare)):
        figures[f"unchanged_failed_ratio{name}"] = share(_failed(outcomes))
        figures[f"unchanged_failed_ratio{name}_upper"] = upper_bound(_failed(outcomes))
    figures["unchanged_runs"] = len(real)
    figures["unchanged_invalid_ratio"] = share(one.invalid for one in real)
    figures["covered_ratio"] = share(one.covered for one in real)
    ours = max(share(_failed(real)), 1 / len(real))
    for name in RIVALS:
        theirs = share(one.rivals[name] for one in bare)
        references[f"unchanged_failed_ratio.{name}"] = Reference(theirs, "ratio", theirs / ours)


def _changed(
    play: Play, sizes: Sizes, size: Size, seed: int, figures: dict[str, float], references: dict[str, Reference]
) -> None:
    one, whole = members(size, _CLASS)[:1], members(size, _CLASS)
    covered: list[Outcome] = []
    for name, truth in (
        ("one_flow_delay_30_percent", Truth(one, delay=1.3)),
        ("one_flow_delay_50_percent", Truth(one, delay=1.5)),
        ("one_flow_delay_100_percent", Truth(one, delay=2.0)),
        ("class_delay_15_percent", Truth(whole, delay=1.15)),
        ("class_delay_30_percent", Truth(whole, delay=1.3)),
        ("class_goodput_30_percent_less", Truth(whole, goodput=0.7)),
        ("class_loss_odds_doubled", Truth(whole, loss_odds=2.0)),
    ):
        trials = [
            Trial(size, MODELS[0], truth, seed + 5_000_000 + at, with_rivals=True) for at in range(sizes.changed_runs)
        ]
        outcomes = play(trials)
        figures[f"found_ratio.{name}"] = share(outcome.found for outcome in outcomes)
        covered += outcomes
        if name == "one_flow_delay_100_percent":
            ours = share(outcome.verdict is Verdict.FAIL for outcome in outcomes)
            theirs = share(outcome.rivals["canary_score_not_passed"] for outcome in outcomes)
            worth = ours / max(theirs, 1 / len(outcomes))
            references["found_ratio.one_flow_delay_100_percent.canary_score_not_passed"] = Reference(
                theirs, "ratio", worth
            )
    wide = [Trial(size, MODELS[0], Truth(), seed + 8_000_000 + at, margin=0.25) for at in range(sizes.changed_runs)]
    figures["unchanged_passed_ratio_margin_25_percent"] = share(one.verdict is Verdict.PASS for one in play(wide))
    figures["covered_ratio_when_changed"] = share(outcome.covered for outcome in covered)


def _smallest(play: Play, sizes: Sizes, size: Size, seed: int, figures: dict[str, float]) -> None:
    """The smallest effect on a class, told from windows as is, beside the one that dose and response give."""
    whole = members(size, _CLASS)
    for kpi, told in _told(size, seed).items():
        doses = [told * factor for factor in _DOSES]
        found = []
        for dose in doses:
            size_of = float(np.exp(dose))
            truth = {
                "response_ns": Truth(whole, delay=size_of),
                "goodput_bps": Truth(whole, goodput=1 / size_of),
                "loss_ratio": Truth(whole, loss_odds=size_of),
            }[kpi]
            seeds = range(seed + 7_000_000, seed + 7_000_000 + sizes.changed_runs)
            found.append(share(one.found for one in play([Trial(size, MODELS[0], truth, at) for at in seeds])))
        seen = dose_at(doses, found)
        figures[f"smallest_effect_percent.{kpi}"] = float(np.expm1(told) * 100)
        figures[f"smallest_effect_percent_seen.{kpi}"] = float(np.expm1(seen) * 100)
        figures[f"smallest_effect_told_to_seen_ratio.{kpi}"] = told / seen


def dose_at(doses: Sequence[float], found: Sequence[float], power: float = 0.8) -> float:
    """The dose that is found with this probability: a straight line through the probits of the shares."""
    inner = np.clip(found, 0.02, 0.98)
    slope, start = np.polyfit(doses, stats.norm.ppf(inner), 1)
    return float((stats.norm.ppf(power) - start) / slope)


def _told(size: Size, seed: int) -> dict[str, float]:
    """By KPI, on its scale, from the control windows of earlier runs: what a run says before it starts."""
    told: dict[str, list[float]] = {kpi: [] for kpi in KPIS}
    allowed = {name: Tolerance(MARGIN, 0.0) for name in KPIS}
    for pilot in range(_PILOTS):
        run = windows(size, MODELS[0], Truth(), seed + 6_000_000 + pilot)
        layout = layout_of(run.kpis, run.instruments)
        between = faces(run.kpis, run.flows, layout, (Arm.AS_IS, Arm.CONTROL), layout.controls)
        grouping = Grouping.of(Roster.of(run.flows), tuple(run.flows["flow_id"]), frozenset())
        levels = group_levels(between, grouping, allowed, Rules().floor)
        for one in smallest_effects(levels, size.pairs, alphas(size.pairs, ALPHA)[1], pilot):
            if one.subject.name == f"class{_CLASS}" and one.level.kpi.name in told and not one.level.tail:
                told[one.level.kpi.name].append(one.worsening)
    return {kpi: float(np.median(found)) for kpi, found in told.items()}


def _timed(flows: int, seed: int) -> dict[str, float]:
    """One run of so many flows and 8 pairs without control, in a process of its own, whose memory is told."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, peak_mib = pool.submit(_one_large, flows, seed).result()
    return {"timed_flows": flows, "timed_windows": 16, "timed_s": seconds, "timed_peak_mib": peak_mib}


def _one_large(flows: int, seed: int) -> tuple[float, float]:
    size = replace(Size(), flows=flows, classes=max(1, flows // 250), control=False)
    run = windows(size, MODELS[0], Truth(members(size, 0), delay=1.3), seed)
    allowed = {name: Tolerance(MARGIN, 0.0) for name in KPIS}
    start = time.perf_counter()
    judge_pairs(run.kpis, run.flows, allowed, run.instruments, seed, Rules(flow_tolerances=allowed))
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _failed(outcomes: Sequence[Outcome]) -> list[bool]:
    """Also a false alarm that layer 0 would have held back counts as one."""
    return [one.inferior or one.verdict is Verdict.FAIL for one in outcomes]
