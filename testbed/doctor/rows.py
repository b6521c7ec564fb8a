"""What the doctor says about one capability.  A value; it probes and prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How far a capability goes on this machine."""

    WORKS = "works"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Row:
    """One capability: what was seen when it was tried, what it is for, and the command that mends a lack."""

    group: str
    capability: str
    state: State
    seen: str
    needed_for: str
    remedy: str = ""
    demo: bool = False

    def prevents_demo(self) -> bool:
        """Whether the demo cannot run for want of this."""
        return self.demo and self.state is State.MISSING

    def document(self) -> dict[str, object]:
        """The row for programs; keys are never renamed."""
        return {
            "group": self.group,
            "capability": self.capability,
            "state": self.state.value,
            "seen": self.seen,
            "needed_for": self.needed_for,
            "remedy": self.remedy,
            "demo": self.demo,
        }


def document(rows: Iterable[Row]) -> Mapping[str, object]:
    """Everything for programs: a schema number, whether the demo runs and what prevents it, the rows."""
    listed = list(rows)
    preventing = [row.capability for row in listed if row.prevents_demo()]
    return {
        "schema": 1,
        "demo": {"runs": not preventing, "prevented_by": preventing},
        "rows": [row.document() for row in listed],
    }


def judged(number: int | None, enough: int, unit: str = "") -> tuple[State, str]:
    """A limit against what is enough: it works or is limited; what the kernel does not tell is limited too."""
    if number is None:
        return State.LIMITED, "this kernel does not tell"
    seen = f"{number:,}{unit}" + (f", {enough:,}{unit} wanted" if number < enough else "")
    return (State.WORKS if number >= enough else State.LIMITED), seen
