"""Findings about how flows ended: changed for certain, changed for a share of a class, hit during the change.

Flows of one class that were hit in the same way are one finding. May not know KPIs other than the disposition itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from analysis.compare import contrast, deviation_percent
from analysis.disposition import AS_EXPECTED, Changed, Disposition, Endings, expected_ratios, hit_in
from analysis.kpi import Tolerance
from analysis.roster import Roster
from analysis.verdict import Finding, Scope, Severity, finding_id
from analysis.words import plural

DISPOSITION = "disposition"
ONE_WINDOW_MINIMUM_FLOWS = 3
"""With one window after the change, fewer flows than this changing alike may be chance: they warn and do not gate."""

_CAPTURED = {"denied": "denied", "reset": "refused", "unanswered": "not answered"}


def changed_findings(changed: Iterable[Changed], roster: Roster, windows: int) -> list[Finding]:
    """One finding a class and way of ending; `windows` is how many windows after the change were looked at."""
    groups: dict[tuple[str, Disposition, Disposition], list[str]] = {}
    for flow in changed:
        group = (roster.class_of.get(flow.flow_id, "other"), flow.before, flow.after)
        groups.setdefault(group, []).append(flow.flow_id)
    findings = []
    for (name, before, after), flows in groups.items():
        severity = _severity(before, after)
        if severity is Severity.FAIL and windows < 2 and len(flows) < ONE_WINDOW_MINIMUM_FLOWS:
            severity = Severity.WARN
        total = len(roster.classes.get(name, flows))
        single = len(flows) == 1
        was, now = (float(len(flows)) if kind.as_expected else 0.0 for kind in (before, after))
        subject = flows[0] if single and total > 1 else name
        findings.append(
            Finding(
                finding_id=finding_id(DISPOSITION, name, before.error, after.error, *flows[:1]),
                scope=Scope.FLOW if single and total > 1 else Scope.CLASS,
                subject=subject,
                kpi=DISPOSITION,
                before=was,
                after=now,
                unit="flows",
                deviation_percent=deviation_percent(now, was),
                effect=_changed_effect(name, flows, total, before, after, roster),
                priority=roster.priority(flows),
                verdict=severity,
                flows=tuple(sorted(flows)),
            )
        )
    return findings


def share_findings(
    ends: Endings,
    certain: Mapping[str, Changed],
    roster: Roster,
    tolerance: Tolerance,
    baseline: Sequence[int],
    after: Sequence[int],
) -> list[Finding]:
    """Classes of which another part is hit in each window, as by a connection limit; certain flows are left out."""
    findings = []
    for name, members in roster.classes.items():
        rest = [flow for flow in members if flow not in certain]
        early, late = expected_ratios(ends, rest, baseline), expected_ratios(ends, rest, after)
        if len(rest) < AS_EXPECTED.minimum_flows or np.isnan([*early, *late]).any():
            continue
        found = contrast(AS_EXPECTED, tolerance, early, late)
        if not found.beyond:
            continue
        hit = hit_in(ends, rest, baseline, after)
        worst = hit | {flow: certain[flow].after for flow in members if flow in certain and certain[flow].worse}
        before, then = expected_ratios(ends, members, baseline), expected_ratios(ends, members, after)
        low, high = float(np.median(before)), float(np.median(then))
        missed = sorted(round((1 - ratio) * len(members)) for ratio in then)
        span = str(missed[0]) if missed[0] == missed[-1] else f"{missed[0]} to {missed[-1]}"
        reasons = _errors(worst.values())
        effect = f"{span} of {len(members)} {name} flows end otherwise than captured in each window"
        findings.append(
            Finding(
                finding_id=finding_id(AS_EXPECTED.name, name),
                scope=Scope.CLASS,
                subject=name,
                kpi=AS_EXPECTED.name,
                before=low,
                after=high,
                unit="ratio",
                deviation_percent=deviation_percent(high, low),
                effect=f"{effect}, not always the same ones{reasons}"
                if found.certain
                else f"undecided: {effect}{reasons}, but the windows do not agree",
                priority=roster.priority(worst or members),
                verdict=Severity.FAIL if found.certain and len(after) >= 2 else Severity.WARN,
                flows=tuple(sorted(worst)),
            )
        )
    return findings


def transition_findings(
    ends: Endings, changed: Iterable[str], roster: Roster, baseline: Sequence[int], transition: Sequence[int]
) -> list[Finding]:
    """Flows that failed only while the change was being applied: told, never gating."""
    known = set(changed)
    findings = []
    for name, members in roster.classes.items():
        hit = hit_in(ends, [flow for flow in members if flow not in known], baseline, transition)
        if not hit:
            continue
        priority = roster.priority(hit)
        findings.append(
            Finding(
                finding_id=finding_id("transition", name),
                scope=Scope.CLASS,
                subject=name,
                kpi=DISPOSITION,
                before=float(len(hit)),
                after=0.0,
                unit="flows",
                deviation_percent=100.0,
                effect=f"{len(hit)} of {plural(len(members), f'{name} flow')} hit only while the change was applied"
                f"{_errors(hit.values())}",
                priority=priority,
                verdict=Severity.WARN if priority in ("critical", "high") else Severity.INFO,
                flows=tuple(sorted(hit)),
            )
        )
    return findings


def unsteady_findings(flaky: Sequence[str], some: Sequence[str], roster: Roster) -> list[Finding]:
    """Flows that ended differently among the baseline windows (INFO), or in only some windows after (WARN)."""
    notes = (
        ("flaky", flaky, Severity.INFO, "ended differently among the baseline windows: not judged one by one"),
        ("sometimes", some, Severity.WARN, "ended differently in some, not all, windows after the change"),
    )
    return [
        Finding(
            finding_id=finding_id(kind, *sorted(flows)),
            scope=Scope.NETWORK,
            subject="network",
            kpi=DISPOSITION,
            before=float("nan"),
            after=float("nan"),
            unit="flows",
            deviation_percent=float("nan"),
            effect=f"{plural(len(flows), 'flow')} {effect}",
            priority=roster.priority(flows),
            verdict=severity,
            flows=tuple(sorted(flows)),
        )
        for kind, flows, severity, effect in notes
        if flows
    ]


def _severity(before: Disposition, after: Disposition) -> Severity:
    if before.as_expected and not after.as_expected:
        return Severity.FAIL
    if after.as_expected and not before.as_expected:
        return Severity.INFO
    return Severity.WARN


def _changed_effect(
    name: str, flows: Sequence[str], total: int, before: Disposition, after: Disposition, roster: Roster
) -> str:
    one = len(flows) == 1
    who = (
        f"{name} flow {roster.title_of.get(flows[0], flows[0])}"
        if one
        else f"{len(flows)} of {plural(total, f'{name} flow')}"
    )
    if after.as_expected and not before.as_expected:
        return f"{who} now {'ends' if one else 'end'} as captured (before: {before.error})"
    if after.completed and not before.completed:
        kinds = {_CAPTURED.get(roster.captured.get(flow, ""), "") for flow in flows} - {""}
        was = " or ".join(sorted(kinds)) or before.error
        return f"{who}, {was} when captured, now {'completes' if one else 'complete'}"
    if before.completed and not after.completed:
        return f"{who} no longer {'completes' if one else 'complete'}: {after.error}"
    return f"{who} {'ends' if one else 'end'} in another way: {before.error} → {after.error}"


def _errors(kinds: Iterable[Disposition]) -> str:
    counts = Counter(kind.error for kind in kinds if kind.error != "none")
    names = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return f": {', '.join(names)}" if names else ""
