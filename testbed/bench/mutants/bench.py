"""`testbed bench mutants`: production files changed by operators whose harm is known, each asked as a what-if."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.bench.mutants.catalogue import DEPOT, MUTANTS
from testbed.bench.mutants.mutant import Mutant, made
from testbed.bench.mutants.play import Asked, Played, play
from testbed.bench.mutants.score import Score, result
from testbed.bench.result import BenchResult


@dataclass(frozen=True, slots=True)
class Slice:
    """What is played, begun within `seconds`; `only` are whole names or how names begin, and give the order."""

    results: Path
    runs: Path
    only: tuple[str, ...] = ()
    asked: Asked = field(default_factory=Asked)
    seconds: float = float("inf")

    def chosen(self) -> list[Mutant]:
        """The mutants of this slice; ValueError where a word fits none."""
        if not self.only:
            return list(MUTANTS)
        return list({one.name: one for word in self.only for one in _called(word)}.values())


def _called(word: str) -> list[Mutant]:
    whole = [one for one in MUTANTS if one.name == word]
    found = whole or [one for one in MUTANTS if one.name.startswith(word)]
    if not found:
        families = ", ".join(dict.fromkeys(one.family for one in MUTANTS))
        raise ValueError(f"no mutant begins with {word!r}; families: {families}")
    return found


def bench_mutants(slice_: Slice, tell: Callable[[Score], None]) -> tuple[BenchResult, Sequence[Score]]:
    """Play a slice; figures and scores of every chosen mutant that was played, now or earlier."""
    cases = {one.name: made(one, DEPOT) for one in slice_.chosen()}

    def score(played: Played) -> Score:
        return Score(cases[played.mutant], played)

    played = play(
        tuple(cases.values()),
        DEPOT,
        slice_.results,
        slice_.runs,
        slice_.asked,
        slice_.seconds,
        lambda one: tell(score(one)),
    )
    scores = [score(one) for one in played]
    return result(scores), scores
