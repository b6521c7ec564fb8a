"""Settings chosen on some files and scored on others, over and over: what a figure on unseen files may be.

Knows evidence a row, rules and labels; not which detectors made the evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.detect.alarm import AlarmRule, Alarms
from testbed.bench.detect_nab import STANDARD, Labelled, Ledger, Weights, normalised

Floats = npt.NDArray[np.float64]

EVIDENCE = tuple(round(3.0 + 0.2 * step, 1) for step in range(14))
TIGHTENING = (0.25, 0.5, 0.75)
QUIET = (0.02, 0.03, 0.04, 0.05)
SPLITS = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """One set of thresholds and windows that could be chosen: how much longer all windows are, and the alarm rule."""

    pace: float
    rule: AlarmRule


def choices(paces: Sequence[float]) -> Iterator[Choice]:
    """All that is chosen among."""
    for pace in paces:
        for evidence in EVIDENCE:
            for tightening in TIGHTENING:
                for quiet in QUIET:
                    yield Choice(pace, AlarmRule(evidence, tightening, quiet))


@dataclass(frozen=True, slots=True)
class Scored:
    """Raw scores, a row a choice and a column a file, with how many windows each file has."""

    among: tuple[Choice, ...]
    totals: Floats
    windows: npt.NDArray[np.int64]
    weights: Weights

    @classmethod
    def of(
        cls, evidence: Mapping[float, Sequence[Floats]], files: Sequence[Labelled], weights: Weights = STANDARD
    ) -> Scored:
        """`evidence` has by pace an array a file, NaN where there was none."""
        ledgers = [Ledger(labels, weights) for labels in files]
        among = tuple(choices(tuple(evidence)))
        totals = [
            [
                ledger.total(alarm_rows(given, choice.rule))
                for given, ledger in zip(evidence[choice.pace], ledgers, strict=True)
            ]
            for choice in among
        ]
        return cls(among, np.array(totals), np.array([len(labels.windows) for labels in files]), weights)

    def best(self, files: Sequence[int] | None = None) -> int:
        """Which choice is best on these files, or on all."""
        chosen = self.totals if files is None else self.totals[:, list(files)]
        return int(np.argmax(chosen.sum(axis=1)))

    def score(self, choice: int, files: Sequence[int] | None = None) -> float:
        """That choice's normalised score on these files, or on all."""
        among = range(len(self.windows)) if files is None else files
        return normalised(
            float(self.totals[choice, list(among)].sum()), int(self.windows[list(among)].sum()), self.weights
        )

    def held_out(self, folds: Sequence[Sequence[int]]) -> float:
        """Each fold scored with what was best on all other files, the raw scores added up."""
        everything = range(len(self.windows))
        total = sum(
            self.totals[self.best([file for file in everything if file not in fold]), list(fold)].sum()
            for fold in map(set, folds)
        )
        return normalised(float(total), int(self.windows.sum()), self.weights)

    def leave_one_out(self) -> float:
        """Every file scored with what was best on all the others."""
        return self.held_out([[file] for file in range(len(self.windows))])

    def halves(self, seed: int) -> Floats:
        """Half of the files chosen on, the other half scored, both ways, for `SPLITS` random halvings."""
        random = np.random.default_rng(seed)
        found = []
        for _ in range(SPLITS):
            order = random.permutation(len(self.windows)).tolist()
            middle = len(order) // 2
            found.append(self.held_out([order[:middle], order[middle:]]))
        return np.array(found)


def alarm_rows(evidence: Floats, rule: AlarmRule) -> list[int]:
    """The rows in which `Alarms` would let an alarm begin, found faster for a rule in which one row suffices."""
    if rule.agree > 1:
        alarms, rows = Alarms(rule), []
        for row, given in enumerate(evidence):
            known = None if np.isnan(given) else float(given)
            score = alarms.score_one(known)
            if score is not None and score >= 0.5:
                rows.append(row)
            alarms.learn_one(known)
        return rows
    known_rows = np.flatnonzero(~np.isnan(evidence))
    margins = evidence[known_rows] - rule.thresholds(known_rows)
    begun: list[int] = []
    last_over, last_margin = -rule.recovery - 1, 0.0
    for place in np.flatnonzero(margins >= 0).tolist():
        row, margin = int(known_rows[place]), float(margins[place])
        rested = not begun or (place - last_over > rule.recovery and row - begun[-1] >= rule.quiet * row)
        if rested or margin >= last_margin + rule.escalation:
            begun.append(row)
            last_margin = margin
        last_over = place
    return begun
