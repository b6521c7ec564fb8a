"""Pairs of windows on one shadow: the change made and taken back live, in the order that was drawn.

It knows no verdict.  Every window is preceded by exactly one change or rollback, also where the arm stays as it is:
then the change is first made and taken back, or taken back and made.  What a reload does to the first flows after it
is thus in every window, and no arm has it more often than another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from analysis.pairs.design import FLOOR, Arm, Placed
from analysis.pairs.power import pairs_within
from analysis.window import Role
from testbed.change.apply import apply, revert
from testbed.change.model import Change
from testbed.errors import CommandFailed, NotReady, RevertFailed, Unsupported
from testbed.measure import Slot
from testbed.plan import MOST_PAIRS
from testbed.shadow import Shadow

_ROLES = {Arm.AS_IS: Role.BASELINE, Arm.CONTROL: Role.BASELINE, Arm.CHANGED: Role.TREATMENT}


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that things take, by the windows so far: a window with all about it, making the change, settling."""

    window_s: float
    change_s: float
    settle_s: float

    @property
    def pair_s(self) -> float:
        """A pair: three windows, each after a change or a rollback, and about two of them made only to be undone."""
        return 3 * (self.window_s + self.change_s + self.settle_s) + 2 * self.change_s

    @property
    def end_s(self) -> float:
        """The last rollback, a restored window, and the end of the shadow."""
        return self.window_s + self.change_s + self.settle_s + 2.0

    def pairs_in(self, seconds: float) -> int:
        """How many pairs fit into so many seconds from now."""
        switches = self.pair_s - 3 * self.window_s
        return min(MOST_PAIRS, pairs_within(seconds, self.window_s, switches / 2, self.end_s))

    def seconds_of(self, pairs: int) -> float:
        """How long so many pairs and the end take."""
        return self.end_s + pairs * self.pair_s


def pace(windows_s: Sequence[float], change_s: float, settle_s: float) -> Pace:
    """From the walls of the windows so far, which are one at least."""
    return Pace(median(windows_s), change_s, settle_s)


@dataclass(slots=True)
class Alternation:
    """The change in force or not, and the windows in between; the change is in force at first.

    `settle` waits for the shadow with the change, which may not come to rest; `ready` for the shadow as it was, which
    must. `window` plays one, `say` hears what comes next.
    """

    shadow: Shadow
    change: Change
    window: Callable[[Role, Slot], None]
    settle: Callable[[], None]
    ready: Callable[[], None]
    say: Callable[[str], None]
    in_force: bool = True

    def play(self, order: Sequence[Placed], goes_on: Callable[[], bool]) -> str | None:
        """Play the windows; what went wrong when the change could not be made. Raises RevertFailed.

        From the floor on, `goes_on` is asked before every pair.
        """
        last = order[-1].pair + 1 if order else 0
        for number, placed in enumerate(order):
            first = number == 0 or order[number - 1].pair != placed.pair
            if first and placed.pair >= FLOOR and not goes_on():
                self.say(f"the budget ends after pair {placed.pair}")
                return None
            try:
                self._switch(to_change=placed.arm is Arm.CHANGED)
            except (CommandFailed, NotReady, Unsupported) as failure:
                return str(failure)
            self.say(f"pair {placed.pair + 1} of {last}, window {placed.arm.value}")
            self.window(_ROLES[placed.arm], Slot(placed.arm.value, placed.pair))
        return None

    def _switch(self, *, to_change: bool) -> None:
        """Make or take back the change; where it is so already, the other first."""
        if to_change:
            if self.in_force:
                self._take_back()
            self.in_force = True
            apply(self.shadow, self.change)
            self.settle()
            return
        if not self.in_force:
            self.in_force = True
            apply(self.shadow, self.change)
        self._take_back()
        try:
            self.ready()
        except NotReady as failure:
            raise RevertFailed(self.change.name, str(failure)) from failure

    def _take_back(self) -> None:
        revert(self.shadow, self.change)
        self.in_force = False


class Stopwatch:
    """Seconds since it was made, and `before_s` more."""

    def __init__(self, before_s: float = 0.0) -> None:
        """Start now."""
        self._started = time.monotonic() - before_s

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._started
