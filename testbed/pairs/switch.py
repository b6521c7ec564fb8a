"""The change made and taken back on one shadow, so that every window is preceded by exactly one of the two.

It knows no window and no pair.  Where the state is to stay as it is, the change is first made and taken back, or taken
back and made: what a reload does to the first flows after it is thus in every window, and no arm has it more often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.change.apply import apply, revert
from testbed.change.model import Change
from testbed.errors import NotReady, RevertFailed
from testbed.shadow import Shadow


@dataclass(slots=True)
class Switch:
    """The change in force or not on a shadow.

    `settle` waits for the shadow with the change, which may not come to rest; `ready` for the shadow as it was, which
    must.
    """

    shadow: Shadow
    change: Change
    settle: Callable[[Shadow], None]
    ready: Callable[[Shadow], None]
    in_force: bool = False

    def to(self, *, change: bool) -> None:
        """Make or take back the change; where it is so already, the other first.

        Raises CommandFailed, NotReady or Unsupported when it cannot be made, RevertFailed when it cannot be taken back.
        """
        if change:
            if self.in_force:
                self._take_back()
            self._make()
            self.settle(self.shadow)
            return
        if not self.in_force:
            self._make()
        self.back()

    def back(self) -> None:
        """Take the change back and wait until all is as it was; raises RevertFailed."""
        self._take_back()
        try:
            self.ready(self.shadow)
        except NotReady as failure:
            raise RevertFailed(self.change.name, str(failure)) from failure

    def _make(self) -> None:
        self.in_force = True
        apply(self.shadow, self.change)

    def _take_back(self) -> None:
        revert(self.shadow, self.change)
        self.in_force = False
