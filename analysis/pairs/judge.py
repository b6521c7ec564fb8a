"""The judge of paired windows: the KPI table of arms A, B and A' in, a verdict with its findings out.

Four layers: were the arms measured alike; did flows end otherwise, which is certain; did KPIs worsen beyond their
margins, by a sign-flip test over all flows, classes and the network at once; and who is suspect, which decides nothing.
Pure: no I/O, no clock. May not know topologies, changes or culprits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.classes import ClassSummary, KpiChange
from analysis.disposition import AS_EXPECTED
from analysis.kpi import Tolerance
from analysis.pairs.case import Case, Rules
from analysis.pairs.design import Excluded, Layout, lack_of_pairs, layout_of
from analysis.pairs.effects import Effect
from analysis.pairs.findings import doubtful, sentence
from analysis.pairs.suspects import Odd, Suspect
from analysis.pairs.validity import complaints, lost_in_one_arm
from analysis.verdict import Finding, Json, Scope, Severity, Verdict, priority_rank
from analysis.window import checked
from analysis.words import plural


@dataclass(frozen=True, slots=True)
class PairJudgement:
    """The verdict, why in one sentence, and everything it rests on; has all that `analysis.judge.Judgement` has.

    `noise_percent` is, by KPI of the network, the standard deviation of a pair on the KPI's scale, as a percentage.
    `invalid` says why the arms cannot be compared, `controlled` whether A' was held against A, `lost` which windows of
    pairs did not count.
    """

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...]
    classes: tuple[ClassSummary, ...]
    noise_percent: Mapping[str, float]
    effects: tuple[Effect, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    odd: tuple[Odd, ...] = ()
    invalid: tuple[str, ...] = ()
    pairs: int = 0
    controlled: bool = False
    lost: tuple[Excluded, ...] = ()
    doubt: str = ""

    def to_json(self) -> dict[str, Json]:
        """The judgement as JSON values: the same data and seed give the same bytes."""
        return {
            "verdict": self.verdict.name,
            "reason": self.reason,
            "pairs": self.pairs,
            "controlled": self.controlled,
            "invalid": list(self.invalid),
            "lost": [_told(one) for one in self.lost],
            "findings": [finding.to_json() for finding in self.findings],
            "classes": [one.to_json() for one in self.classes],
            "effects": [one.to_json() for one in self.effects],
            "suspects": [one.to_json() for one in self.suspects],
            "odd": [one.to_json() for one in self.odd],
            "noise_percent": {name: float(f"{value:.6g}") for name, value in self.noise_percent.items()},
        }


def judge_pairs(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    instruments: Sequence[Mapping[str, object]],
    seed: int,
    rules: Rules | None = None,
) -> PairJudgement:
    """Judge a change by pairs of windows.

    `kpis` is the KPI table with the columns `arm` ("A", "B", "A'"; anything else is not compared) and `pair`;
    `tolerances` replaces by KPI name what is default; `instruments` has a mapping a window (see `validity.complaints`);
    `seed` draws flips when there are too many pairs to try all. InvalidTable when a table has not the documented shape.
    """
    rules = rules or Rules()
    checked(kpis, flows)
    if flows.empty or kpis.empty:
        missing = "flows" if flows.empty else "KPIs"
        return PairJudgement(Verdict.INCONCLUSIVE, f"nothing was measured: no {missing}", (), (), {})
    layout = layout_of(kpis, instruments)
    case = Case.of(kpis, flows, tolerances, layout, rules, seed)
    lack = _lack(layout, rules)
    invalid = lost_in_one_arm(layout, rules.bounds)
    if not lack:
        invalid = (*complaints(case.kpis, layout, instruments, rules.bounds), *case.control())
    groups, single = ((), ()) if lack else case.effects()
    triage, odd = case.triage() if rules.triage and not lack else ((), ())
    findings = case.findings(groups, single, triage)
    if invalid:
        findings = [replace(one, verdict=Severity.WARN) if one.verdict is Severity.FAIL else one for one in findings]
    findings.sort(key=_order)
    doubt = "; ".join(invalid) or lack or case.unmeasured() or case.wavering() or _doubt((*groups, *single))
    verdict, reason = _concluded(findings, doubt, layout, len(flows))
    classes = _classes(case, groups, findings, blind=bool(invalid or lack))
    noise = {
        one.kpi.name: 100.0 * float(np.expm1(min(one.standard_error * len(layout.pairs) ** 0.5, 50.0)))
        for one in groups
        if one.subject.scope is Scope.NETWORK
    }
    return PairJudgement(
        verdict,
        reason,
        tuple(findings),
        classes,
        noise,
        effects=(*groups, *single),
        suspects=triage,
        odd=odd,
        invalid=invalid,
        pairs=len(layout.pairs),
        controlled=len(layout.controls) >= rules.floor,
        lost=layout.excluded,
        doubt=doubt,
    )


def _told(lost: Excluded) -> dict[str, Json]:
    return {"window": lost.window, "arm": lost.arm.value, "pair": lost.pair, "reason": lost.reason}


def _lack(layout: Layout, rules: Rules) -> str:
    lack = lack_of_pairs(len(layout.pairs), rules.alpha, rules.floor)
    if lack and layout.excluded:
        return f"{lack}: {layout.excluded[0].reason}"
    return lack


def _doubt(found: Sequence[Effect]) -> str:
    doubts = [one for one in found if doubtful(one)]
    if not doubts:
        return ""
    worst = min(
        doubts, key=lambda one: (priority_rank(one.subject.priority), one.margin - one.change, one.subject.name)
    )
    more = f" (and {plural(len(doubts) - 1, 'more doubt')})" if len(doubts) > 1 else ""
    return f"undecided: {sentence(worst)}{more}"


def _concluded(findings: Sequence[Finding], doubt: str, layout: Layout, flows: int) -> tuple[Verdict, str]:
    failures = [finding for finding in findings if finding.verdict is Severity.FAIL]
    if failures:
        more = f" (and {plural(len(failures) - 1, 'more finding')})" if len(failures) > 1 else ""
        return Verdict.FAIL, failures[0].effect + more
    if doubt:
        return Verdict.INCONCLUSIVE, doubt
    control = "" if layout.controls else "; no control windows were played"
    return Verdict.PASS, (
        f"none of {plural(flows, 'flow')} is worse beyond its margin, every class was shown not to be, over "
        f"{plural(len(layout.pairs), 'pair')} of windows{control}"
    )


def _classes(
    case: Case, groups: Sequence[Effect], findings: Sequence[Finding], *, blind: bool
) -> tuple[ClassSummary, ...]:
    roster, found = case.roster, []
    for name, members in roster.classes.items():
        own = [one for one in groups if one.subject.scope is Scope.CLASS and one.subject.name == name]
        kpis = {
            one.kpi.name: KpiChange(one.subject.before, one.subject.after, one.kpi.unit) for one in own if not one.tail
        }
        # the test leaves out flows that surely end otherwise: a reader counts them too
        kpis[AS_EXPECTED.name] = KpiChange(*case.as_expected(members), AS_EXPECTED.unit)
        flows = frozenset(members)
        hit = any(one.verdict is Severity.FAIL and flows.intersection(one.flows) for one in findings)
        verdict = Verdict.PASS
        if hit:
            verdict = Verdict.FAIL
        elif blind or any(doubtful(one) for one in own):
            verdict = Verdict.INCONCLUSIVE
        found.append(ClassSummary(name, roster.priority(members), len(members), kpis, verdict))
    found.sort(key=lambda one: (-one.verdict.value, priority_rank(one.priority), -one.flows, one.flow_class))
    return tuple(found)


def _order(finding: Finding) -> tuple[int, int, int, int, float, str]:
    certain = finding.kpi in ("disposition", AS_EXPECTED.name)
    size = finding.deviation_percent if not np.isnan(finding.deviation_percent) else 0.0
    return (
        -finding.verdict.value,
        priority_rank(finding.priority),
        0 if certain else 1,
        -len(finding.flows),
        -size,
        finding.finding_id,
    )
