"""One synthetic run held before our judge and the others; counted over many runs, on every processor.

May not know how a figure is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from analysis.kpi import Tolerance
from analysis.pairs.case import Rules
from analysis.pairs.design import Arm
from analysis.pairs.effects import Answer, Effect
from analysis.pairs.judge import judge_pairs
from analysis.pairs.margins import criticality
from analysis.verdict import Scope, Verdict
from testbed.bench.judge import rivals
from testbed.bench.judge.synthetic import NoiseModel, Size, Truth, Windows, windows

RIVALS: Mapping[str, Callable[[rivals.Floats, rivals.Floats], bool]] = {
    "percentage_deviation": rivals.by_percentage,
    "pooled_mann_whitney": rivals.by_ranks,
    "canary_score": rivals.by_canary_score,
    "canary_score_not_passed": rivals.by_canary_pass,
    "canary_any_flow": rivals.by_any_canary_metric,
}
KPIS = ("response_ns", "goodput_bps", "loss_ratio")
MARGIN = 0.05
"""Relative, of every KPI; there is no absolute part, so that the test and not the margin is measured."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What to play: `margin` 0 asks for the bare test, where a false alarm is as likely as alpha allows."""

    size: Size
    model: NoiseModel
    truth: Truth
    seed: int
    margin: float = MARGIN
    with_rivals: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each judge said of one run.

    `inferior` says that the test failed something, whatever layer 0 made of it; `covered` that the intervals of all
    groups held the truth; `found` that a flow or class that the change hit was called inferior.
    """

    verdict: Verdict
    inferior: bool
    invalid: bool
    covered: bool
    found: bool
    rivals: Mapping[str, bool]


Play = Callable[[Sequence[Trial]], list[Outcome]]


def played(trial: Trial) -> Outcome:
    """Make the windows and have them judged."""
    run = windows(trial.size, trial.model, trial.truth, trial.seed)
    allowed = {name: Tolerance(trial.margin, 0.0) for name in KPIS}
    rules = Rules(flow_tolerances=allowed, triage=False)
    told = judge_pairs(run.kpis, run.flows, allowed, run.instruments, trial.seed, rules)
    worse = [one for one in told.effects if one.answer is Answer.INFERIOR]
    said = {}
    if trial.with_rivals:
        before, after = run.of(Arm.AS_IS), run.of(Arm.CHANGED)
        said = {name: judge(before, after) for name, judge in RIVALS.items()}
    return Outcome(
        verdict=told.verdict,
        inferior=bool(worse),
        invalid=bool(told.invalid),
        covered=all(_covers(one, run, trial.truth) for one in told.effects if one.subject.scope is not Scope.FLOW),
        found=any(_hit(one, run, trial.truth) for one in worse),
        rivals=said,
    )


@contextmanager
def players() -> Iterator[Play]:
    """Something that plays trials and gives their outcomes in order, on as many processes as there are processors."""
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        yield lambda trials: list(pool.map(played, trials, chunksize=max(1, len(trials) // (8 * workers))))


def share(outcomes: Iterable[bool]) -> float:
    """How many of them are true, of 1."""
    return float(np.mean(list(outcomes)))


def _covers(effect: Effect, run: Windows, truth: Truth) -> bool:
    """Whether the interval holds what was done to the group; only of delays, where a mean's true change is known."""
    if effect.kpi.name != "response_ns" or effect.tail:
        return True
    rows = run.flows.index if effect.subject.scope is Scope.NETWORK else _rows(run, effect.subject.name)
    weights = np.ones(len(rows)) if effect.subject.scope is Scope.CLASS else _shares(run)
    hit = np.isin(np.asarray(rows), truth.flows)
    true = float(np.average(hit, weights=weights)) * float(np.log(truth.delay))
    return effect.low - 1e-9 <= true <= effect.high + 1e-9


def _hit(effect: Effect, run: Windows, truth: Truth) -> bool:
    if effect.subject.scope is Scope.NETWORK:
        return bool(truth.flows)
    if effect.subject.scope is Scope.FLOW:
        return any(run.flows["flow_id"].iloc[flow] == effect.subject.name for flow in truth.flows)
    return bool(np.isin(np.asarray(_rows(run, effect.subject.name)), truth.flows).any())


def _rows(run: Windows, flow_class: str) -> Sequence[int]:
    return [int(row) for row in np.flatnonzero(run.flows["flow_class"] == flow_class)]


def _shares(run: Windows) -> rivals.Floats:
    return np.array([criticality(priority).share for priority in run.flows["priority"]])
