"""The port of everything that watches a series: score first, then learn.  Knows nothing of what is watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Given = TypeVar("Given", contravariant=True)  # noqa: PLC0105  it is what is given


@dataclass(frozen=True, slots=True)
class Reading:
    """One row of a series: when, and how much (NaN where nothing was measured)."""

    time_ns: int
    value: float


class Detector(Protocol[Given]):
    """What scores one thing at a time; more is odder.

    `score_one` changes nothing that a later score depends on, and answers None in warm-up; `learn_one` is told the
    same thing after it was scored. No score may depend on what comes later: the conformance kit of the tests holds
    every detector to that, to survive gaps and constants, and to give the same bytes for the same seed.
    """

    def score_one(self, given: Given) -> float | None:
        """How odd this is after all that was learned; None in warm-up."""
        ...

    def learn_one(self, given: Given) -> None:
        """Take it into what is known."""
        ...
