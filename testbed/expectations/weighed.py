"""What is declared, held against what was seen: flows that moved as declared are not judged, what is absent is told.

May not know how a change was tried: tables in, a judgement and entries out.  Today comes with the expectations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from analysis.classes import ClassSummary, KpiChange
from analysis.disposition import AS_EXPECTED
from analysis.judge import Judgement
from analysis.reach import UNMEASURED
from analysis.verdict import PRIORITIES, Finding, Scope, Severity, Verdict, finding_id, priority_rank
from analysis.words import plural
from testbed.expectations.clauses import Clause, State, worst
from testbed.expectations.clauses import of_intent as clauses_of
from testbed.expectations.matching import matched, whole_class
from testbed.expectations.model import Expectations, Intent, Waiver
from testbed.expectations.seen import FLOW, seen, sides
from testbed.expectations.words import declared, pattern
from topologies.model import Topology

EXPECTATION = "expectation"
NOT_TRIED = frozenset({"syntax", "apply"})
"""Findings of a change that was never in force: nothing was seen of it, and nobody can put up with that."""

NAN = float("nan")
Entry = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Weighed:
    """A run's flows and probes as far as expectations go; `rest` are the flows that the judge is to judge."""

    expectations: Expectations
    topology: Topology
    items: pd.DataFrame
    rest: pd.DataFrame
    declared: pd.DataFrame
    shares: Mapping[str, tuple[float, float]]

    @classmethod
    def of(
        cls,
        expectations: Expectations,
        topology: Topology,
        flows: pd.DataFrame,
        kpis: pd.DataFrame,
        records: Sequence[Mapping[str, object]],
        dispositions: pd.DataFrame,
    ) -> Weighed:
        """Hold every flow and probe against the declared moves; the tables are as `seen` takes them."""
        if expectations.is_empty:
            return cls(expectations, topology, pd.DataFrame(), flows, flows.iloc[:0], {})
        items = seen(flows, kpis, records, dispositions)
        moved = explained(items, expectations.intents)
        own = set(items["name"][moved & (items["kind"] == FLOW).to_numpy(np.bool_)].tolist())
        aside = flows["flow_id"].isin(own) if own else pd.Series(False, index=flows.index)
        return cls(
            expectations,
            topology,
            items,
            flows[~aside].reset_index(drop=True),
            flows[aside].reset_index(drop=True),
            _shares(flows[aside], kpis, records) if own else {},
        )

    def applied(self, judgement: Judgement) -> tuple[Judgement, tuple[Entry, ...]]:
        """The judgement of `rest` with all that was declared, and `expectations` of verdict.json.

        A waived finding warns, what was demanded and is absent fails, what could not be tested is inconclusive.
        """
        if self.expectations.is_empty:
            return judgement, ()
        if any(finding.kpi in NOT_TRIED for finding in judgement.findings):
            untried = [*map(_untried, self.expectations.intents), *map(_untried, self.expectations.waivers)]
            return judgement, tuple({"file": self.expectations.file, **entry} for entry in untried)
        findings, used = self._waived(judgement.findings)
        entries = []
        for intent in self.expectations.intents:
            told = clauses_of(intent, self._items_of(intent), self.topology, judgement)
            state = worst(told)
            entries.append(self._entry(intent, state, told))
            note = _finding(intent, state, told, self._priority(intent))
            if note is not None:
                findings.append(note)
        entries += [self._waiver_entry(waiver, used.get(waiver.name, ())) for waiver in self.expectations.waivers]
        findings.sort(key=lambda one: (-one.verdict.value, priority_rank(one.priority)))
        verdict, reason = self._concluded(judgement, findings)
        classes = (*(_without(one, findings) for one in judgement.classes), *self._set_aside(judgement))
        judged = replace(judgement, verdict=verdict, reason=reason, findings=tuple(findings), classes=classes)
        return judged, tuple({"file": self.expectations.file, **entry} for entry in entries)

    def _items_of(self, intent: Intent) -> pd.DataFrame:
        return self.items[matched(self.items, intent.match)] if len(self.items) else self.items

    def _priority(self, intent: Intent) -> str:
        own = self._items_of(intent)
        ranks = [priority_rank(str(word)) for word in own["priority"].tolist()] if len(own) else []
        return PRIORITIES[min(ranks)] if ranks else "normal"

    def _waived(self, findings: Sequence[Finding]) -> tuple[list[Finding], dict[str, list[str]]]:
        in_force = [waiver for waiver in self.expectations.waivers if not waiver.is_expired(self.expectations.today)]
        used: dict[str, list[str]] = {}
        found = []
        for finding in findings:
            waiver = next((one for one in in_force if _fits(one, finding, self._classes_of(finding))), None)
            if waiver is None or finding.verdict is not Severity.FAIL:
                found.append(finding)
                continue
            used.setdefault(waiver.name, []).append(finding.effect)
            said = f"waived until {waiver.expires} by {waiver.owner} ({waiver.reason}): {finding.effect}"
            found.append(replace(finding, verdict=Severity.WARN, effect=said))
        return found, used

    def _classes_of(self, finding: Finding) -> frozenset[str]:
        """The policy's classes that a finding is about; none of one about the network."""
        if not finding.flows:
            return frozenset({whole_class(finding.subject)} if finding.scope is Scope.CLASS else ())
        own = self.rest["flow_class"][self.rest["flow_id"].isin(finding.flows)]
        return frozenset(whole_class(str(name)) for name in own.tolist())

    def _concluded(self, judgement: Judgement, findings: Sequence[Finding]) -> tuple[Verdict, str]:
        failures = [finding for finding in findings if finding.verdict is Severity.FAIL]
        if failures:
            more = f" (and {plural(len(failures) - 1, 'more finding')})" if len(failures) > 1 else ""
            return Verdict.FAIL, failures[0].effect + more
        untold = [f for f in findings if f.kpi == EXPECTATION and f.verdict is Severity.WARN]
        doubt = judgement.doubt if judgement.verdict is Verdict.FAIL else ""
        if judgement.verdict is Verdict.INCONCLUSIVE and (len(self.rest) or self.declared.empty):
            doubt = judgement.reason
        if doubt or untold:
            return Verdict.INCONCLUSIVE, doubt or untold[0].effect
        reason = judgement.reason if judgement.verdict is Verdict.PASS else ""
        waived = sum(f.verdict is Severity.FAIL for f in judgement.findings)
        said = [f"{plural(len(self.declared), 'flow')} changed as declared"] if len(self.declared) else []
        said += [f"{plural(waived, 'finding')} waived"] if waived else []
        if not reason:
            said = [*said, "nothing else gates"]
        return Verdict.PASS, "; ".join(filter(None, (reason, *said)))

    def _set_aside(self, judgement: Judgement) -> list[ClassSummary]:
        """Classes of which every flow moved as declared: the judge has not seen them."""
        known = {one.flow_class for one in judgement.classes}
        found = []
        for name, members in self.declared.groupby("flow_class", sort=True):
            if str(name) in known:
                continue
            priority = min(members["priority"].tolist(), key=lambda one: priority_rank(str(one)))
            share = KpiChange(*self.shares[str(name)], AS_EXPECTED.unit)
            found.append(ClassSummary(str(name), str(priority), len(members), {AS_EXPECTED.name: share}, Verdict.PASS))
        return found

    def _entry(self, intent: Intent, state: State, told: Sequence[Clause]) -> dict[str, object]:
        own = self._items_of(intent)
        flows = own["name"][own["kind"] == FLOW].tolist() if len(own) else []
        return {
            "kind": "must" if intent.demanded else "may",
            "name": intent.name,
            "state": state.value if intent.demanded or state is not State.NOT_MET or not absent(told) else "absent",
            "line": intent.line,
            "text": intent.text,
            "declared": declared(intent),
            "evidence": [clause.said for clause in told],
            "flows": sorted(map(str, flows)),
            "probes": len(own) - len(flows),
        }

    def _waiver_entry(self, waiver: Waiver, effects: Sequence[str]) -> dict[str, object]:
        today = self.expectations.today
        expired = waiver.is_expired(today)
        said = [f"expired: it was good until {waiver.expires}, today is {today}"] if expired else list(effects)
        return {
            **_waiver(waiver),
            "state": "expired" if expired else "met" if effects else "absent",
            "evidence": said or ["no finding that gates fits it"],
        }


def explained(items: pd.DataFrame, intents: Sequence[Intent]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """The rows whose move between dispositions is one that some intent declares."""
    found = np.zeros(len(items), np.bool_)
    moves = list(zip(items["before"].tolist(), items["after"].tolist(), strict=True)) if len(items) else []
    for intent in intents:
        if intent.becomes is not None and len(items):
            known = {move: all(move) and UNMEASURED not in move and intent.explains(*move) for move in set(moves)}
            found |= np.array([known[move] for move in moves], np.bool_) & matched(items, intent.match)
    return found


def absent(told: Sequence[Clause]) -> bool:
    """Whether all that is not met is just not there, as a `may` allows."""
    return all(clause.absent for clause in told if clause.state is State.NOT_MET)


def _finding(intent: Intent, state: State, told: Sequence[Clause], priority: str) -> Finding | None:
    """What a person is told of one intent: FAIL when demanded and absent, WARN when not tested, INFO when met."""
    said = "; ".join(clause.said for clause in told if clause.state is state)
    severity, words = {
        State.MET: (Severity.INFO, "as declared"),
        State.NOT_MET: (Severity.FAIL, "declared and not so"),
        State.NOT_TESTED: (Severity.WARN, "declared and not tested"),
    }[state]
    if not intent.demanded and state is not State.MET:
        return None
    # a bound that is not kept has the judge's own finding
    if state is State.NOT_MET and all(clause.judged for clause in told if clause.state is state):
        return None
    flows = tuple(sorted({flow for clause in told if clause.state is state for flow in clause.flows}))
    return Finding(
        finding_id=finding_id(EXPECTATION, intent.name, state.value),
        scope=Scope.NETWORK,
        subject=intent.name,
        kpi=EXPECTATION,
        before=NAN,
        after=NAN,
        unit="flows",
        deviation_percent=NAN,
        effect=f"{words}: {intent.name} ({declared(intent)}): {said}",
        priority=priority,
        verdict=severity,
        flows=flows,
    )


def _fits(waiver: Waiver, finding: Finding, classes: frozenset[str]) -> bool:
    """Whether every pattern fits; one of a class has to fit every class that the finding is about."""
    blame = finding.blame
    told = {
        "id": (finding.finding_id,),
        "kpi": (finding.kpi,),
        "class": tuple(sorted(classes)),
        "node": (blame.node if blame else "",),
        "file": ((blame.file or "") if blame else "",),
        "text": (finding.effect,),
    }
    return finding.kpi not in {EXPECTATION, *NOT_TRIED} and all(
        told[name] and all(fnmatchcase(word, glob) for word in told[name]) for name, glob in waiver.patterns.items()
    )


def _waiver(waiver: Waiver) -> dict[str, object]:
    return {
        "kind": "waiver",
        "name": waiver.name,
        "line": waiver.line,
        "text": pattern(waiver),
        "declared": f"no gating by {pattern(waiver)}: {waiver.reason}",
        "flows": [],
        "probes": 0,
        "owner": waiver.owner,
        "reason": waiver.reason,
        "expires": waiver.expires.isoformat(),
    }


def _untried(one: Intent | Waiver) -> dict[str, object]:
    said = {"state": State.NOT_TESTED.value, "evidence": ["the change was never in force"]}
    if isinstance(one, Waiver):
        return {**_waiver(one), **said}
    return {
        "kind": "must" if one.demanded else "may",
        "name": one.name,
        "line": one.line,
        "text": one.text,
        "declared": declared(one),
        "flows": [],
        "probes": 0,
        **said,
    }


def _without(one: ClassSummary, findings: Sequence[Finding]) -> ClassSummary:
    """A class that failed only by what is waived is no FAIL any more."""
    if one.verdict is not Verdict.FAIL:
        return one
    gating = [f for f in findings if f.verdict is Severity.FAIL and f.kpi != EXPECTATION]
    waived = [f for f in findings if f.verdict is Severity.WARN and f.effect.startswith("waived until ")]
    mine = [f for f in waived if f.subject == one.flow_class or f.scope is Scope.FLOW]
    still = any(f.subject == one.flow_class or f.scope is not Scope.CLASS for f in gating)
    return replace(one, verdict=Verdict.PASS) if mine and not still else one


def _shares(
    flows: pd.DataFrame, kpis: pd.DataFrame, records: Sequence[Mapping[str, object]]
) -> dict[str, tuple[float, float]]:
    """By class, the share of these flows that ended as captured, before and after."""
    of = dict(zip(flows["flow_id"].tolist(), flows["flow_class"].tolist(), strict=True))
    part = kpis[kpis["flow_id"].isin(list(of))]
    names = part["flow_id"].map(of)
    means = [
        part["as_expected"][part["window"].isin(windows)].astype(float).groupby(names).mean()
        for windows in sides(records)
    ]
    return {str(name): (float(means[0].get(name, NAN)), float(means[1].get(name, NAN))) for name in set(of.values())}
