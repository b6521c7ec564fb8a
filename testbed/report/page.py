"""What the page shows, read from the files of a run directory.

May not know HTML. A run that lacks a table or `run.json` still has a page; only `verdict.json` must be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.compare import deviation_percent
from analysis.disposition import AS_EXPECTED
from analysis.kpi import KPIS
from analysis.words import kpi_label, percent, quantity
from testbed.advice import next_steps
from testbed.report.diff import Hunk, hunk_around, hunk_of_lines
from testbed.report.effect_rows import x_of
from testbed.report.flow_rows import FlowRow, flow_names, flow_rows
from testbed.report.paired import PairedPage, certain, headline, is_flaky, is_triage, paired_page
from testbed.report.preflight_rows import PreflightTable, preflight_table
from testbed.report.timeline import Timeline, timeline
from testbed.store import RunDirectory
from testbed.verdict_file import FindingEntry, KpiEntry, VerdictFile, number, read_verdict

DIFF = "change.diff"
_LABELS: Mapping[str, str] = {AS_EXPECTED.name: "ends as captured"}
_STEPS = ("validate", "build", "converge", "preflight", "replay", "judge", "report", "teardown")


@dataclass(frozen=True, slots=True)
class Cause:
    """A culprit with the part of the change it stands in, and the findings it explains."""

    finding: FindingEntry
    hunk: Hunk | None
    explains: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One KPI of one class, in words; `worse` is None where nothing moved enough to be coloured."""

    before: str
    after: str
    deviation: str
    mark: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class with its KPIs in the order of the table's columns; None where it was not measured."""

    name: str
    priority: str
    flows: int
    verdict: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the run, its seconds and its share of the whole in percent."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the template needs."""

    verdict: VerdictFile
    headline: str
    steps_to_take: tuple[str, ...]
    paired: PairedPage | None
    causes: tuple[Cause, ...]
    findings: tuple[FindingEntry, ...]
    notes: tuple[FindingEntry, ...]
    flows: tuple[FlowRow, ...]
    flows_left_out: int
    columns: tuple[str, ...]
    classes: tuple[ClassRow, ...]
    preflight: PreflightTable | None
    timeline: Timeline
    noise: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    inputs: tuple[tuple[str, str], ...]
    way_back: tuple[str, ...]
    """Files of the run directory that hold the inverse change, for production."""
    zero_x: float = x_of(0.0)
    limit_x: float = x_of(1.0)


def read_page(run: Path, judged_again: VerdictFile | None = None) -> Page:
    """Gather the page; FileNotFoundError without a `verdict.json`, pydantic.ValidationError when it is none.

    `judged_again` stands in the place of the run's own verdict.
    """
    directory = RunDirectory(run)
    verdict = read_verdict(run) if judged_again is None else judged_again
    rows, left_out = flow_rows(directory, verdict)
    names = flow_names(directory, _flows_named(verdict))
    paired = paired_page(verdict, lambda flow: names.get(flow, flow))
    findings, notes = _findings(verdict)
    columns = tuple(name for name in (AS_EXPECTED.name, *KPIS) if any(name in one.kpis for one in verdict.classes))
    return Page(
        verdict=verdict,
        headline=headline(verdict),
        steps_to_take=next_steps(verdict),
        paired=paired,
        causes=_causes(directory, verdict),
        findings=findings,
        notes=notes,
        flows=rows,
        flows_left_out=left_out,
        columns=tuple(_LABELS.get(name, kpi_label(name)) for name in columns),
        classes=tuple(
            ClassRow(
                one.flow_class,
                one.priority,
                one.flows,
                one.verdict,
                tuple(_cell(one.kpis.get(name), name) for name in columns),
            )
            for one in verdict.classes
        ),
        preflight=preflight_table(directory, verdict),
        timeline=timeline(verdict.windows),
        noise=tuple(
            (_LABELS.get(name, kpi_label(name)), f"{number(share):.1f} %")
            for name, share in verdict.instrument.noise_percent.items()
        ),
        steps=_steps(verdict),
        inputs=_inputs(directory),
        way_back=_way_back(run),
    )


def _findings(verdict: VerdictFile) -> tuple[tuple[FindingEntry, ...], tuple[FindingEntry, ...]]:
    """What gates and the notes; in pairs without those that have a section of their own."""
    notes = tuple(finding for finding in verdict.findings if finding.verdict == "INFO")
    if verdict.paired is None:
        return tuple(finding for finding in verdict.findings if finding.verdict != "INFO"), notes
    return certain(verdict.findings), tuple(one for one in notes if not is_triage(one) and not is_flaky(one))


def _flows_named(verdict: VerdictFile) -> frozenset[str]:
    """The flows that sections about pairs name one by one."""
    if verdict.paired is None:
        return frozenset()
    entry = verdict.paired
    flaky = (flow for finding in verdict.findings if is_flaky(finding) for flow in finding.flows)
    effects = (one.subject for one in entry.effects if one.scope == "flow")
    return frozenset([*flaky, *effects, *(s.flow_id for s in entry.suspects), *(o.flow_id for o in entry.odd)])


def _way_back(run: Path) -> tuple[str, ...]:
    below = run / "rollback"
    return tuple(path.relative_to(run).as_posix() for path in sorted(below.rglob("*")) if path.is_file())


def _causes(directory: RunDirectory, verdict: VerdictFile) -> tuple[Cause, ...]:
    try:
        diff = (directory.path / DIFF).read_text("utf-8", "backslashreplace")
    except FileNotFoundError:
        diff = ""
    causes = []
    for finding in verdict.blamed:
        blame = finding.blame
        assert blame is not None
        hunk = None
        if blame.file is not None and blame.line is not None:
            lines = [line for line in verdict.change.lines if line.node == blame.node]
            hunk = hunk_around(diff, blame.node, blame.file, blame.line) or hunk_of_lines(lines, blame.file, blame.line)
        explains = sum(
            1
            for other in verdict.findings
            if other.blame is not None
            and (other.blame.node, other.blame.object, other.blame.line) == (blame.node, blame.object, blame.line)
        )
        causes.append(Cause(finding, hunk, explains))
    return tuple(causes)


def _cell(entry: KpiEntry | None, name: str) -> Cell | None:
    if entry is None:
        return None
    before, after = number(entry.before), number(entry.after)
    deviation = deviation_percent(after, before)
    kpi = KPIS.get(name, AS_EXPECTED)
    worse = kpi.worsening(after, before)
    mark = ""
    if worse > kpi.tolerance.threshold(before):
        mark = "worse"
    elif -worse > kpi.tolerance.threshold(before):
        mark = "better"
    return Cell(quantity(before, entry.unit), quantity(after, entry.unit), percent(before, after, deviation), mark)


def _steps(verdict: VerdictFile) -> tuple[Step, ...]:
    times = [(name, getattr(verdict.timings, f"{name}_s") or 0.0) for name in _STEPS]
    total = sum(seconds for _, seconds in times)
    return tuple(Step(name, seconds, 100 * seconds / total) for name, seconds in times if total and seconds)


def _inputs(directory: RunDirectory) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(_flat(directory.read_json("run.json"), ""))
    except FileNotFoundError:
        return ()


def _flat(value: object, name: str) -> Sequence[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [row for key, part in value.items() for row in _flat(part, f"{name} / {key}" if name else str(key))]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(str(part) for part in value))]
    return [(name, "" if value is None else re.sub(r"\s+", " ", str(value)))]
