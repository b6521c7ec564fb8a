"""Pairs of windows on two shadows at once: one as is, one changed, at the same moments; who is which is drawn.

What the machine does in a moment meets both arms. A pair takes two moments: A beside B, and A beside A'. It knows no
verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.pairs.design import FLOOR, Arm, moments
from analysis.window import Role
from testbed.errors import CommandFailed, NotReady, Unsupported
from testbed.measure import Slot
from testbed.pairs.play import ROLES
from testbed.pairs.switch import Switch

Place = tuple[Role, Slot]
MOMENTS = 2
"""Moments of a pair, one after the other."""


@dataclass(slots=True)
class Duet:
    """Two shadows; `window` plays one on each at the same time, the first shadow's given first, `say` hears which.

    The change may be in force on the first at the beginning; at the end it is in force on no second shadow.
    """

    switches_of: tuple[Switch, Switch]
    window: Callable[[Place, Place], None]
    say: Callable[[str], None]
    moments: int = MOMENTS
    switches: int = 2 * MOMENTS

    def play(self, pairs: int, first: int, seed: int, goes_on: Callable[[], bool]) -> str | None:
        """Play the moments of so many pairs; each is counted as a pair of its own, from twice `first`."""
        problem = self._play(pairs, MOMENTS * first, seed, goes_on)
        other = self.switches_of[1]
        if other.in_force:
            other.back()
        return problem

    def _play(self, pairs: int, first: int, seed: int, goes_on: Callable[[], bool]) -> str | None:
        for moment in moments(pairs, seed):
            number = first + moment.pair
            if number % MOMENTS == 0 and number >= MOMENTS * FLOOR and not goes_on():
                self.say(f"the budget ends after pair {number // MOMENTS}")
                return None
            problem = self._switched(moment.arms)
            if problem is not None:
                return problem
            said = " beside ".join(arm.value for arm in moment.arms)
            self.say(f"pair {number // MOMENTS + 1} of {first // MOMENTS + pairs}, windows {said}")
            places = [(ROLES[arm], Slot(arm.value, number, shadow)) for shadow, arm in enumerate(moment.arms)]
            self.window(places[0], places[1])
        return None

    def _switched(self, arms: Sequence[Arm]) -> str | None:
        for switch, arm in zip(self.switches_of, arms, strict=True):
            try:
                switch.to(change=arm is Arm.CHANGED)
            except (CommandFailed, NotReady, Unsupported) as failure:
                return str(failure)
        return None
