"""The smallest effect that a run would find four times out of five, told before it starts, and how many pairs fit.

The very test is simulated: its critical value depends on how many hypotheses move together, which no formula knows.
May not know tables or verdicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.pairs.design import FLOOR, alphas
from analysis.pairs.signflip import PRIOR_WEIGHT, Block, exceeded_by, flips, largest_by_chance

Floats = npt.NDArray[np.float64]

POWER = 0.8
_DRAWS, _LEAST_DRAWS = 300, 30
_CELLS = 30_000_000


@dataclass(frozen=True, slots=True)
class Noise:
    """What the power depends on, of one KPI on one level.

    `pair_sd` is the standard deviation of a difference within a pair; it and `margin` are on the KPI's scale. So many
    `hypotheses` of the family are tested at once; `shared` is the share of their variance that they have in common.
    """

    pair_sd: float
    margin: float
    hypotheses: int
    shared: float = 0.0


def smallest_effect(noise: Noise, pairs: int, alpha: float, seed: int, multiplier: float = 1.0) -> float:
    """The worsening (on the KPI's scale) of one hypothesis that is called inferior with a probability of 80 %.

    Each draw of normal noise gives the worsening at which the test would just have answered; the 80 % quantile of those
    is the smallest effect. `alpha` is the family's. Infinite with too few pairs to reach alpha.
    """
    if alpha < 0.5**pairs:
        return math.inf
    random = np.random.default_rng(seed)
    signs = flips(pairs, seed)
    needed = []
    cells = len(signs) * noise.hypotheses
    for _ in range(int(np.clip(_CELLS // cells, _LEAST_DRAWS, _DRAWS))):
        own = random.standard_normal((noise.hypotheses, pairs)) * math.sqrt(1 - noise.shared)
        drawn = noise.pair_sd * (own + random.standard_normal(pairs) * math.sqrt(noise.shared))
        block = Block(drawn, np.full(len(drawn), noise.margin), np.ones(len(drawn)))
        critical = exceeded_by(largest_by_chance([block], signs), alpha)
        needed.append(noise.margin + critical / multiplier * _error(drawn) - float(drawn[0].mean()))
    return float(np.quantile(needed, POWER))


def family_alpha(pairs: int, alpha: float, *, single_flow: bool) -> float:
    """The part of alpha that single flows, or groups of flows, are tested at."""
    flow_alpha, group_alpha = alphas(pairs, alpha)
    return flow_alpha if single_flow else group_alpha


def pair_sd(windows: Floats) -> Floats:
    """From windows played as is (a row a hypothesis, a column a window, on the KPI's scale): the noise of a pair.

    From neighbours' differences, because a drift that pairs would cancel must not count. ValueError below two windows.
    """
    if windows.shape[1] < 2:
        raise ValueError(f"found {windows.shape[1]} windows, expected at least 2 to know the noise")
    steps = np.diff(windows, axis=1)
    return np.asarray(np.sqrt(np.nanmean(steps**2, axis=1)))


def pairs_within(budget_s: float, window_s: float, switch_s: float, warmup_s: float, *, control: bool = True) -> int:
    """How many pairs fit into a budget of seconds; less than the floor means that the budget decides nothing.

    A pair is a window of A, of B and (with `control`) of A', and the change made and taken back, `switch_s` each.
    """
    one = window_s * (3 if control else 2) + 2 * switch_s
    if one <= 0:
        raise ValueError(f"found pairs of {one} s, expected a positive duration")
    return max(0, int((budget_s - warmup_s) // one))


def enough(pairs: int) -> bool:
    """Whether so many pairs can decide anything."""
    return pairs >= FLOOR


def _error(drawn: Floats) -> float:
    """The moderated standard error of the first hypothesis."""
    variance = drawn.var(axis=1, ddof=1)
    freedom = drawn.shape[1] - 1
    moderated = (PRIOR_WEIGHT * float(np.median(variance)) + freedom * float(variance[0])) / (PRIOR_WEIGHT + freedom)
    return math.sqrt(moderated / drawn.shape[1])
