"""What a verdict means for the pipeline: its exit code, and whether anything is to be done about it.

Pure. May not know how the verdict was reached, nor what is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
NOT_RESTORED = 4


class Mode(StrEnum):
    """Whether the gate holds anything up; `observe` is for the first weeks."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class Inconclusive(StrEnum):
    """What becomes of a pipeline when it could not be told: it stops (3), it is warned, or it goes on."""

    FAIL = "fail"
    WARN = "warn"
    PASS = "pass"


class Event(StrEnum):
    """What a pipeline may have a command for."""

    ON_FAIL = "on-fail"
    ON_PASS = "on-pass"


@dataclass(frozen=True, slots=True)
class Decision:
    """An exit code, the sentence that explains it ("" when it is the verdict's own), and the event to act on."""

    exit_code: int
    note: str = ""
    event: Event | None = None


def decided(verdict: str, *, restored: bool | None, mode: Mode, inconclusive: Inconclusive) -> Decision:
    """The decision for PASS, FAIL or INCONCLUSIVE; a network that was not restored is 4 whatever the mode.

    A PASS of which nobody can tell whether it was taken back (None) is decided as INCONCLUSIVE.
    """
    verdict = "INCONCLUSIVE" if restored is None and verdict == "PASS" else verdict
    own = CODES[verdict]
    if restored is False:
        return Decision(NOT_RESTORED, f"{verdict}, and the rollback was not confirmed to restore the network")
    event = {"FAIL": Event.ON_FAIL, "PASS": Event.ON_PASS}.get(verdict)
    if mode is Mode.OBSERVE:
        would = 0 if verdict == "INCONCLUSIVE" and inconclusive is not Inconclusive.FAIL else own
        note = f"only observed: this gate would have ended with {would} ({verdict})" if own else "only observed"
        return Decision(0, note)
    if verdict == "INCONCLUSIVE" and inconclusive is not Inconclusive.FAIL:
        warned = "a warning: it could not be told whether the change is harmless"
        return Decision(0, warned if inconclusive is Inconclusive.WARN else "")
    return Decision(own, "", event)
