"""What of the traffic fits into a budget: how long a window lasts, and how many flows are in it. Pure.

A short budget buys short windows. So that flows do not meet in them more often than they would at the policy's speed,
fewer are replayed: the critical ones all, of every other class its share. It knows no shadow and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.pairs.design import DEFAULT, FLOOR, Arm
from testbed.plan import SHORTEST_WINDOW_S

BEGIN_S = 12.0
"""A lab of a dozen nodes built and converged, and two preflights."""
AROUND_S = 0.75
"""What a window takes beside its traffic: state dropped, devices read, KPIs computed."""
SWITCH_S = 0.6
"""The change made or taken back, and routes seen to hold still."""
OTHERS = 6
"""Windows that are in no pair: to warm up, three as is, the change itself, and one restored."""
SLACK = 0.93
"""A machine that is somewhat slower than these figures still plays the pairs."""
WORTHWHILE_S = 1.0
"""More pairs are not bought with windows shorter than this."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A window of so many seconds; of what is not critical this share (above 0, at most 1) is replayed."""

    window_s: float
    share: float

    @property
    def words(self) -> str:
        """As a note."""
        return (
            f"windows of {self.window_s:.1f} s and {self.share:.0%} of the flows that are not critical fit the budget"
        )


def fit(budget_s: float, window_s: float) -> Fit | None:
    """How a window that would last `window_s` is cut to the budget; None where it fits as it is.

    As many pairs as usual where windows stay worth while, else the fewest; where not even those fit, the shortest
    window there is, and the run will tell what it lacks.
    """
    for pairs in range(DEFAULT, FLOOR - 1, -1):
        here_s = _window_s(budget_s, pairs)
        if here_s >= window_s:
            return None
        if here_s >= WORTHWHILE_S:
            break
    here_s = max(here_s, SHORTEST_WINDOW_S)
    return None if here_s >= window_s else Fit(here_s, here_s / window_s)


def _window_s(budget_s: float, pairs: int) -> float:
    """The traffic of one window, where so many pairs fill the budget."""
    windows = OTHERS + len(Arm) * pairs
    switches = len(Arm) * pairs + 2
    return (budget_s * SLACK - BEGIN_S - switches * SWITCH_S) / windows - AROUND_S
