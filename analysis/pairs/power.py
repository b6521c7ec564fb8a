"""The smallest effect that a run would find four times out of five, told before it starts, and how many pairs fit.

The very test is simulated with the noise of windows that were played as is: its critical value depends on how many
hypotheses there are and how they move together, which no formula knows. May not know tables or verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.compare import deviation_percent
from analysis.pairs.chance import by_chance, worsened
from analysis.pairs.effects import rounded
from analysis.pairs.hierarchy import Level, Subject
from analysis.pairs.margins import Scale, moved_by, scale_of
from analysis.pairs.signflip import Block, flips, needed_worsening
from analysis.verdict import Json

Floats = npt.NDArray[np.float64]

POWER = 0.8
_DRAWS, _LEAST_DRAWS = 160, 20
_CELLS = 40_000_000
_CHANCE_STEPS = 3
"""How often the noise of counts is taken anew at the effect found last: it depends on the effect itself."""


@dataclass(frozen=True, slots=True)
class Smallest:
    """The smallest worsening of one KPI of one subject that is found with a probability of 80 %.

    `worsening` and `margin` are on the KPI's scale; `worsening` is infinite with too few pairs to find anything.
    """

    level: Level
    subject: Subject
    worsening: float
    margin: float

    @property
    def value(self) -> float:
        """Where the typical value then comes to, in the KPI's unit; infinite when nothing can be found."""
        if math.isinf(self.worsening):
            return math.inf
        subject = self.subject
        if scale_of(self.level.kpi) is not Scale.LOG:
            return worsened(self.level.kpi, subject.baseline, self.worsening, subject.trials)
        return moved_by(self.level.kpi, subject.baseline, self.worsening, subject.trials, self.level.offset)

    @property
    def change_percent(self) -> float:
        """How far that is from the baseline, in percent of it."""
        return deviation_percent(self.value, self.subject.baseline)

    def to_json(self) -> dict[str, Json]:
        """As it is told before a run starts."""
        return {
            "kpi": self.level.kpi.name,
            "tail": self.level.tail,
            "scope": self.subject.scope.value,
            "subject": self.subject.name,
            "baseline": rounded(self.subject.baseline),
            "smallest_found": rounded(self.value),
            "smallest_effect_percent": rounded(self.change_percent),
            "limit": rounded(self.subject.limit),
            "unit": self.level.kpi.unit,
        }


def smallest_effects(levels: Sequence[Level], pairs: int, alpha: float, seed: int) -> tuple[Smallest, ...]:
    """What `pairs` pairs would find of a family at `alpha`, given that family between windows played as is.

    Each draw of normal noise as large and as shared as the family's own gives, for every hypothesis, the worsening at
    which the test would just have answered; the 80 % quantile of those is the smallest effect.
    """
    if alpha < 0.5**pairs:
        return tuple(
            Smallest(level, subject, math.inf, float(margin))
            for level in levels
            for subject, margin in zip(level.subjects, level.block.margins, strict=True)
        )
    random = np.random.default_rng(seed)
    signs = flips(pairs, seed)
    noises = as_is = [_Noise.of(level.block) for level in levels]
    cells = len(signs) * max(sum(len(level.subjects) for level in levels), 1)
    draws = int(np.clip(_CELLS // cells, _LEAST_DRAWS, _DRAWS))
    counted = any(scale_of(level.kpi) is not Scale.LOG for level in levels)
    needed: list[Floats] = []
    for step in range(1 + _CHANCE_STEPS * counted):
        if step:
            noises = [
                one.with_chance(_chance(*two)) for one, two in zip(as_is, zip(levels, needed, strict=True), strict=True)
            ]
        last = step == _CHANCE_STEPS * counted
        drawn = [
            needed_worsening([noise.drawn(pairs, random) for noise in noises], signs, alpha)
            for _ in range(draws if last else max(_LEAST_DRAWS, draws // 6))
        ]
        needed = [np.quantile(np.array([draw[at] for draw in drawn]), POWER, axis=0) for at in range(len(levels))]
    return tuple(
        Smallest(level, subject, float(worsening), float(margin))
        for level, own in zip(levels, needed, strict=True)
        for subject, worsening, margin in zip(level.subjects, own, level.block.margins, strict=True)
    )


def _chance(level: Level, worsenings: Floats) -> Floats:
    """The variance on the scale, by subject, of what one window counts when it has worsened by so much; else 0.

    That no packet was lost in the windows as is says nothing of how unevenly a few will be.
    """
    if scale_of(level.kpi) is Scale.LOG:
        return np.zeros(len(worsenings))
    found = []
    for subject, worsening in zip(level.subjects, worsenings.tolist(), strict=True):
        value = worsened(level.kpi, subject.baseline, worsening, subject.trials)
        found.append(by_chance(level.kpi, value, subject.trials)[1])
    return np.array(found)


def per_kpi(found: Sequence[Smallest]) -> Mapping[str, tuple[Smallest, Smallest]]:
    """By KPI the subject that is seen best and the one that is seen worst; the slowest tenth apart from its class."""
    best: dict[str, tuple[Smallest, Smallest]] = {}
    for one in sorted(found, key=lambda one: (one.worsening, one.subject.name)):
        name = one.level.kpi.name + (" of the slowest tenth" if one.level.tail else "")
        best[name] = (best[name][0] if name in best else one, one)
    return best


def pairs_within(budget_s: float, window_s: float, switch_s: float, warmup_s: float, *, control: bool = True) -> int:
    """How many pairs fit into a budget of seconds; fewer than the floor decide nothing.

    A pair is a window of A, of B and (with `control`) of A', and the change made and taken back, `switch_s` each.
    ValueError when a pair would take no time.
    """
    one = window_s * (3 if control else 2) + 2 * switch_s
    if one <= 0:
        raise ValueError(f"found pairs of {one} s, expected a positive duration")
    return max(0, int((budget_s - warmup_s) // one))


@dataclass(frozen=True, slots=True)
class _Noise:
    """How a block varies where nothing is changed: standard deviations, and how much of the variance is in common."""

    deviations: Floats
    shared: float
    margins: Floats
    multipliers: Floats

    @classmethod
    def of(cls, block: Block) -> _Noise:
        counts = np.isfinite(block.worse).sum(axis=1)
        squares = np.where(np.isfinite(block.worse), block.worse, 0.0) ** 2
        deviations = np.sqrt(squares.sum(axis=1) / np.maximum(counts, 1))
        moving = deviations > 0
        rows = int(moving.sum())
        shared = 0.0
        if rows > 1:
            with_zeros = np.where(np.isfinite(block.worse), block.worse, 0.0)[moving]
            together = float(np.mean((with_zeros / deviations[moving, None]).mean(axis=0) ** 2))
            shared = float(np.clip((together - 1 / rows) / (1 - 1 / rows), 0.0, 1.0))
        return cls(deviations, shared, block.margins, block.multipliers)

    def with_chance(self, variances: Floats) -> _Noise:
        """With the changed arm as uneven as chance makes it; half of what was seen as is was that arm's own."""
        larger = np.sqrt(np.maximum(self.deviations**2, self.deviations**2 / 2 + variances))
        return replace(self, deviations=larger)

    def drawn(self, pairs: int, random: np.random.Generator) -> Block:
        own = random.standard_normal((len(self.deviations), pairs)) * math.sqrt(1 - self.shared)
        together = random.standard_normal(pairs) * math.sqrt(self.shared)
        return Block((own + together) * self.deviations[:, None], self.margins, self.multipliers)
