"""Effects in findings and words: who moved, by how much, how surely, and how far it was allowed to.

May not know how an effect was tested nor how findings make a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from analysis.outcome import DISPOSITION
from analysis.pairs.effects import Answer, Effect
from analysis.pairs.hierarchy import NETWORK
from analysis.pairs.suspects import LABEL, Suspect
from analysis.roster import Roster
from analysis.verdict import Finding, Scope, Severity, finding_id
from analysis.words import moved, plural, quantity

NAN = float("nan")
_SURE = 2.0


def doubtful(effect: Effect) -> bool:
    """Whether a pass must not be given while this stands undecided.

    An essential KPI must be shown not to be worse, as must all of a critical subject's; another matters only when it
    has moved by twice its standard error and its estimate is past the margin.
    """
    if effect.answer is not Answer.UNDECIDED:
        return False
    if effect.subject.scope is Scope.FLOW:
        return effect.kpi.essential and effect.subject.priority == "critical"
    if effect.kpi.essential and not effect.tail:
        return True
    return effect.beyond and effect.change > _SURE * effect.standard_error


def group_findings(effects: Sequence[Effect], roster: Roster) -> list[Finding]:
    """FAIL for classes and the network that are inferior, WARN for doubts, INFO for what surely improved.

    The network's own finding is told only when no class explains it, the slowest tenth's only when its class does not.
    """
    findings = []
    told = {(one.kpi.name, one.answer) for one in effects if one.subject.scope is Scope.CLASS}
    whole = {(one.subject.name, one.kpi.name) for one in effects if one.answer is Answer.INFERIOR and not one.tail}
    for one in effects:
        if (
            one.subject.scope is Scope.NETWORK
            and (one.kpi.name, one.answer) in told
            and one.answer is not Answer.NON_INFERIOR
        ):
            continue
        if one.tail and (one.subject.name, one.kpi.name) in whole:
            continue
        if one.answer is Answer.INFERIOR:
            findings.append(_finding(one, Severity.FAIL, roster))
        elif doubtful(one):
            findings.append(_finding(one, Severity.WARN, roster))
        elif one.high < -one.margin and one.subject.scope is Scope.CLASS and not one.tail:
            findings.append(_finding(one, Severity.INFO, roster))
    return findings


def flow_findings(effects: Sequence[Effect], groups: Sequence[Effect], roster: Roster) -> list[Finding]:
    """Single flows that are inferior where their class is not: FAIL; critical ones that stay undecided: WARN."""
    told = {(one.subject.name, one.kpi.name) for one in groups if one.answer is Answer.INFERIOR}
    parts: dict[tuple[str, str, Severity], list[Effect]] = {}
    for one in effects:
        key = (roster.class_of[one.subject.name], one.kpi.name)
        if key in told:
            continue
        if one.answer is Answer.INFERIOR:
            parts.setdefault((*key, Severity.FAIL), []).append(one)
        elif doubtful(one):
            parts.setdefault((*key, Severity.WARN), []).append(one)
    return [_flows_finding(name, found, severity, roster) for (name, _, severity), found in parts.items()]


def no_data_findings(flows: Iterable[str], roster: Roster) -> list[Finding]:
    """A critical flow without data fails the run: silence about what matters most is no pass."""
    missing = tuple(sorted(flows))
    if not missing:
        return []
    who = roster.title_of.get(missing[0], missing[0])
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    effect = f"no data on critical flow {who}{more} with the change"
    return [_note("no_data", missing, effect, Severity.FAIL, roster)]


def one_sided_findings(flows: Mapping[tuple[str, bool], Sequence[str]], roster: Roster) -> list[Finding]:
    """KPIs that flows have in one arm only, by (KPI, with change): what cannot be compared cannot be passed."""
    findings = []
    for (kpi, changed), members in sorted(flows.items()):
        ids = tuple(sorted(members))
        effect = f"undecided: {plural(len(ids), 'flow')} with {kpi} only {'with' if changed else 'without'} the change"
        findings.append(_note("one_sided", ids, effect, Severity.WARN, roster, kpi))
    return findings


def path_findings(flows: Mapping[tuple[str, str], Sequence[str]], roster: Roster) -> list[Finding]:
    """Flows that took one path in every window as is and another in every window with the change: told, not judged."""
    findings = []
    for (before, after), members in sorted(flows.items()):
        ids = tuple(sorted(members))
        effect = f"{plural(len(ids), 'flow')} take another path: {before or '-'} → {after or '-'}"
        findings.append(_note("path", ids, effect, Severity.INFO, roster, before, after))
    return findings


def suspect_findings(suspects: Sequence[Suspect], failed: frozenset[str], roster: Roster) -> list[Finding]:
    """The suspects that no other finding names, by class and KPI; labelled as triage."""
    parts: dict[tuple[str, str], list[Suspect]] = {}
    for suspect in suspects:
        if suspect.flow_id not in failed:
            parts.setdefault((roster.class_of[suspect.flow_id], suspect.kpi), []).append(suspect)
    findings = []
    for (name, kpi), found in sorted(parts.items()):
        flows = tuple(sorted(suspect.flow_id for suspect in found))
        effect = f"suspects ({LABEL}): {plural(len(flows), f'{name} flow')} by {kpi}"
        note = _note("suspect", flows, effect, Severity.INFO, roster, name, kpi)
        findings.append(_with_q(note, min(suspect.q_value for suspect in found)))
    return findings


def sentence(effect: Effect) -> str:
    """ "http response time 12 ms → 15 ms (+25 %); on average 13 ms → 16 ms (90 % interval 15 ms to …, limit 14 ms)".

    The medians first, as the seed compares them; then what the test is about.
    """
    text = moved(
        effect.subject.name,
        effect.kpi,
        effect.subject.before,
        effect.subject.after,
        effect.deviation_percent,
        tail=effect.tail,
    )
    return f"{text}; {_interval(effect)}"


def _interval(effect: Effect) -> str:
    subject = effect.subject
    numbers = (subject.baseline, effect.value_at(effect.change), *effect.interval, subject.limit)
    before, after, low, high, limit = (quantity(value, effect.kpi.unit) for value in numbers)
    return f"on average {before} → {after} (90 % interval {low} to {high}, limit {limit})"


def _finding(effect: Effect, severity: Severity, roster: Roster) -> Finding:
    subject = effect.subject
    low, high = effect.interval
    text = sentence(effect)
    return Finding(
        finding_id=finding_id("pairs", subject.scope.value, subject.name, effect.kpi.name, "tail" * effect.tail),
        scope=subject.scope,
        subject=subject.name,
        kpi=effect.kpi.name,
        before=subject.before,
        after=subject.after,
        unit=effect.kpi.unit,
        deviation_percent=effect.deviation_percent,
        effect=f"undecided: {text}" if severity is Severity.WARN else text,
        priority=subject.priority,
        verdict=severity,
        flows=tuple(sorted(roster.classes.get(subject.name, ()))) if subject.scope is Scope.CLASS else (),
        interval_low=low,
        interval_high=high,
    )


def _flows_finding(flow_class: str, effects: Sequence[Effect], severity: Severity, roster: Roster) -> Finding:
    worst = max(effects, key=lambda one: (one.change - one.margin, one.subject.name))
    flows = tuple(sorted(one.subject.name for one in effects))
    kpi = worst.kpi
    single = len(flows) == 1
    low, high = worst.interval
    total = len(roster.classes[flow_class])
    who = f"{flow_class} flow {roster.title_of.get(worst.subject.name, worst.subject.name)}"
    before, after, deviation = worst.subject.before, worst.subject.after, worst.deviation_percent
    text = f"{moved(who, kpi, before, after, deviation)}; {_interval(worst)}"
    if not single:
        text = f"{len(flows)} of {plural(total, f'{flow_class} flow')}, the worst being {text}"
    return Finding(
        finding_id=finding_id("pairs", "flows", severity.name, flow_class, kpi.name, *flows[:1]),
        scope=Scope.FLOW if single else Scope.CLASS,
        subject=flows[0] if single else flow_class,
        kpi=kpi.name,
        before=before,
        after=after,
        unit=kpi.unit,
        deviation_percent=deviation,
        effect=text if severity is Severity.FAIL else f"undecided: {text}",
        priority=roster.priority(flows),
        verdict=severity,
        flows=flows,
        interval_low=low,
        interval_high=high,
    )


def _note(kind: str, flows: tuple[str, ...], effect: str, severity: Severity, roster: Roster, *more: str) -> Finding:
    return Finding(
        finding_id=finding_id(kind, *more, *flows[:1]),
        scope=Scope.NETWORK if len(flows) > 1 else Scope.FLOW,
        subject=NETWORK if len(flows) > 1 else flows[0],
        kpi=more[-1] if kind in ("suspect", "one_sided") else "path" if kind == "path" else DISPOSITION,
        before=NAN,
        after=NAN,
        unit="flows",
        deviation_percent=NAN,
        effect=effect,
        priority=roster.priority(flows),
        verdict=severity,
        flows=flows,
    )


def _with_q(finding: Finding, q_value: float) -> Finding:
    return replace(finding, q_value=q_value)
