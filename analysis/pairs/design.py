"""Pairs of windows: their arms, their random order, and what may at all be found with so many of them.

May not know KPIs, flows or verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from analysis.window import InvalidTable

FLOOR = 6
"""Fewer pairs decide nothing: the smallest p-value of n pairs is 1/2**n, and what is left of alpha must exceed it."""
DEFAULT = 8
SPLIT_FROM = 8
"""From this many pairs on, flows and groups of flows have half of alpha each; with fewer they share all of it."""


class Arm(StrEnum):
    """What was in force in a window: A as is, B with the change, A' as is once more, to know the noise by."""

    AS_IS = "A"
    CHANGED = "B"
    CONTROL = "A'"


@dataclass(frozen=True, slots=True)
class Placed:
    """One window of the plan: its arm and its pair, counted from 0."""

    arm: Arm
    pair: int


@dataclass(frozen=True, slots=True)
class Excluded:
    """A window that does not count, and why."""

    window: int
    arm: Arm
    pair: int
    reason: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Which window is which arm of which pair; only windows that count.

    `pairs` have A and B, `controls` have A and A'; `windows` are by (arm, pair).
    """

    windows: Mapping[tuple[Arm, int], int]
    excluded: tuple[Excluded, ...]

    @property
    def pairs(self) -> tuple[int, ...]:
        """Pairs of which A and B both count, in order."""
        return self._with(Arm.CHANGED)

    @property
    def controls(self) -> tuple[int, ...]:
        """Pairs of which A and A' both count, in order."""
        return self._with(Arm.CONTROL)

    def of(self, arm: Arm, pairs: Sequence[int]) -> tuple[int, ...]:
        """The windows of this arm in these pairs, in their order."""
        return tuple(self.windows[arm, pair] for pair in pairs)

    def all_of(self, arm: Arm) -> tuple[int, ...]:
        """Every window of this arm that counts, in order of pairs."""
        found = sorted((pair, window) for (own, pair), window in self.windows.items() if own is arm)
        return tuple(window for _, window in found)

    def _with(self, other: Arm) -> tuple[int, ...]:
        return tuple(sorted(pair for arm, pair in self.windows if arm is Arm.AS_IS and (other, pair) in self.windows))


def order(pairs: int, seed: int, *, control: bool = True) -> tuple[Placed, ...]:
    """The windows of a run in the order in which they are played.

    Within a pair the order is drawn at random, so that drift of the machine is no effect and A and B could as well have
    been swapped: what the sign-flip test rests on. ValueError below one pair.
    """
    if pairs < 1:
        raise ValueError(f"found {pairs} pairs, expected at least 1")
    random = np.random.default_rng([seed, pairs])
    arms = list(Arm) if control else [Arm.AS_IS, Arm.CHANGED]
    return tuple(Placed(arms[int(index)], pair) for pair in range(pairs) for index in random.permutation(len(arms)))


@dataclass(frozen=True, slots=True)
class Moment:
    """Two windows at the same time, one on each of two shadows: their arms; a moment is a pair of its own."""

    arms: tuple[Arm, Arm]
    pair: int


def moments(pairs: int, seed: int) -> tuple[Moment, ...]:
    """The moments of a run on two shadows: for each pair one of A and B, and one of A and A', in random order.

    Which shadow has which arm is drawn every time, so that what the shadows differ by is no effect. ValueError below
    one pair.
    """
    if pairs < 1:
        raise ValueError(f"found {pairs} pairs, expected at least 1")
    random = np.random.default_rng([seed, pairs, 2])
    found: list[Moment] = []
    for _ in range(pairs):
        others = [Arm.CHANGED, Arm.CONTROL]
        for index in random.permutation(2):
            other = others[int(index)]
            arms = (Arm.AS_IS, other) if random.random() < 0.5 else (other, Arm.AS_IS)
            found.append(Moment(arms, len(found)))
    return tuple(found)


def smallest_p(pairs: int) -> float:
    """The smallest one-sided p-value that flipping the signs of so many pairs can give."""
    return 0.5**pairs


def alphas(pairs: int, alpha: float) -> tuple[float, float]:
    """Alpha of the family of flows and of that of groups; each is the whole alpha where they share one family."""
    return (alpha / 2, alpha / 2) if pairs >= SPLIT_FROM else (alpha, alpha)


def lack_of_pairs(pairs: int, alpha: float, floor: int = FLOOR) -> str:
    """Why so few pairs cannot be judged, as a sentence; "" when they can."""
    if pairs < floor:
        return f"only {pairs} usable pairs of windows, at least {floor} needed"
    if min(alphas(pairs, alpha)) < smallest_p(pairs):
        return f"{pairs} pairs cannot reach p = {min(alphas(pairs, alpha)):g}: their smallest is {smallest_p(pairs):g}"
    return ""


def layout_of(kpis: pd.DataFrame, instruments: Sequence[Mapping[str, object]]) -> Layout:
    """Read arms and pairs from the KPI table's columns `window, arm, pair`; windows with another `arm` do not matter.

    `instruments` has a mapping a window: `window`, `valid`, `reason`; a window without a record does not count. Raises
    InvalidTable when a window has two arms, or a pair has an arm twice.
    """
    if kpis.empty:
        return Layout({}, ())
    missing = sorted({"window", "arm", "pair"} - set(kpis.columns))
    if missing:
        raise InvalidTable(f"kpis: found columns {sorted(map(str, kpis.columns))}, expected also {missing}")
    known = {arm.value: arm for arm in Arm}
    placed = kpis.loc[kpis["arm"].isin(list(known)), ["window", "arm", "pair"]].drop_duplicates()
    if bool(placed["window"].duplicated().any()):
        twice = placed.loc[placed["window"].duplicated(), "window"].iloc[0]
        raise InvalidTable(f"kpis: found window {twice} in two arms or pairs, expected one")
    records = {record["window"]: record for record in instruments}
    windows: dict[tuple[Arm, int], int] = {}
    seen: set[tuple[Arm, int]] = set()
    excluded: list[Excluded] = []
    for window, name, number in zip(*(placed[column].tolist() for column in ("window", "arm", "pair")), strict=True):
        arm, pair = known[str(name)], int(number)
        if (arm, pair) in seen:
            raise InvalidTable(f"kpis: found arm {name} of pair {pair} in two windows, expected one")
        seen.add((arm, pair))
        record = records.get(int(window))
        if record is None or not record.get("valid", False):
            reason = "no instrument record" if record is None else str(record.get("reason") or "no reason given")
            excluded.append(Excluded(int(window), arm, pair, reason))
        else:
            windows[arm, pair] = int(window)
    return Layout(windows, tuple(sorted(excluded, key=lambda one: one.window)))
