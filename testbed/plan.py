"""The order of a run's windows; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from analysis.pairs.beforehand import LEAST_WINDOWS
from analysis.pairs.design import DEFAULT, FLOOR, Arm
from analysis.window import Role

FEWEST_PAIRS = FLOOR
USUAL_PAIRS = DEFAULT
MOST_PAIRS = 50
"""More are not planned, whatever the budget."""
SHORTEST_WINDOW_S = 0.2
"""In less, what a window begins and ends with is more than what is in it."""


class Design(StrEnum):
    """How pairs are played: on one shadow in turn, on two at once, or as the machine and a pilot tell."""

    ALTERNATE = "alternate"
    DUET = "duet"
    AUTO = "auto"


class DuetUnfit(ValueError):
    """What is to be replayed cannot be played on two shadows at once."""


class BudgetTooShort(ValueError):
    """The windows of the fewest pairs alone last longer than the budget."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many windows of each role: one to warm up, the baseline, the change itself, and after it.

    `seed` is that of the links' chance, the same in every window, and of the pairs' order; with `preflight_only` there
    are probes and no window. With `pairs` or `budget_s` the change is judged by pairs of windows, so many or as many as
    fit into so many seconds of wall time, in the place of the treatment windows; `design` tells on how many shadows.
    """

    baseline: int = 3
    treatment: int = 3
    restored: int = 1
    seed: int = 0
    preflight_only: bool = False
    pairs: int | None = None
    budget_s: float | None = None
    design: Design = Design.AUTO

    @property
    def in_pairs(self) -> bool:
        """Whether pairs of windows are played."""
        return self.pairs is not None or self.budget_s is not None

    @property
    def before(self) -> tuple[Role, ...]:
        """Windows before the change; the first warms caches and connection tables and is not judged."""
        if self.preflight_only:
            return ()
        as_is = max(self.baseline, LEAST_WINDOWS) if self.in_pairs else self.baseline
        return (Role.WARMUP, *(Role.BASELINE,) * as_is)

    def refuse_budget(self, window_s: float) -> None:
        """Refuse, before anything is built, a budget that replaying alone exceeds; raises BudgetTooShort."""
        least = len(self.before) + 1 + FLOOR * len(Arm)
        if self.budget_s is not None and least * window_s > self.budget_s:
            half = self.budget_s / least / 2
            shorter = f"; windows of {half:.1f} s (--window) may fit" if half >= SHORTEST_WINDOW_S else ""
            raise BudgetTooShort(
                f"{self.budget_s:g} s: {FLOOR} pairs are {least} windows of {window_s:.1f} s, {least * window_s:.0f} s "
                f"without anything between them{shorter}"
            )

    @property
    def after(self) -> tuple[Role, ...]:
        """Windows with the change in force, all in a row; none where pairs are played."""
        return () if self.preflight_only or self.in_pairs else (Role.TREATMENT,) * self.treatment

    @property
    def restoration(self) -> tuple[Role, ...]:
        """Windows after the rollback."""
        return () if self.preflight_only else (Role.RESTORED,) * self.restored
