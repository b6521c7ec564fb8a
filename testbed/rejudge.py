"""A run judged again from its directory alone: the same windows, another policy or other expectations, no replay.

It starts nothing.  What the run found out (who answered, what was measured, whether the change was taken back) stays;
what is made of it is made anew, by the very functions that judged the run.  With the run's own policy that gives the
bytes of its own verdict.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.judge import Judgement, judge_restored
from analysis.pairs.judge import PairJudgement
from analysis.reach import CLASS
from analysis.verdict import Json, Verdict
from analysis.window import InvalidTable, Role
from replay.flow_priority import OTHER_CLASS, classified
from replay.kpis import KPI_COLUMNS
from testbed.conclusion import Played, Rollback, blamed_on, document, judged, tolerances, weighed
from testbed.counters import COLUMNS as COUNTER_COLUMNS
from testbed.errors import InvalidInput
from testbed.expectations.file import read_expectations
from testbed.expectations.matching import parted
from testbed.flow_rules import flow_rule
from testbed.measured_record import MeasuredRecord, Planned, read_measured, read_part
from testbed.pairs.judged import Paired, judged_pairs, smallest
from testbed.pairs.judged import restored as restored_by_pairs
from testbed.policy import Policy, read_policy, tagged
from testbed.preflight.judged import Preflown, Seen, alone, joined, judged_answers
from testbed.store import RunDirectory
from testbed.stored import read_document
from testbed.trace.witnessed import NAME as TRACED
from testbed.trace.witnessed import Testimony, read_testimony, witnessed
from testbed.tried_record import TriedRecord, read_tried
from testbed.verdict_file import NAME, VerdictFile

OF_A_RUN = "a file that a run wrote"
FLOW_COLUMNS = (
    "flow_id",
    "protocol",
    "source_address",
    "source_port",
    "destination_address",
    "destination_port",
    "outcome",
    "application",
    "label",
    "flow_class",
    "priority",
)
"""What judging and blame read of the flow table."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """All that a run directory holds of a run that came to a verdict; `first` is that verdict."""

    directory: RunDirectory
    first: VerdictFile
    tried: TriedRecord
    measured: MeasuredRecord
    kpis: pd.DataFrame
    counters: pd.DataFrame
    testimony: Testimony | None

    @property
    def records(self) -> Sequence[Mapping[str, object]]:
        """The instrument's records of all windows."""
        return self.measured.windows


@dataclass(frozen=True, slots=True)
class Rejudged:
    """The new verdict, and every effect of a run in pairs (None of one in a row)."""

    verdict: VerdictFile
    effects: pd.DataFrame | None


def read_run(path: Path) -> StoredRun:
    """Everything that a verdict rests on; InvalidInput for a directory that lacks it or has something else."""
    directory = RunDirectory(path.absolute())
    first = _first(directory)
    flows = read_part(directory, "flows", FLOW_COLUMNS)
    measured = read_measured(directory)
    tried = read_tried(directory, flows)
    try:
        testimony = read_testimony(directory)
    except ValueError as problem:
        raise InvalidInput(directory.path / TRACED, 1, 1, str(problem), OF_A_RUN) from None
    windows = [int(str(record["window"])) for record in measured.windows]
    kpis = [read_part(directory, "kpis", (*KPI_COLUMNS, "path", "arm", "pair"), window) for window in windows]
    counters = [read_part(directory, "counters", COUNTER_COLUMNS, window) for window in windows]
    for window, table in enumerate(kpis):
        if not table.empty and set(table["window"].tolist()) != {window}:
            found = f"windows {sorted(set(table['window'].tolist()))[:8]}"
            raise InvalidInput(directory.path / f"kpis/{window:05}.parquet", 1, 1, found, f"window {window} alone")
    return StoredRun(
        directory,
        first,
        tried,
        measured,
        pd.concat(kpis, ignore_index=True) if kpis else pd.DataFrame(),
        pd.concat(counters, ignore_index=True) if counters else pd.DataFrame(columns=COUNTER_COLUMNS),
        testimony,
    )


def under(run: StoredRun, policy: Path | None, expect: Path | None) -> StoredRun:
    """The run as it is seen by another policy or with other expectations; InvalidInput for a file with a mistake.

    How long a flow was waited for and how many windows were played is as it was, whatever a policy says of it.  What
    was declared stays declared unless `expect` says otherwise.
    """
    if policy is None and expect is None:
        return run
    tried, topology = run.tried, run.tried.lab.topology
    rules = tried.policy if policy is None else tagged(read_policy(policy), policy, topology)
    expectations = tried.expectations
    if expect is not None:
        known = [rule.name for rule in rules.classes]
        expectations = read_expectations(expect, topology, known, expectations.today)
    flows = classified(tried.flows, [flow_rule(rule) for rule in rules.classes])
    flows = parted(flows, expectations.intents)
    seen = run.measured.seen
    return replace(
        run,
        tried=replace(tried, policy=rules, expectations=expectations, flows=flows),
        measured=replace(run.measured, seen=None if seen is None else _seen_by(seen, rules, flows)),
    )


def rejudged(run: StoredRun) -> Rejudged:
    """Judge a stored run by its policy and expectations; InvalidInput where the tables do not fit each other."""
    try:
        return _rejudged(run)
    except InvalidTable as problem:
        raise InvalidInput(run.directory.path, 1, 1, str(problem), "the tables of one run") from None


def _rejudged(run: StoredRun) -> Rejudged:
    tried, measured, first = run.tried, run.measured, run.first
    flown = None if measured.seen is None else judged_answers(tried, measured.seen)
    # what was measured when the verdict was reached: the restored windows came later
    during = [record for record in run.records if record["role"] != Role.RESTORED.value]
    windows = [record["window"] for record in during]
    kpis = run.kpis[run.kpis["window"].isin(windows)] if len(run.kpis) else run.kpis
    counters = run.counters[run.counters["window"].isin(windows)]
    held = weighed(tried, kpis, during, pd.DataFrame() if flown is None else flown.table)
    paired = _paired(run, kpis, during, held.rest) if measured.in_pairs and measured.windows else None
    judgement = _judged(run, kpis, counters, during, held.rest, paired, flown)
    judgement, expected = held.applied(judgement)
    judgement = replace(judgement, findings=witnessed(judgement.findings, run.testimony))
    text = document(
        tried,
        first.run_id,
        first.created,
        judgement,
        _rollback(run),
        Played(
            run.kpis,
            run.records,
            paired,
            [share.model_dump(mode="json", by_alias=True) for share in first.sampled],
            first.left_out,
            expected,
        ),
        {name: value for name, value in first.timings.model_dump().items() if value is not None},
    )
    if flown is not None:
        text = text.model_copy(update={"preflight": flown.entry()})
    return Rejudged(text, None if paired is None else paired.effects())


def _judged(
    run: StoredRun,
    kpis: pd.DataFrame,
    counters: pd.DataFrame,
    records: Sequence[Mapping[str, object]],
    flows: pd.DataFrame,
    paired: Paired | None,
    flown: Preflown | None,
) -> Judgement:
    """As the run came to its judgement: refused, by the preflight alone, by pairs, or by windows in a row."""
    refused = run.measured.ending.refused
    if refused:
        return Judgement(Verdict.FAIL, refused[0].effect, refused, (), {})
    if run.measured.preflight_only:
        if flown is None:
            raise InvalidInput(run.directory.path, 1, 1, "a run without windows and preflight", OF_A_RUN)
        return alone(flown)
    if kpis.empty:
        raise InvalidInput(run.directory.path / "kpis", 1, 1, "no window", "the windows that the run played")
    if paired is None:
        judgement = judged(run.tried, kpis, counters, records, flows)
    else:
        judgement = blamed_on(run.tried, paired.judgement, kpis, counters)
    return judgement if flown is None else joined(judgement, flown)


def _paired(run: StoredRun, kpis: pd.DataFrame, records: Sequence[Mapping[str, object]], rest: pd.DataFrame) -> Paired:
    """The pairs judged again, and what they would have found by the windows before them."""
    planned, tried, seed = run.measured.planned or Planned(0, None, "no pair was planned"), run.tried, run.measured.seed
    asked = tolerances(tried)
    told: tuple[Mapping[str, Json], ...] = ()
    found = PairJudgement(Verdict.INCONCLUSIVE, planned.reason or "no pair of windows was played", (), (), {})
    if planned.asked:
        before = [record for record in records if not record["arm"]]
        early = kpis[kpis["window"].isin([record["window"] for record in before])]
        told = tuple(one.to_json() for one in smallest(early, tried.flows, asked, before, planned.asked, seed))
        if not run.measured.ending.refused:
            found = judged_pairs(kpis, rest, asked, records, seed)
    return Paired(found, planned.asked, planned.budget_s, told)


def _rollback(run: StoredRun) -> Rollback:
    """Whether the network was as before: by this policy's tolerances, where windows were played after the rollback."""
    was = run.first.rollback
    tries = run.measured.ending.restored_tries
    if not was.done or not tries or run.measured.preflight_only:
        return Rollback(was.done, was.restored, was.detail)
    asked = run.kpis, run.tried.flows, tolerances(run.tried), run.records
    told = restored_by_pairs(*asked, last_only=tries > 1) if run.measured.in_pairs else judge_restored(*asked)
    return Rollback(True, *told)


def _seen_by(seen: Seen, policy: Policy, flows: pd.DataFrame) -> Seen:
    """The probes in the classes of another policy: those of captured flows with their flows, the others by address."""
    table, rules = seen.table, [flow_rule(rule) for rule in policy.classes]
    told = classified(table.assign(application="", label=""), rules)
    known = {rule.name: rule.priority for rule in policy.classes}
    own = ("flow_id", "flow_class", "priority")
    of = {flow: (name, priority) for flow, name, priority in zip(*(flows[c].tolist() for c in own), strict=True)}
    classes: list[tuple[str, str]] = []
    rows = zip(*(table[c].tolist() for c in ("kind", "flow_class")), told["flow_class"], told["priority"], strict=True)
    for stood, (kind, was, name, priority) in zip(seen.stood, rows, strict=True):
        captured = [of[flow] for flow in stood.members if flow in of] if kind == CLASS else []
        # behind a translation only the survey knew a class
        hidden = [(was, known[was])] if name == OTHER_CLASS and was in known else []
        classes.append([*captured, *hidden, (name, priority)][0])
    wanted = classified(table.assign(application="", label=""), [flow_rule(rule) for rule in policy.expected])
    names = pd.DataFrame(classes, columns=["flow_class", "priority"], index=table.index, dtype="str")
    found = table.assign(
        flow_class=names["flow_class"],
        priority=names["priority"],
        wanted=(wanted["flow_class"] != OTHER_CLASS).to_numpy(),
    )
    return replace(seen, table=found)


def _first(directory: RunDirectory) -> VerdictFile:
    path = directory.path / NAME
    try:
        return read_document(path, VerdictFile, "the verdict of a run")
    except OSError:
        raise InvalidInput(path, 1, 1, "no such file", "a run that came to a verdict") from None
