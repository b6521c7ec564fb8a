"""The sign-flip test: one sign a pair, shared by everything that is judged, and the largest statistic of every flip.

If a change does nothing, A and B of a pair could as well have been swapped: every difference then changes its sign, in
all flows at once. So the largest statistic among all hypotheses, over all ways to swap, is what chance alone would
give, however many flows there are and however alike they move (Westfall and Young 1993; Winkler and others 2014).

Knows numbers only: no KPI, no flow, no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXACT_PAIRS = 11
"""Up to so many pairs every way to swap is tried; beyond it as many are drawn as that would have been."""
PRIOR_WEIGHT = 4.0
"""How many degrees of freedom the block's median variance counts: eight differences alone tell a variance badly."""
_CELLS = 2_000_000
_TIE = 1e-9
_TINY = 1e-24
_STEPS = 2


@dataclass(frozen=True, slots=True)
class Block:
    """Hypotheses whose variances are of a kind: one KPI on one level.

    `worse` has a row a hypothesis and a column a pair: how much worse the change was there, NaN where not measured.
    Each is held against its own `margins`; `multipliers` are fixed beforehand and say whom a false alarm may favour.
    """

    worse: Floats
    margins: Floats
    multipliers: Floats


@dataclass(frozen=True, slots=True)
class Answers:
    """What the flips say of one block, an entry a hypothesis.

    `p_inferior` is adjusted for all hypotheses of the family; `p_non_inferior` is each hypothesis's own, because a
    pass needs all of them (intersection-union). `low` and `high` hold for the whole family at once.
    """

    mean: Floats
    standard_error: Floats
    p_inferior: Floats
    p_non_inferior: Floats
    low: Floats
    high: Floats


def flips(pairs: int, seed: int) -> Floats:
    """Signs, a row a flip and a column a pair; the first row swaps nothing.

    All 2**pairs of them up to 11 pairs, else 2**11 drawn with `seed`, which still gives valid p-values.
    """
    if pairs <= EXACT_PAIRS:
        numbers = np.arange(2**pairs)[:, None]
        return np.asarray(1.0 - 2.0 * ((numbers >> np.arange(pairs)) & 1), dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, 2, size=(2**EXACT_PAIRS, pairs)) * 2.0 - 1.0
    drawn[0] = 1.0
    return np.asarray(drawn, dtype=np.float64)


def answers(blocks: Sequence[Block], signs: Floats, alpha: float) -> tuple[Answers, ...]:
    """Judge a family of hypotheses; `signs` as from `flips`.

    `alpha` is the chance that anything of the family is called inferior though nothing is worse than its margin. The
    intervals, from the flips of what is left when each mean is taken away, cover all of the family with 1 − 2·`alpha`.
    """
    prepared = [_Prepared.of(block) for block in blocks]
    by_chance = np.sort(_largest([(block, block.beyond) for block in prepared], signs))
    width = float(exceeded_by(_largest([(block, block.centred) for block in prepared], signs), alpha))
    return tuple(block.answers(by_chance, width, block.not_more(signs)) for block in prepared)


def needed_worsening(blocks: Sequence[Block], signs: Floats, alpha: float) -> tuple[Floats, ...]:
    """How much worse each hypothesis, alone, would have had to be in every pair to be called inferior at `alpha`.

    What is added to it also appears in its own flips, so the answer is approached in steps.
    """
    prepared = [_Prepared.of(block) for block in blocks]
    by_chance = _largest([(block, block.beyond) for block in prepared], signs)
    return tuple(_needed(block, by_chance, signs, alpha) for block in prepared)


def _needed(block: _Prepared, by_chance: Floats, signs: Floats, alpha: float) -> Floats:
    mean = mean_of(block.worse, block.counts)
    error = np.sqrt(block.variance((block.worse**2).sum(axis=1), mean) / block.counts)
    critical = np.full(len(mean), exceeded_by(by_chance, alpha))
    usual = block.usual(signs)
    step = max(1, _CELLS // len(signs))
    for _ in range(_STEPS):
        more = block.margins + critical * error / block.multipliers - mean
        for start in range(0, len(mean), step):
            part = block.part(slice(start, start + step))
            added = np.where(part.measured, more[start : start + step, None], 0.0)
            own = part.statistic(signs, part.beyond + added, usual)
            critical[start : start + step] = exceeded_by(np.maximum(by_chance[:, None], own), alpha)
    return np.asarray(block.margins + critical * error / block.multipliers - mean)


def exceeded_by(statistics: Floats, alpha: float) -> Floats:
    """The statistic that no more than `alpha` of the flips (rows) exceed, column by column; 0 or more."""
    last = len(statistics) - 1 - min(int(alpha * len(statistics)), len(statistics) - 1)
    return np.asarray(np.maximum(np.partition(statistics, last, axis=0)[last], 0.0))


def mean_of(values: Floats, counts: Floats) -> Floats:
    """Row means of values that hold 0 where nothing was measured, given how many were."""
    return np.asarray(values.sum(axis=1) / counts)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A block with zeros for what is missing, its margins taken off (`beyond`) or its means (`centred`).

    `moved` leaves out what was equal in every pair: it cannot be worse, and no swap changes it.
    """

    worse: Floats
    beyond: Floats
    centred: Floats
    counts: Floats
    margins: Floats
    multipliers: Floats
    measured: npt.NDArray[np.bool_]
    moved: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, block: Block) -> _Prepared:
        measured = np.isfinite(block.worse)
        counts = np.maximum(measured.sum(axis=1), 1).astype(np.float64)
        worse = np.where(measured, block.worse, 0.0)
        means = mean_of(worse, counts)
        beyond = np.where(measured, worse - block.margins[:, None], 0.0)
        return cls(
            worse=worse,
            beyond=beyond,
            centred=np.where(measured, worse - means[:, None], 0.0),
            counts=counts,
            margins=block.margins,
            multipliers=block.multipliers,
            measured=measured,
            moved=np.asarray((worse != 0).any(axis=1)),
        )

    def part(self, rows: slice) -> _Prepared:
        """Some of the hypotheses."""
        return _Prepared(*(getattr(self, name.name)[rows] for name in fields(self)))

    def usual(self, signs: Floats) -> Floats | None:
        """The block's median variance under every flip; None where there is nobody to compare with."""
        if self.moved.sum() < 2:
            return None
        parts = []
        for rows in _rows(len(signs), len(self.counts)):
            own = self.own_variance((self.beyond**2).sum(axis=1), signs[rows] @ self.beyond.T / self.counts)
            parts.append(np.median(own[:, self.moved], axis=1, keepdims=True))
        return np.concatenate(parts)

    def statistic(self, signs: Floats, values: Floats, usual: Floats | None = None) -> Floats:
        """Mean over its moderated standard error, times the multiplier: a row a flip, a column a hypothesis."""
        mean = signs @ values.T / self.counts
        variance = self.variance((values**2).sum(axis=1), mean, usual)
        return np.asarray(mean / np.sqrt(variance / self.counts + _TINY) * self.multipliers)

    def not_more(self, signs: Floats) -> Floats:
        """The share of flips under which a hypothesis lies no further beyond its margin than observed."""
        observed = self.beyond.sum(axis=1) + _TIE * np.abs(self.beyond).max(axis=1, initial=0.0)
        counted = np.zeros(len(self.counts))
        for rows in _rows(len(signs), len(self.counts)):
            counted += (signs[rows] @ self.beyond.T <= observed).sum(axis=0)
        return np.asarray(counted / len(signs))

    def own_variance(self, squares: Floats, mean: Floats) -> Floats:
        """The variance about the mean, from sums of squares."""
        return np.asarray(np.maximum(squares - self.counts * mean**2, 0.0) / np.maximum(self.counts - 1, 1.0))

    def variance(self, squares: Floats, mean: Floats, usual: Floats | None = None) -> Floats:
        """The variance drawn towards the block's median (or `usual`), because eight differences tell it badly."""
        own = self.own_variance(squares, mean)
        if usual is None:
            if not self.moved.any():
                return own
            usual = np.asarray(np.median(own[..., self.moved], axis=-1, keepdims=True))
        freedom = np.maximum(self.counts - 1, 1.0)
        return np.asarray((PRIOR_WEIGHT * usual + freedom * own) / (PRIOR_WEIGHT + freedom))

    def answers(self, by_chance: Floats, width: float, not_more: Floats) -> Answers:
        """`by_chance` sorted; `width` in standard errors."""
        mean = mean_of(self.worse, self.counts)
        error = np.sqrt(self.variance((self.worse**2).sum(axis=1), mean) / self.counts)
        past = mean_of(self.beyond, self.counts)
        own = self.variance((self.beyond**2).sum(axis=1), past)
        statistic = past / np.sqrt(own / self.counts + _TINY) * self.multipliers
        reached = len(by_chance) - np.searchsorted(by_chance, statistic - _TIE * np.abs(statistic))
        half = np.where(self.moved, width * error / self.multipliers, 0.0)
        return Answers(
            mean=mean,
            standard_error=np.asarray(np.where(self.moved, error, 0.0)),
            p_inferior=np.asarray(np.where(self.moved, reached / len(by_chance), 1.0)),
            p_non_inferior=not_more,
            low=np.asarray(mean - half),
            high=np.asarray(mean + half),
        )


def _largest(values: Sequence[tuple[_Prepared, Floats]], signs: Floats) -> Floats:
    """Over all blocks, flip by flip; in pieces, so that memory does not grow with the number of flows."""
    largest = np.full(len(signs), -np.inf)
    for block, own in values:
        for rows in _rows(len(signs), len(block.counts)):
            statistic = block.statistic(signs[rows], own)[:, block.moved]
            largest[rows] = np.maximum(largest[rows], statistic.max(axis=1, initial=-np.inf))
    return largest


def _rows(flips_: int, hypotheses: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(hypotheses, 1))
    for start in range(0, flips_, step):
        yield slice(start, start + step)
