"""Findings about KPIs that moved: of classes, their slowest tenth, the network and single flows.

May not know how flows ended, nor how findings make a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compare import Contrast, deviation_percent
from analysis.kpi import KPIS, Kpi, Tolerance, own_bounds
from analysis.movement import Move, Paired, of_flows, of_group, of_tail, paired
from analysis.roster import Roster
from analysis.verdict import Finding, Scope, Severity, finding_id
from analysis.window import panel
from analysis.words import moved, plural, quantity

NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Judged:
    """One KPI of one class (or of the network), held before against after."""

    subject: str
    scope: Scope
    priority: str
    kpi: Kpi
    tolerance: Tolerance
    flows: tuple[str, ...]
    contrast: Contrast
    tail: Contrast | None

    @property
    def worse(self) -> bool:
        """Certainly worse, at the median or in the slowest tenth."""
        return self.contrast.certain or (self.tail is not None and self.tail.certain)

    @property
    def undecided(self) -> bool:
        """Beyond tolerance without the windows agreeing; or, where it matters most, worse and too noisy to be told."""
        unclear = self.contrast.undecided or (self.tail is not None and self.tail.undecided)
        drifted = self.kpi.worsening(self.contrast.after, self.contrast.before) > 0
        blind = drifted and self.contrast.noisy and self.priority == "critical" and self.kpi.essential
        return not self.worse and (unclear or blind)


@dataclass(frozen=True, slots=True)
class Slowdowns:
    """All that was found about KPIs: what was judged per class and network, and the moves of single flows."""

    groups: tuple[Judged, ...]
    moves: Mapping[str, tuple[Move, ...]]


def slowdowns(
    kpis: pd.DataFrame,
    roster: Roster,
    tolerances: Mapping[str, Tolerance],
    excluded: frozenset[str],
    baseline: Sequence[int],
    after: Sequence[int],
) -> Slowdowns:
    """Compare every KPI of every class, of the network and of every flow; `excluded` flows have their own finding.

    What is held to a bound of its own has no part in the network.
    """
    groups: list[Judged] = []
    moves: dict[str, tuple[Move, ...]] = {}
    for kpi in KPIS.values():
        if kpi.name not in kpis.columns:
            continue
        tolerance = tolerances.get(kpi.name, kpi.tolerance)
        everyone = paired(kpi, panel(kpis, kpi.name, [*baseline, *after]), baseline, after)
        everyone = everyone.of(frozenset(roster.class_of) - excluded)
        found: list[Move] = []
        bounds = own_bounds(tolerances, kpi.name)
        for name, members in roster.classes.items():
            pair = everyone.of(frozenset(members))
            allowed = bounds.get(name, tolerance)
            _judge_group(groups, name, Scope.CLASS, pair, allowed, roster)
            found += of_flows(pair, everyone, allowed)
        rest = frozenset(flow for flow, name in roster.class_of.items() if name not in bounds)
        _judge_group(groups, NETWORK, Scope.NETWORK, everyone.of(rest) if bounds else everyone, tolerance, roster)
        moves[kpi.name] = tuple(found)
    return Slowdowns(tuple(groups), moves)


def group_findings(found: Slowdowns) -> list[Finding]:
    """FAIL for what is worse for certain, WARN for what is undecided, INFO for what improved.

    The network's own finding is told only when no class explains it.
    """
    findings = []
    explained = {(group.kpi.name, group.worse) for group in found.groups if group.scope is Scope.CLASS}
    for group in found.groups:
        if group.scope is Scope.NETWORK and (group.kpi.name, True) in explained:
            continue
        if group.worse:
            findings.append(_group_finding(group, Severity.FAIL))
        elif group.undecided:
            findings.append(_group_finding(group, Severity.WARN))
        elif group.contrast.improved and group.scope is Scope.CLASS:
            findings.append(_group_finding(group, Severity.INFO))
    return findings


def flow_findings(found: Slowdowns, roster: Roster) -> list[Finding]:
    """Single flows that moved where their class did not: FAIL when extreme, else a suspect that only warns."""
    told = {(group.subject, group.kpi.name) for group in found.groups if group.worse}
    groups: dict[tuple[str, str, bool], list[Move]] = {}
    for name, moves in found.moves.items():
        for move in moves:
            flow_class = roster.class_of[move.flow_id]
            if (flow_class, name) not in told:
                groups.setdefault((flow_class, name, move.extreme), []).append(move)
    return [
        _flow_finding(KPIS[name], flow_class, moves, roster, Severity.FAIL if extreme else Severity.WARN)
        for (flow_class, name, extreme), moves in groups.items()
    ]


def noise_note(found: Slowdowns) -> list[Finding]:
    """One INFO that names what could not be judged because the baseline itself strays further than the tolerance."""
    noisy = [
        f"{group.subject} {group.kpi.label} (±{quantity(group.contrast.noise, group.kpi.unit)})"
        for group in found.groups
        if group.contrast.noisy and not group.worse and not group.undecided
    ]
    if not noisy:
        return []
    return [
        Finding(
            finding_id=finding_id("noise", *noisy),
            scope=Scope.NETWORK,
            subject=NETWORK,
            kpi="noise",
            before=float("nan"),
            after=float("nan"),
            unit="count",
            deviation_percent=float("nan"),
            effect=f"baseline windows stray further than the tolerance: {', '.join(noisy)}",
            priority="normal",
            verdict=Severity.INFO,
        )
    ]


def _judge_group(
    groups: list[Judged], name: str, scope: Scope, pair: Paired, tolerance: Tolerance, roster: Roster
) -> None:
    found = of_group(pair, tolerance)
    if found is not None:
        tail = of_tail(pair, tolerance) if scope is Scope.CLASS else None
        priority = roster.priority(pair.flow_ids) if scope is Scope.CLASS else "normal"
        groups.append(Judged(name, scope, priority, pair.kpi, tolerance, pair.flow_ids, found, tail))


def undecided_effect(group: Judged) -> str:
    """The sentence for a KPI that moved beyond tolerance, or might have, without the windows agreeing."""
    told, tail = _told(group, Severity.WARN)
    effect = moved(group.subject, group.kpi, told.before, told.after, told.deviation_percent, tail=tail)
    return f"undecided: {effect}, while baseline windows alone stray by ±{quantity(told.noise, group.kpi.unit)}"


def _group_finding(group: Judged, severity: Severity) -> Finding:
    told, tail = _told(group, severity)
    effect = moved(group.subject, group.kpi, told.before, told.after, told.deviation_percent, tail=tail)
    return Finding(
        finding_id=finding_id(group.scope.value, group.subject, group.kpi.name),
        scope=group.scope,
        subject=group.subject,
        kpi=group.kpi.name,
        before=told.before,
        after=told.after,
        unit=group.kpi.unit,
        deviation_percent=told.deviation_percent,
        effect=undecided_effect(group) if severity is Severity.WARN else effect,
        priority=group.priority,
        verdict=severity,
        flows=tuple(sorted(group.flows)),
    )


def _told(group: Judged, severity: Severity) -> tuple[Contrast, bool]:
    """The contrast that a finding of this severity rests on: the median if it says so, else the slowest tenth."""
    tail = group.tail
    if tail is not None and _says(tail, severity) and not _says(group.contrast, severity):
        return tail, True
    return group.contrast, False


def _says(found: Contrast, severity: Severity) -> bool:
    tells: Mapping[Severity, Callable[[Contrast], bool]] = {
        Severity.FAIL: lambda contrast: contrast.certain,
        Severity.WARN: lambda contrast: contrast.undecided,
        Severity.INFO: lambda contrast: contrast.improved,
    }
    return tells[severity](found)


def _flow_finding(kpi: Kpi, flow_class: str, moves: Sequence[Move], roster: Roster, severity: Severity) -> Finding:
    flows = tuple(sorted(move.flow_id for move in moves))
    single = len(moves) == 1
    before = float(np.median([move.before for move in moves]))
    after = float(np.median([move.after for move in moves]))
    deviation = deviation_percent(after, before)
    who = (
        f"{flow_class} flow {roster.title_of.get(flows[0], flows[0])}"
        if single
        else f"{len(moves)} of {plural(len(roster.classes[flow_class]), f'{flow_class} flow')}:"
    )
    effect = moved(who, kpi, before, after, deviation)
    return Finding(
        finding_id=finding_id("flows", severity.name, flow_class, kpi.name, *flows[:1]),
        scope=Scope.FLOW if single else Scope.CLASS,
        subject=flows[0] if single else flow_class,
        kpi=kpi.name,
        before=before,
        after=after,
        unit=kpi.unit,
        deviation_percent=deviation,
        effect=effect if severity is Severity.FAIL else f"suspect: {effect}",
        priority=roster.priority(flows),
        verdict=severity,
        flows=flows,
    )
