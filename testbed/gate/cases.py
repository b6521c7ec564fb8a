"""A verdict as test cases: one for each KPI of each class, for whatever counts tests.

May not know in which format they are written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from analysis.kpi import KPIS
from analysis.words import percent, quantity
from testbed.gate.places import EXPECTATION
from testbed.verdict_file import ClassEntry, FindingEntry, KpiEntry, VerdictFile, number

INSTRUMENT, ROLLBACK, NETWORK, EXPECTED = "instrument", "rollback", "network", "expectations"
DISPOSITION = "disposition"


class State(Enum):
    """What became of a case."""

    PASSED = "passed"
    FAILED = "failed"
    INVALID = "invalid"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class TestCase:
    """One question asked of the change: `subject` is a class, or the part of the testbed that was asked."""

    subject: str
    kpi: str
    state: State
    message: str = ""
    details: str = ""
    notes: tuple[str, ...] = ()
    properties: Mapping[str, str] | None = None


def is_valid(verdict: VerdictFile) -> bool:
    """Whether the instrument was fit to judge; a FAIL before any traffic needs no instrument."""
    return verdict.instrument.valid or verdict.verdict == "FAIL" or not verdict.windows


def cases(verdict: VerdictFile) -> tuple[TestCase, ...]:
    """Every case of a verdict, classes in the verdict's order, the testbed's own first."""
    return (*_own(verdict), *_of_expectations(verdict), *_of_classes(verdict), *_of_others(verdict))


def explained(finding: FindingEntry, flows: int = 20) -> str:
    """Effect, blame and evidence in lines, for people, and so many of the flows."""
    lines = [finding.effect]
    blame = finding.blame
    if blame is not None:
        spot = f"  {blame.file}" + (f":{blame.line}" if blame.line is not None else "") if blame.file else ""
        lines.append(f"cause: {blame.node}  {blame.object}{spot}")
        lines += [f"  {blame.text.strip()}"] if blame.text.strip() else []
        lines += [f"  {said}" for said in blame.evidence]
    if finding.flows and flows:
        shown = ", ".join(finding.flows[:flows])
        more = f" and {len(finding.flows) - flows} more" if len(finding.flows) > flows else ""
        lines.append(f"flows: {shown}{more}")
    return "\n".join(lines)


def _own(verdict: VerdictFile) -> Iterator[TestCase]:
    if not verdict.windows:
        yield TestCase(INSTRUMENT, "valid", State.UNDECIDED, verdict.instrument.reason or "nothing was replayed")
    elif is_valid(verdict):
        yield TestCase(INSTRUMENT, "valid", State.PASSED)
    else:
        reason = verdict.instrument.reason or verdict.reason
        yield TestCase(INSTRUMENT, "valid", State.INVALID, reason)
    rollback = verdict.rollback
    if rollback.restored:
        yield TestCase(ROLLBACK, "restored", State.PASSED)
    else:
        said = rollback.detail or ("the network was not as before" if rollback.done else "not rolled back")
        yield TestCase(ROLLBACK, "restored", State.INVALID, said)


def _of_expectations(verdict: VerdictFile) -> Iterator[TestCase]:
    """A case for each declared change and each waiver; only what is demanded can fail."""
    for one in verdict.expectations:
        said = "; ".join(one.evidence)
        state = State.PASSED
        if one.kind == "must" and one.state == "not_met":
            state = State.FAILED
        elif one.kind != "waiver" and one.state == "not_tested":
            state = State.UNDECIDED
        told = {"declared": one.declared, "kind": one.kind, "state": one.state, "line": f"{one.file}:{one.line}"}
        if one.owner and one.expires:
            told |= {"owner": one.owner, "expires": one.expires}
        notes = (said,) if state is State.PASSED and said else ()
        details = f"{one.declared}\n{one.file}:{one.line}\n{said}" if state is State.FAILED else ""
        yield TestCase(EXPECTED, one.name, state, "" if state is State.PASSED else said, details, notes, told)


def _of_classes(verdict: VerdictFile) -> Iterator[TestCase]:
    for one in verdict.classes:
        findings = [f for f in verdict.findings if f.scope == "class" and f.subject == one.flow_class]
        # dispositions are counted in flows, and stand beside the KPIs
        names = dict.fromkeys((DISPOSITION, *(name for name in one.kpis if name != "as_expected_ratio")))
        names.update(dict.fromkeys(f.kpi for f in findings if f.verdict == "FAIL"))
        for name in names:
            entry = one.kpis.get("as_expected_ratio" if name == DISPOSITION else name)
            yield _case(verdict, one, name, [f for f in findings if f.kpi == name], entry)


def _case(
    verdict: VerdictFile, one: ClassEntry, kpi: str, findings: Sequence[FindingEntry], entry: KpiEntry | None
) -> TestCase:
    failed = [f for f in findings if f.verdict == "FAIL"]
    notes = tuple(f.effect for f in findings if f.verdict == "WARN")
    told = _properties(entry, failed[0] if failed else findings[0] if findings else None)
    told["priority"] = one.priority
    if failed:
        details = "\n\n".join(explained(finding) for finding in failed)
        return TestCase(one.flow_class, kpi, State.FAILED, failed[0].effect, details, notes, told)
    if one.verdict == "INCONCLUSIVE" or (verdict.verdict == "INCONCLUSIVE" and not is_valid(verdict)):
        return TestCase(one.flow_class, kpi, State.UNDECIDED, verdict.reason, "", notes, told)
    broken = next((f.effect for f in verdict.findings if f.subject == one.flow_class and f.kpi == DISPOSITION), "")
    if broken and one.verdict == "FAIL" and entry is not None and not math.isfinite(number(entry.after)):
        return TestCase(one.flow_class, kpi, State.UNDECIDED, f"not measured: {broken}", "", notes, told)
    return TestCase(one.flow_class, kpi, State.PASSED, notes=notes, properties=told)


def _of_others(verdict: VerdictFile) -> Iterator[TestCase]:
    """Findings of single flows and of the network, and of classes that have no KPIs; so that no FAIL goes uncounted."""
    known = {one.flow_class for one in verdict.classes}
    told = False
    for finding in verdict.findings:
        if finding.scope == "class" and finding.subject in known:
            told = told or finding.verdict == "FAIL"
        elif finding.verdict == "FAIL" and finding.kpi == EXPECTATION and verdict.expectations:
            told = True
        elif finding.verdict == "FAIL":
            told = True
            subject = NETWORK if finding.scope == "network" else f"{finding.scope} {finding.subject}"
            properties = _properties(None, finding)
            yield TestCase(
                subject, finding.kpi, State.FAILED, finding.effect, explained(finding), properties=properties
            )
    if verdict.verdict == "FAIL" and not told:
        yield TestCase(NETWORK, "verdict", State.FAILED, verdict.reason)
    if verdict.verdict == "INCONCLUSIVE" and is_valid(verdict):
        yield TestCase(NETWORK, "verdict", State.UNDECIDED, verdict.reason)


def _properties(entry: KpiEntry | None, finding: FindingEntry | None) -> dict[str, str]:
    told: dict[str, str] = {}
    source = finding if finding is not None else entry
    if source is None:
        return told
    before, after, moved = (number(x) for x in (source.before, source.after, source.deviation_percent))
    told["before"], told["after"] = quantity(before, source.unit), quantity(after, source.unit)
    told["estimate"] = percent(before, after, moved) or "-"
    if finding is not None:
        bounds = [number(x) for x in (finding.interval_low, finding.interval_high)]
        if all(map(math.isfinite, bounds)):
            told["interval"] = f"{bounds[0]:g} to {bounds[1]:g}"
        if finding.q_value is not None:
            told["q_value"] = f"{number(finding.q_value):g}"
    return told


def label(kpi: str) -> str:
    """A KPI as a person says it."""
    return KPIS[kpi].label if kpi in KPIS else kpi.replace("_", " ")
