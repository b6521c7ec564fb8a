"""What the judge of pairs made of a run, as the rest of the house takes it: a judgement, an entry, sentences.

Tables and records in.  It knows no shadow and no replay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from analysis.judge import Judgement, judge_restored
from analysis.kpi import Tolerance
from analysis.pairs.beforehand import LEAST_WINDOWS, smallest_beforehand, smallest_of_couples
from analysis.pairs.design import FLOOR, Arm
from analysis.pairs.effects import Answer, Effect
from analysis.pairs.findings import doubtful
from analysis.pairs.judge import PairJudgement, judge_pairs
from analysis.pairs.power import Smallest, per_kpi
from analysis.verdict import Json, Scope, Verdict
from analysis.window import Role
from analysis.words import quantity

Record = Mapping[str, object]
AS_IS_ARMS = (Arm.AS_IS.value, Arm.CONTROL.value)


@dataclass(frozen=True, slots=True)
class Paired:
    """The judge's answer with what was planned: `asked` pairs, or as many as fitted into `budget_s`."""

    found: PairJudgement
    asked: int
    budget_s: float | None = None
    smallest: tuple[Mapping[str, Json], ...] = ()

    @property
    def judgement(self) -> Judgement:
        """As the judge of windows in a row gives it."""
        one = self.found
        return Judgement(one.verdict, one.reason, one.findings, one.classes, one.noise_percent, one.doubt)

    def entry(self) -> dict[str, object]:
        """`paired` of verdict.json: of single flows only what is worse or in doubt, for all of them see `effects`."""
        told = self.found.to_json()
        chosen = [one for one in self.found.effects if one.subject.scope is not Scope.FLOW or _speaks(one)]
        return {
            "asked": self.asked,
            "budget_s": self.budget_s,
            "pairs": told["pairs"],
            "controlled": told["controlled"],
            "invalid": told["invalid"],
            "lost": told["lost"],
            "effects": [one.to_json() for one in chosen],
            "suspects": told["suspects"],
            "odd": told["odd"],
            "smallest": list(self.smallest),
        }

    def effects(self) -> pd.DataFrame:
        """Every effect, a row each; infinite numbers and those that were not measured as in a float column."""
        rows = [one.to_json() for one in self.found.effects]
        table = pd.DataFrame(rows)
        for name in ("before", "after", "deviation_percent", "baseline", "estimate", "limit") if rows else ():
            table[name] = pd.to_numeric(table[name].replace({"Infinity": "inf", "-Infinity": "-inf"}))
        for name in ("interval_low", "interval_high") if rows else ():
            table[name] = pd.to_numeric(table[name].replace({"Infinity": "inf", "-Infinity": "-inf"}))
        return table


def judged_pairs(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    records: Sequence[Record],
    seed: int,
) -> PairJudgement:
    """The judge of pairs on what was played; with fewer pairs than the floor only what is certain is judged."""
    return judge_pairs(kpis, flows, tolerances, records, seed)


def valid_pairs(records: Sequence[Record]) -> frozenset[int]:
    """Pairs of which A and B were played and every window counts, that of A' too where there is one."""
    arms: dict[int, set[str]] = {}
    lost: set[int] = set()
    for record in records:
        if record["arm"]:
            pair = int(str(record["pair"]))
            arms.setdefault(pair, set()).add(str(record["arm"]))
            if not record["valid"]:
                lost.add(pair)
    return frozenset(pair for pair, own in arms.items() if {Arm.AS_IS, Arm.CHANGED} <= own and pair not in lost)


def not_played() -> Paired:
    """Before anything is played."""
    return Paired(PairJudgement(Verdict.INCONCLUSIVE, "no pair of windows was played", (), (), {}), 0)


def too_few(pairs: int, budget_s: float, needed_s: float) -> PairJudgement:
    """No pair was played, because the floor does not fit into the budget."""
    needed = f"at least {FLOOR} are needed: about {needed_s:.0f} s, or shorter windows (--window)"
    reason = f"only {pairs} pairs of windows fit into {budget_s:.0f} s, {needed}"
    return PairJudgement(Verdict.INCONCLUSIVE, reason, (), (), {})


def smallest(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    records: Sequence[Record],
    pairs: int,
    seed: int,
) -> tuple[Smallest, ...]:
    """What so many pairs would find four times out of five, by the windows as is; nothing when too few were valid.

    Where two shadows played as is at the same time, it is by what they differed.
    """
    beside = at_once(records)
    if len(beside) >= LEAST_WINDOWS:
        return smallest_of_couples(kpis, flows, tolerances, beside, pairs, seed)
    windows = [int(str(r["window"])) for r in records if r["role"] == Role.BASELINE.value and r["valid"]]
    if len(windows) < LEAST_WINDOWS:
        return ()
    return smallest_beforehand(kpis, flows, tolerances, windows, pairs, seed)


def at_once(records: Sequence[Record]) -> list[tuple[int, int]]:
    """Windows of no pair that two shadows played as is at the same time, the second shadow's first; both count."""
    couples = []
    for early, late in pairwise(records):
        same = (early.get("shadow"), late.get("shadow"), late["role"]) == (1, 0, Role.BASELINE.value)
        if same and early["valid"] and late["valid"] and not early["arm"] and not late["arm"]:
            couples.append((int(str(early["window"])), int(str(late["window"]))))
    return couples


def smallest_words(found: Sequence[Smallest], pairs: int) -> str:
    """ "8 pairs would find four times out of five: response time +12 % (http) to +40 % (ssh); …"; essential KPIs."""
    classes = [one for one in found if one.subject.scope is Scope.CLASS and one.level.kpi.essential]
    parts = []
    for best, worst in per_kpi([one for one in classes if not one.level.tail]).values():
        ends = (best,) if best is worst else (best, worst)
        label, unit = best.level.kpi.label, best.level.kpi.unit
        said = " to ".join(f"{quantity(one.value, unit)} ({one.subject.name})" for one in ends)
        parts.append(f"{label} at {said}")
    if not parts:
        return "the smallest effect that would be found is not known: too few windows as is were valid"
    return f"{pairs} pairs would find four times out of five: {'; '.join(parts)}"


def restored(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    records: Sequence[Record],
    *,
    last_only: bool = False,
) -> tuple[bool | None, str]:
    """Whether the windows right after a rollback are like those before the change was ever made.

    Right after a rollback are the windows A and A' that follow one with the change, and those played at the end
    (`last_only`: no others).
    """
    valid = sorted((r for r in records if r["valid"]), key=lambda r: int(str(r["window"])))
    roles: dict[int, str] = {}
    changed: dict[object, bool] = {}
    for record in sorted(records, key=lambda r: int(str(r["window"]))):
        window, role, arm = int(str(record["window"])), str(record["role"]), str(record["arm"])
        shadow = record.get("shadow", 0)
        if arm in AS_IS_ARMS:
            role = Role.RESTORED.value if changed.get(shadow) and not last_only else Role.WARMUP.value
        changed[shadow] = role == Role.TRANSITION.value or arm == Arm.CHANGED.value
        roles[window] = role
    counted = [int(str(record["window"])) for record in valid]
    part = kpis[kpis["window"].isin(counted)]
    part = part.assign(role=part["window"].map(roles))
    return judge_restored(part, flows, tolerances, valid)


def _speaks(effect: Effect) -> bool:
    return effect.answer is Answer.INFERIOR or doubtful(effect)
