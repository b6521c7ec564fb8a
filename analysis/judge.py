"""The judge: the KPI table of repeated windows in, a verdict with its findings out.

A deviation counts only beyond a relative and an absolute tolerance, in every window, and by more than the repeated
baseline windows stray on their own; a flow that ends otherwise in every window counts at once. Pure: no I/O, no clock.
May not know topologies, changes or culprits; blame is attached by whoever knows them (`Finding.with_blame`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.classes import ClassSummary, summaries
from analysis.disposition import AS_EXPECTED, Dispositions, compared, endings
from analysis.kpi import Tolerance
from analysis.outcome import DISPOSITION, changed_findings, share_findings, transition_findings, unsteady_findings
from analysis.roster import Roster
from analysis.slowdown import (
    Slowdowns,
    flow_findings,
    group_findings,
    noise_note,
    slowdowns,
    undecided_effect,
)
from analysis.verdict import (
    Finding,
    Scope,
    Severity,
    Verdict,
    priority_rank,
)
from analysis.window import Role, Selection, checked, selected, windows_of
from analysis.words import plural

MINIMUM_WINDOWS = 2
BUSIER_PERCENT = 20.0
"""Tasks waiting for a CPU so much more of the time make windows slower by themselves."""
_ENDINGS = (DISPOSITION, AS_EXPECTED.name)
UNMEASURED_RATIO_LIMIT = 0.05
"""More flows than this without a result in every window: too little was measured."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, why in one sentence, and everything it rests on.

    `noise_percent` is, by KPI, how far a baseline window strayed from the baseline median over all flows. `doubt` is
    why nothing could pass even where no finding failed; "" when it could.
    """

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...]
    classes: tuple[ClassSummary, ...]
    noise_percent: Mapping[str, float]
    doubt: str = ""


def judge(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    instruments: Sequence[Mapping[str, object]],
) -> Judgement:
    """Judge a change by its baseline and treatment windows.

    `tolerances` replaces, by KPI name, the default tolerance of classes and the network. `instruments` has a mapping a
    window: `window`, `valid`, `reason`. InvalidTable when a table lacks a documented column or has a flow twice.
    """
    checked(kpis, flows)
    return _judge(kpis, flows, tolerances, selected(kpis, instruments, Role.TREATMENT))


def judge_restored(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    instruments: Sequence[Mapping[str, object]],
) -> tuple[bool | None, str]:
    """Whether the restored windows are like the baseline windows by the same rules, and a sentence that says so.

    One restored window is enough. A flow that the change hit and that is still hit is enough to say no; None is said
    where too little was measured. On a machine that has become much busier since the baseline, slower flows tell
    nothing of the network: how they ended decides then, and that is said.
    """
    checked(kpis, flows)
    windows = selected(kpis, instruments, Role.RESTORED)
    if lack := _lack(kpis, flows, windows, minimum_after=1):
        return None, f"could not be told: {lack}"
    treated = selected(kpis, instruments, Role.TREATMENT).after
    ends = endings(kpis, Roster.of(flows).class_of, (*windows.baseline, *treated, *windows.after))
    stuck = [
        flow for flow in compared(ends, windows.baseline, (*treated, *windows.after)).changed if flow.worse and treated
    ]
    if stuck:
        return False, f"{plural(len(stuck), 'flow')} still as under the change: {stuck[0].after.error}"
    again = _judge(kpis, flows, tolerances, windows, minimum_after=1, transition=False)
    if again.verdict is Verdict.FAIL:
        busier = _busier(instruments, windows)
        ended = any(one.verdict is Severity.FAIL and one.kpi in _ENDINGS for one in again.findings)
        if ended or busier < BUSIER_PERCENT:
            return False, again.reason
        like = f"{plural(len(windows.after), 'restored window')} end as the {len(windows.baseline)} baseline ones"
        why = f"tasks waited for a CPU {busier:+.0f} % of the time compared with them"
        return True, f"{like}; what is slower cannot be told from the machine, {why}: {again.reason}"
    if _unmeasured(compared(ends, windows.baseline, windows.after), flows):
        return None, f"could not be told: {again.reason}"
    doubts = [finding for finding in again.findings if finding.verdict is Severity.WARN]
    note = f"; {plural(len(doubts), 'doubt')}: {doubts[0].effect}" if doubts else ""
    return True, f"{plural(len(windows.after), 'restored window')} like the {len(windows.baseline)} baseline ones{note}"


def _busier(instruments: Sequence[Mapping[str, object]], windows: Selection) -> float:
    """How much more of the time tasks waited for a CPU in the calmest restored window than in the median baseline."""
    told = {record["window"]: record.get("cpu_pressure_percent") for record in instruments}
    before, after = (
        [float(share) for window in side if isinstance(share := told.get(window), int | float) and np.isfinite(share)]
        for side in (windows.baseline, windows.after)
    )
    return min(after) - float(np.median(before)) if before and after else 0.0


def _judge(
    kpis: pd.DataFrame,
    flows: pd.DataFrame,
    tolerances: Mapping[str, Tolerance],
    windows: Selection,
    *,
    minimum_after: int = MINIMUM_WINDOWS,
    transition: bool = True,
) -> Judgement:
    lack = _lack(kpis, flows, windows, minimum_after)
    if len(windows.baseline) < MINIMUM_WINDOWS or not windows.after:
        return Judgement(Verdict.INCONCLUSIVE, lack, (), (), {}, lack)
    roster = Roster.of(flows)
    kpis = kpis[kpis["flow_id"].isin(list(roster.class_of))]
    during = windows_of(kpis, Role.TRANSITION) if transition else ()
    ends = endings(kpis, roster.class_of, (*windows.baseline, *windows.after, *during))
    kinds = compared(ends, windows.baseline, windows.after)
    certain = {flow.flow_id: flow for flow in kinds.changed}
    unlike = frozenset((*certain, *kinds.some, *kinds.flaky))
    moved = slowdowns(kpis, roster, tolerances, unlike, windows.baseline, windows.after)
    ratio = tolerances.get(AS_EXPECTED.name, AS_EXPECTED.tolerance)
    shares = share_findings(ends, certain, roster, ratio, windows.baseline, windows.after)
    merged = {share.subject for share in shares if share.verdict is Severity.FAIL}
    alone = [flow for flow in kinds.changed if not (flow.worse and roster.class_of.get(flow.flow_id, "") in merged)]
    findings = [*changed_findings(alone, roster, len(windows.after)), *shares]
    if not lack:
        findings += [*group_findings(moved), *flow_findings(moved, roster), *noise_note(moved)]
    findings += transition_findings(ends, certain, roster, windows.baseline, during)
    told = {flow for share in shares for flow in share.flows}
    findings += unsteady_findings(kinds.flaky, [flow for flow in kinds.some if flow not in told], roster)
    findings.sort(key=_order)
    blind = lack or _unmeasured(kinds, flows)
    unclear = blind or _undecided(moved, shares)
    classes = summaries(kpis, roster, ends, findings, moved.groups, windows)
    if blind:
        classes = tuple(one.without_pass() for one in classes)
    verdict, reason = _concluded(findings, unclear, windows, len(roster.class_of))
    return Judgement(
        verdict,
        reason,
        tuple(findings),
        classes,
        {
            group.kpi.name: group.contrast.noise_percent
            for group in moved.groups
            if group.scope is Scope.NETWORK and np.isfinite(group.contrast.noise_percent)
        },
        unclear,
    )


def _lack(kpis: pd.DataFrame, flows: pd.DataFrame, windows: Selection, minimum_after: int) -> str:
    if flows.empty or kpis.empty:
        return "nothing was measured: no flows" if flows.empty else "nothing was measured: no KPIs"
    for role in (Role.BASELINE, Role.TREATMENT, Role.RESTORED):
        bad = [window for window in windows.excluded if window.role is role]
        if len(bad) > 1:
            return f"{plural(len(bad), f'{role} window')} not usable: {bad[0].reason}"
    for count, minimum, when in (
        (len(windows.baseline), MINIMUM_WINDOWS, "before the change"),
        (len(windows.after), minimum_after, "after it"),
    ):
        if count < minimum:
            why = f": {windows.excluded[0].reason}" if windows.excluded else ""
            have = f"only {plural(count, 'usable window')}" if count else "no usable window"
            return f"{have} {when}, at least {minimum} needed{why}"
    return ""


def _unmeasured(kinds: Dispositions, flows: pd.DataFrame) -> str:
    if len(kinds.unmeasured) > UNMEASURED_RATIO_LIMIT * len(flows):
        return f"too little was measured: {len(kinds.unmeasured)} of {len(flows)} flows lack a result in some window"
    return ""


def _undecided(moved: Slowdowns, shares: Sequence[Finding]) -> str:
    for share in shares:
        if share.verdict is Severity.WARN:
            return share.effect
    for group in sorted(moved.groups, key=lambda one: priority_rank(one.priority)):
        if group.undecided:
            return undecided_effect(group)
    return ""


def _concluded(findings: Sequence[Finding], doubt: str, windows: Selection, flows: int) -> tuple[Verdict, str]:
    failures = [finding for finding in findings if finding.verdict is Severity.FAIL]
    if failures:
        more = f" (and {plural(len(failures) - 1, 'more finding')})" if len(failures) > 1 else ""
        return Verdict.FAIL, failures[0].effect + more
    if doubt:
        return Verdict.INCONCLUSIVE, doubt
    return Verdict.PASS, (
        f"none of {plural(flows, 'flow')} changed for the worse beyond tolerance and noise, over "
        f"{len(windows.baseline)} baseline and {plural(len(windows.after), 'window')} after the change"
    )


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
