"""What was said of each mutant, held against its truth: found, blamed, false alarms; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

from testbed.bench.mutants.mutant import Made
from testbed.bench.mutants.operators import TrueLine
from testbed.bench.mutants.play import FAIL, Blamed, Played
from testbed.bench.result import BenchResult


@dataclass(frozen=True, slots=True)
class Score:
    """One mutant and what was said of it."""

    made: Made
    played: Played

    @property
    def harmful(self) -> bool:
        """Whether it does harm."""
        return self.made.mutant.harm is not None

    @property
    def found(self) -> bool:
        """Whether the verdict is FAIL."""
        return self.played.verdict == FAIL

    @property
    def right(self) -> bool:
        """Harmful and failed, or equivalent and not failed (to say that one cannot tell is no alarm)."""
        return self.harmful == self.found

    @property
    def blamed_first(self) -> bool:
        """Whether the first culprit that the verdict names is a line that did it."""
        return bool(self.played.blames) and guilty(self.played.blames[0], self.made.guilty)

    @property
    def blamed_anywhere(self) -> bool:
        """Whether some culprit that the verdict names is a line that did it."""
        return any(guilty(blame, self.made.guilty) for blame in self.played.blames)

    @property
    def missed_classes(self) -> tuple[str, ...]:
        """Classes that suffer and are in no failure."""
        harm = self.made.mutant.harm
        return tuple(name for name in (harm.classes if harm else ()) if name not in self.played.classes)


def guilty(blame: Blamed, lines: Iterable[TrueLine]) -> bool:
    """Whether the blamed line is one of these; change.yaml may lie anywhere, and a blame may cut its line short."""
    return any(
        blame.node in _nodes(line)
        and _file(blame.file) == _file(line.file)
        and bool(blame.text)
        and " ".join(blame.text.split()) == " ".join(line.text.split())
        for line in lines
    )


def _file(name: str | None) -> str:
    return "change.yaml" if name is not None and name.endswith("change.yaml") else (name or "")


def _nodes(line: TrueLine) -> set[str]:
    """A link has two ends, and either is right."""
    if line.file != "change.yaml":
        return {line.node}
    return {word.partition(":")[0].strip(' "[') for word in line.text.partition("[")[2].partition("]")[0].split(",")}


def result(scores: Sequence[Score]) -> BenchResult:
    """The figures; shares of nothing are left out."""
    harmful = [one for one in scores if one.harmful]
    equivalent = [one for one in scores if not one.harmful]
    found = [one for one in harmful if one.found]
    figures = {
        "harmful": float(len(harmful)),
        "equivalent": float(len(equivalent)),
        "inconclusive": float(sum(one.played.verdict == "INCONCLUSIVE" for one in scores)),
        "not_restored": float(sum(not one.played.restored for one in scores)),
        "failed_by_preflight_alone": float(sum(one.played.by == "preflight" for one in scores)),
        "seconds": round(sum(one.played.seconds for one in scores), 1),
    }
    for name, part, of in (
        ("recall", found, harmful),
        ("false_alarm", [one for one in equivalent if one.found], equivalent),
        ("passed_equivalent", [one for one in equivalent if one.played.verdict == "PASS"], equivalent),
        ("blamed_first", [one for one in found if one.blamed_first], found),
        ("blamed_anywhere", [one for one in found if one.blamed_anywhere], found),
        ("all_classes_named", [one for one in found if not one.missed_classes], found),
    ):
        if of:
            figures[f"{name}_ratio"] = round(len(part) / len(of), 4)
    if harmful:
        bounds = stats.binomtest(len(found), len(harmful)).proportion_ci(0.95, method="exact")
        figures["recall_ratio_lower"] = round(float(bounds.low), 4)
    return BenchResult("mutants", figures)
