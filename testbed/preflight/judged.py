"""Passes to words: the disposition table, findings with a culprit, and what of them a long replay leaves to say.

Tables in, findings out.  It knows no shadow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analysis.judge import Judgement
from analysis.reach import ACCEPTED, CLASS, CLOSED, COLUMNS, OPENED, Reach, as_production, judge_reach, news, with_twins
from analysis.verdict import Blame, Finding, Severity, Verdict, priority_rank
from replay.flow_priority import OTHER_CLASS, classified
from testbed.attribution import blamed
from testbed.attribution.suspect import where
from testbed.change.model import Line
from testbed.conclusion import Tried
from testbed.counters import COLUMNS as COUNTER_COLUMNS
from testbed.expectations.weighed import explained
from testbed.flow_rules import flow_rule
from testbed.preflight.passes import Answer, Pass
from testbed.preflight.probe import PROTOCOL_WORDS, Probe, Survey
from testbed.prepare import Case
from testbed.verdict_file import PreflightEntry

NOTHING = Answer("", "")
SEVERITIES = {"report": Severity.WARN, "fail": Severity.FAIL}


@dataclass(frozen=True, slots=True)
class Stood:
    """What a probe stood for: the flow_ids of its class, and the line of the change that it was made of."""

    probe_id: str
    members: tuple[str, ...]
    origin: Line | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the passes left to judge: the disposition table, what probes stood for, and the counters of both passes.

    `seconds` is how long the passes took, `left_out` how many probes more there would have been.
    """

    table: pd.DataFrame
    stood: tuple[Stood, ...]
    counters: pd.DataFrame
    seconds: float
    left_out: int


@dataclass(frozen=True, slots=True)
class Preflown:
    """What the preflight came to: what was seen, and its judgement with culprits."""

    seen: Seen
    reach: Reach
    findings: tuple[Finding, ...]

    @property
    def table(self) -> pd.DataFrame:
        """COLUMNS of analysis.reach."""
        return self.seen.table

    def entry(self) -> PreflightEntry:
        """`preflight` of verdict.json."""
        changed = [row for row in self.table.to_dict("records") if self.reach.changes[str(row["probe_id"])]]
        kinds = self.table["kind"]
        entry = {
            "classes": int((kinds == CLASS).sum()),
            "exposures": int((kinds != CLASS).sum()),
            "left_out": self.seen.left_out,
            "seconds": round(self.seen.seconds, 3),
            "as_production": self._as_production(),
            "changed": [
                {
                    "kind": row["kind"],
                    "change": self.reach.changes[str(row["probe_id"])],
                    "subject": row["subject"],
                    "flow_class": row["flow_class"],
                    "priority": row["priority"],
                    "flows": int(row["flows"]),
                    "source": str(row["source_address"]),
                    "destination": _end(row["destination_address"], row["destination_port"]),
                    "protocol": PROTOCOL_WORDS.get(int(row["protocol"]), str(row["protocol"])),
                    "expected": row["expected"] or None,
                    "before": row["before"],
                    "after": row["after"],
                    "restored": row["restored"] or None,
                    "wanted": bool(row["wanted"]),
                }
                for row in changed
            ],
        }
        return PreflightEntry.model_validate(entry)

    def _as_production(self) -> int:
        own = self.table[self.table["kind"] == CLASS]
        return sum(map(as_production, own["expected"].tolist(), own["before"].tolist()))


def preflown(case: Case, survey: Survey, passes: Mapping[str, Pass]) -> Preflown:
    """The table of all passes so far, judged and blamed; of a run that only has a first pass nothing is judged."""
    counted = [passes[role].counters for role in ("baseline", "treatment") if role in passes]
    seen = Seen(
        disposition_table(survey, passes),
        tuple(Stood(probe.probe_id, probe.members, probe.origin) for probe in survey.probes),
        pd.concat(counted, ignore_index=True) if counted else pd.DataFrame(columns=COUNTER_COLUMNS),
        sum(made.seconds for made in passes.values()),
        survey.left_out,
    )
    return judged_answers(case, seen)


def judged_answers(case: Tried, seen: Seen) -> Preflown:
    """What was seen, judged by the policy and blamed; pure, so that a stored run can be judged again."""
    seen = replace(seen, table=with_wanted(seen.table, case))
    reach = judge_reach(seen.table, SEVERITIES[case.policy.opened])
    return Preflown(seen, reach, _with_culprits(case, seen, reach))


def disposition_table(survey: Survey, passes: Mapping[str, Pass]) -> pd.DataFrame:
    """COLUMNS of analysis.reach, classes first; without a pass after the change `after` is empty."""
    rows = [_row(probe, passes) for probe in survey.probes]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict(COLUMNS))
    return with_twins(table)


def with_wanted(table: pd.DataFrame, case: Tried) -> pd.DataFrame:
    """The table with `wanted`: accesses that the policy expects to open, and changes that are declared."""
    expected = [flow_rule(rule) for rule in case.policy.expected]
    named = classified(table.assign(application="", label=""), expected)["flow_class"]
    opens = ((named != OTHER_CLASS) & (table["kind"] != CLASS) & (table["after"] == ACCEPTED)).to_numpy()
    return table.assign(wanted=opens | explained(table, case.expectations.intents))


def restored(passes: Mapping[str, Pass]) -> tuple[bool, str]:
    """Whether the pass after the rollback is like the one before the change, and a sentence that says so."""
    first, last = passes["baseline"].answers, passes["restored"].answers
    # a router tells few unreachables a second: whether one came is chance where nothing gets through anyway
    nothing_came = {"denied", "unanswered"}
    other = [
        probe
        for probe, answer in first.items()
        if answer.disposition != (again := last[probe].disposition) and not {answer.disposition, again} <= nothing_came
    ]
    if other:
        return False, f"{len(other)} of {len(first)} probes answered otherwise than before the change: {other[0]}"
    return True, f"all {len(first)} probes answered as before the change"


def joined(judgement: Judgement, flown: Preflown) -> Judgement:
    """The replay's judgement with what only the preflight saw; what the replay says itself is not said twice."""
    return with_findings(judgement, flown.findings)


def with_findings(judgement: Judgement, found: Sequence[Finding]) -> Judgement:
    """The same, of a preflight of which only the findings are left."""
    said = {flow for f in judgement.findings if f.verdict is not Severity.INFO for flow in f.flows}
    more = [f for f in found if not (f.flows and said.intersection(f.flows))]
    more = [f for f in more if f.verdict is not Severity.INFO or not f.flows]
    findings = sorted((*judgement.findings, *more), key=lambda f: (-f.verdict.value, priority_rank(f.priority)))
    failures = [f for f in more if f.verdict is Severity.FAIL]
    verdict, reason = judgement.verdict, judgement.reason
    if failures and verdict is not Verdict.FAIL:
        verdict, reason = Verdict.FAIL, failures[0].effect
    elif verdict is Verdict.PASS:
        reason += news(more)
    doubt = judgement.doubt or (judgement.reason if judgement.verdict is Verdict.INCONCLUSIVE else "")
    return replace(judgement, verdict=verdict, reason=reason, findings=tuple(findings), doubt=doubt)


def alone(flown: Preflown) -> Judgement:
    """The judgement of a run that was not replayed at length, which says so where it finds nothing."""
    blind = "; load and delays were not looked at" if flown.reach.verdict is Verdict.PASS else ""
    return Judgement(flown.reach.verdict, flown.reach.reason + blind, flown.findings, (), {}, flown.reach.doubt)


def _row(probe: Probe, passes: Mapping[str, Pass]) -> tuple[object, ...]:
    def answer(role: str) -> Answer:
        return passes[role].answers.get(probe.probe_id, NOTHING) if role in passes else NOTHING

    script, before, after = probe.script, answer("baseline"), answer("treatment")
    unsteady = any(probe.probe_id in made.unsteady for made in passes.values())
    closed = "treatment" not in passes or after.disposition != "accepted"
    way = passes["baseline" if closed else "treatment"].paths.get(probe.probe_id, "") if passes else ""
    return (
        probe.probe_id,
        probe.kind.value,
        probe.subject,
        probe.flow_class,
        probe.priority,
        probe.flows,
        script.protocol,
        *script.source,
        *script.target,
        script.source_node,
        probe.expected or "",
        before.disposition,
        after.disposition,
        answer("restored").disposition,
        before.error,
        after.error,
        unsteady,
        "" if probe.origin is None else where(probe.origin),
        False,
        way,
    )


def _with_culprits(case: Tried, seen: Seen, reach: Reach) -> tuple[Finding, ...]:
    """Blame by the same attribution as a replay's, over the counters of the passes; else the line that was probed."""
    if not reach.findings:
        return ()
    table = seen.table
    flows = table.rename(columns={"probe_id": "flow_id"}).assign(outcome=table["before"])
    paths = {str(p): tuple(str(w).split(">")) for p, w in zip(table["probe_id"], table["path"], strict=True) if w}
    asked = [replace(finding, flows=probes) for finding, probes in reach.findings]
    told = blamed(asked, case.change, case.lab, seen.counters, flows, paths)
    by_id = {stood.probe_id: stood for stood in seen.stood}
    return tuple(_finished(finding, [by_id[p] for p in finding.flows], reach) for finding in told)


def _finished(finding: Finding, probes: Sequence[Stood], reach: Reach) -> Finding:
    """The captured flows in the place of the probes, and a culprit where only the probe's origin names one."""
    flows = tuple(sorted(flow for probe in probes for flow in probe.members))
    origin = next((probe.origin for probe in probes if probe.origin is not None), None)
    moved = {reach.changes[probe.probe_id] for probe in probes} & {OPENED, CLOSED}
    if finding.blame is not None and origin is not None and origin.file.endswith("/haproxy.cfg") and moved:
        # of a new section the line that opens it
        finding = finding.with_blame(replace(finding.blame, file=origin.file, line=origin.line, text=origin.text))
    if finding.blame is None and origin is not None and moved and finding.verdict is not Severity.INFO:
        finding = finding.with_blame(_probed(origin, len(probes)))
    return replace(finding, flows=flows)


def _probed(line: Line, probes: int) -> Blame:
    said = f"{line.node}: {probes} of the probes that were made of this line are answered otherwise than before it"
    return Blame(line.node, line.file.rsplit("/", 1)[-1], line.file, line.line, line.text, (said,), "probe")


def _end(address: object, port: object) -> str:
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
