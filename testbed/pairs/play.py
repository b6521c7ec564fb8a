"""Pairs of windows on one shadow: the change made and taken back live, in the order that was drawn.

It knows no verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from analysis.pairs.design import FLOOR, Arm, order
from analysis.window import Role
from testbed.errors import CommandFailed, NotReady, Unsupported
from testbed.measure import Slot
from testbed.pairs.switch import Switch
from testbed.plan import MOST_PAIRS

ROLES = {Arm.AS_IS: Role.BASELINE, Arm.CONTROL: Role.BASELINE, Arm.CHANGED: Role.TREATMENT}


class Played(Protocol):
    """A way to play pairs."""

    moments: int
    """How many windows a pair takes, one after the other."""
    switches: int
    """How many changes and rollbacks a pair takes."""

    def play(self, pairs: int, first: int, seed: int, goes_on: Callable[[], bool]) -> str | None:
        """Play so many pairs, counted from `first`; what went wrong when the change could not be made.

        From the floor on, `goes_on` is asked before every pair. Raises RevertFailed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that things take, by the windows so far: a window with all about it, making the change, settling."""

    window_s: float
    change_s: float
    settle_s: float
    moments: int = 3
    switches: int = 3

    @property
    def pair_s(self) -> float:
        """A pair: its windows, a change or a rollback before each, and about two made only to be undone."""
        return self.moments * self.window_s + self.switches * (self.change_s + self.settle_s) + 2 * self.change_s

    @property
    def end_s(self) -> float:
        """The last rollback, a restored window, and the end of the shadow."""
        return self.window_s + self.change_s + self.settle_s + 2.0

    def pairs_in(self, seconds: float) -> int:
        """How many pairs fit into so many seconds from now."""
        return min(MOST_PAIRS, max(0, int((seconds - self.end_s) // self.pair_s)))

    def seconds_of(self, pairs: int) -> float:
        """How long so many pairs and the end take."""
        return self.end_s + pairs * self.pair_s


def pace(windows_s: Sequence[float], change_s: float, settle_s: float, played: Played | None = None) -> Pace:
    """From the walls of the windows so far, which are one at least."""
    known = median(windows_s), change_s, settle_s
    return Pace(*known) if played is None else Pace(*known, played.moments, played.switches)


@dataclass(slots=True)
class Alternation:
    """One shadow, with and without the change in turn; `window` plays one, `say` hears what comes next."""

    switch: Switch
    window: Callable[[Role, Slot], None]
    say: Callable[[str], None]
    moments: int = 3
    switches: int = 3

    def play(self, pairs: int, first: int, seed: int, goes_on: Callable[[], bool]) -> str | None:
        """Play the windows of so many pairs, in random order within each."""
        placed = order(pairs, seed)
        for number, one in enumerate(placed):
            pair = first + one.pair
            if (number == 0 or placed[number - 1].pair != one.pair) and pair >= FLOOR and not goes_on():
                self.say(f"the budget ends after pair {pair}")
                return None
            try:
                self.switch.to(change=one.arm is Arm.CHANGED)
            except (CommandFailed, NotReady, Unsupported) as failure:
                return str(failure)
            self.say(f"pair {pair + 1} of {first + pairs}, window {one.arm.value}")
            self.window(ROLES[one.arm], Slot(one.arm.value, pair))
        return None


class Stopwatch:
    """Seconds since it was made, and `before_s` more."""

    def __init__(self, before_s: float = 0.0) -> None:
        """Start now."""
        self._started = time.monotonic() - before_s

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._started
