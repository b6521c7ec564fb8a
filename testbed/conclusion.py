"""From what was measured to verdict.json: judge, blame, and put it all into one document.

It knows no shadow: tables and records in, a document out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Protocol

import pandas as pd

from analysis.judge import Judgement, judge
from analysis.kpi import Tolerance, Tolerances
from analysis.pairs.design import FLOOR
from analysis.verdict import Blame, Finding, Scope, Severity, Verdict, finding_id
from analysis.window import Role, summary
from testbed.attribution import blamed
from testbed.change.apply import Refusal
from testbed.change.model import Change
from testbed.expectations.matching import bounds_by_class
from testbed.expectations.model import Expectations
from testbed.expectations.weighed import Weighed
from testbed.pairs.judged import Paired
from testbed.policy import Policy
from testbed.prepare import Case
from testbed.verdict_file import VerdictFile
from topologies.load import Lab

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Rollback:
    """Whether the change was taken back and the network was then as before, None where that could not be told."""

    done: bool
    restored: bool | None
    detail: str

    def to_json(self) -> dict[str, object]:
        """As in verdict.json."""
        return {"done": self.done, "restored": self.restored, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Played:
    """All windows' tables and records, what the judge of pairs said, every class's share, and flows that had none."""

    kpis: pd.DataFrame
    records: Sequence[Mapping[str, object]]
    paired: Paired | None = None
    sampled: Sequence[Mapping[str, object]] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    expectations: Sequence[Mapping[str, object]] = ()


class Tried(Protocol):
    """What a verdict is about, whether it is being run or was read from a run directory."""

    @property
    def lab(self) -> Lab:
        """The lab."""
        ...

    @property
    def change(self) -> Change:
        """The change."""
        ...

    @property
    def policy(self) -> Policy:
        """What is tolerated."""
        ...

    @property
    def flows(self) -> pd.DataFrame:
        """The flows with class and priority."""
        ...

    @property
    def expectations(self) -> Expectations:
        """What it is expected to do."""
        ...


def tolerances(case: Tried) -> Tolerances:
    """The policy's tolerances as the judge takes them, and what is expected of classes in their place."""
    by_kpi = {name: Tolerance(t.relative, t.absolute) for name, t in case.policy.tolerances.items()}
    return Tolerances(by_kpi, bounds_by_class(case.flows, case.expectations.intents))


def weighed(
    case: Tried, kpis: pd.DataFrame, records: Sequence[Mapping[str, object]], dispositions: pd.DataFrame
) -> Weighed:
    """What is expected, held against windows and the preflight's table; either may be empty."""
    return Weighed.of(case.expectations, case.lab.topology, case.flows, kpis, records, dispositions)


def judged(
    case: Tried,
    kpis: pd.DataFrame,
    counters: pd.DataFrame,
    records: Sequence[Mapping[str, object]],
    flows: pd.DataFrame | None = None,
) -> Judgement:
    """The judgement of windows in a row, with culprits; of these flows, where not of all."""
    asked = case.flows if flows is None else flows
    return blamed_on(case, judge(kpis, asked, tolerances(case), records), kpis, counters)


def blamed_on(case: Tried, found: Judgement, kpis: pd.DataFrame, counters: pd.DataFrame) -> Judgement:
    """The judgement, with a culprit named for what it rests on: a mere suspicion in a PASS has none."""
    paths, later = (_ways(kpis, role) for role in (Role.BASELINE, Role.TREATMENT))
    decisive = {Verdict.PASS: None, Verdict.INCONCLUSIVE: Severity.WARN, Verdict.FAIL: Severity.FAIL}[found.verdict]
    asked = [finding for finding in found.findings if finding.verdict is decisive]
    answered = {f.finding_id: f for f in blamed(asked, case.change, case.lab, counters, case.flows, paths, later)}
    findings = tuple(answered.get(finding.finding_id, finding) for finding in found.findings)
    return replace(found, findings=findings)


def _ways(kpis: pd.DataFrame, role: Role) -> dict[str, tuple[str, ...]]:
    """Every flow's nodes in the last window of a role."""
    own = kpis[kpis["role"] == role.value].drop_duplicates("flow_id", keep="last")
    return {flow: tuple(path.split(">")) for flow, path in zip(own["flow_id"], own["path"], strict=True)}


def refused(case: Case, refusals: Sequence[Refusal]) -> Judgement:
    """A change that the daemons' own checkers do not take fails before any traffic."""
    findings = []
    for refusal in refusals:
        complaint = refusal.complaint
        file = f"configs/{refusal.node}/{complaint.file}"
        text = _line_of(case.change, refusal.node, complaint.file, complaint.line)
        said = f"{refusal.node} refuses {file}: {complaint.message}"
        blame = Blame(refusal.node, complaint.file, file, complaint.line, text, (complaint.message,), "checker")
        findings.append(_network_finding("syntax", said, blame))
    return Judgement(Verdict.FAIL, findings[0].effect, tuple(findings), (), {})


def not_applied(case: Case, problem: str) -> Judgement:
    """A change that passed the checkers but could not be put in force."""
    line = case.change.lines[0] if len(case.change.lines) == 1 else None
    blame = None
    if line is not None:
        blame = Blame(line.node, line.file.rsplit("/", 1)[-1], line.file, line.line, line.text, (problem,), "checker")
    finding = _network_finding("apply", f"the change could not be put in force: {problem}", blame)
    return Judgement(Verdict.FAIL, finding.effect, (finding,), (), {})


def document(
    case: Tried,
    run_id: str,
    created: str,
    judgement: Judgement,
    rollback: Rollback,
    played: Played,
    timings: Mapping[str, float],
) -> VerdictFile:
    """verdict.json as a validated document, of schema 2 where pairs were played or meant to be."""
    change = case.change
    expected = change.expected.verdict if change.expected else None
    return VerdictFile.model_validate(
        {
            "schema": 1 if played.paired is None else 2,
            "verdict": judgement.verdict.name,
            "reason": judgement.reason,
            "expected": expected,
            "lab": case.lab.name,
            "run_id": run_id,
            "created": created,
            "change": {
                "name": change.name,
                "source": str(change.source),
                "lines": [
                    {"node": x.node, "file": x.file, "line": x.line, "sign": x.sign, "text": x.text}
                    for x in change.lines
                ],
            },
            "findings": [finding.to_json() for finding in judgement.findings],
            "rollback": rollback.to_json(),
            "instrument": _instrument(judgement, played.records, played.paired),
            "windows": _windows(played.kpis, played.records) if len(played.kpis) else [],
            "paired": None if played.paired is None else played.paired.entry(),
            "classes": [each.to_json() for each in judgement.classes],
            "sampled": list(played.sampled),
            "left_out": dict(played.left_out),
            "expectations": list(played.expectations),
            "timings": {name: round(value, 3) for name, value in timings.items()},
        }
    )


def _windows(kpis: pd.DataFrame, records: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    places = {r["window"]: {"arm": r["arm"] or None, "pair": r["pair"] if r["arm"] else None} for r in records}
    return [{**row, **places[row["window"]]} for row in summary(kpis, records)]


def _instrument(
    judgement: Judgement, records: Sequence[Mapping[str, object]], paired: Paired | None
) -> dict[str, object]:
    counted = [r for r in records if r["role"] in (Role.BASELINE.value, Role.TREATMENT.value)]
    bad = [r for r in counted if not r["valid"]]
    if paired is not None and paired.found.pairs >= FLOOR:
        # a window that does not count costs a pair, and enough are left
        bad = [{"reason": reason} for reason in paired.found.invalid]

    def middle(name: str) -> float:
        return float(median(float(str(r[name])) for r in counted)) if counted else NAN

    return {
        "valid": bool(counted) and not bad,
        "reason": str(bad[0]["reason"]) if bad else ("" if counted else "nothing was replayed"),
        "lateness_p50_us": middle("lateness_p50_us"),
        "lateness_p99_us": middle("lateness_p99_us"),
        "capture_drops": sum(int(str(r["capture_drops"])) for r in counted),
        "offered": sum(int(str(r["offered"])) for r in counted),
        "sent": sum(int(str(r["sent"])) for r in counted),
        "realtime": bool(counted) and all(bool(r["realtime"]) for r in counted),
        "lateness_max_us": max((float(str(r["lateness_max_us"])) for r in counted), default=NAN),
        "reaction_p99_us": middle("reaction_p99_us"),
        "player_cpu_percent": middle("player_cpu_percent"),
        "player_waited_percent": middle("player_waited_percent"),
        "cpu_pressure_percent": middle("cpu_pressure_percent"),
        "send_blocked": sum(int(str(r["send_blocked"])) for r in counted),
        "udp_receive_drops": sum(int(str(r["udp_receive_drops"])) for r in counted),
        "listen_drops": sum(int(str(r["listen_drops"])) for r in counted),
        "shards": max((int(str(r["shards"])) for r in counted), default=1),
        "link_engine": str(counted[0]["link_engine"]) if counted else "none",
        "link_excess_p50_us": middle("link_excess_p50_us"),
        "link_excess_p99_us": middle("link_excess_p99_us"),
        "link_overflowed": sum(int(str(r["link_overflowed"])) for r in counted),
        "link_seeded": all(bool(r["link_seeded"]) for r in counted),
        "noise_percent": dict(judgement.noise_percent),
    }


def _network_finding(kpi: str, effect: str, blame: Blame | None) -> Finding:
    return Finding(
        finding_id=finding_id("network", kpi, effect),
        scope=Scope.NETWORK,
        subject="network",
        kpi=kpi,
        before=NAN,
        after=NAN,
        unit="",
        deviation_percent=NAN,
        effect=effect,
        priority="critical",
        verdict=Severity.FAIL,
        blame=blame,
    )


def _line_of(change: Change, node: str, file: str, line: int | None) -> str:
    content = change.after.get((node, file), b"").decode(errors="replace").splitlines()
    return content[line - 1] if line and 0 < line <= len(content) else ""
