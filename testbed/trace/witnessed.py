"""What the trace of one flow adds to a blame: where it ended before and with the change, by which line, as evidence.

Pure apart from reading its own file. Knows journeys and findings, no shadow: a stored trace tells the same again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, ValidationError

from analysis.verdict import Blame, Finding, Severity
from testbed.attribution.blame import TOLD
from testbed.store import RunDirectory
from testbed.trace.journey import Decision, End, Ended, Journey, Trace, end_text

NAME = "traced.json"
GUESSES = frozenset({"", "diff"})


class Witnessed(BaseModel):
    """A line that the trace shows to have decided; `in_change` tells the change's own from one that was there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str
    object: str
    file: str
    line: int
    text: str
    in_change: bool


class Testimony(BaseModel):
    """What one traced flow tells: sentences for people, and the lines that decided, the change's own first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flow_id: str
    flow_class: str
    sentences: tuple[str, ...]
    decided: tuple[Witnessed, ...] = ()

    def speaks_for(self, finding: Finding) -> bool:
        """Whether the finding is about the traced flow or its class."""
        return self.flow_id in finding.flows or finding.subject in (self.flow_id, self.flow_class)


def testimony(trace: Trace) -> Testimony:
    """What a trace tells."""
    flow = trace.flow
    ends = f"{end_text(flow.source, flow.source_port)} → {end_text(flow.destination, flow.destination_port)}"
    said = [f"traced {ends}: before the change {_ended(trace.before)}; with it {_ended(trace.after)}"]
    if trace.parting is not None:
        part = trace.parting
        said.append(f"traced: the ways part at {part.node} ({part.what}): {part.before} → {part.after}")
    known = _decided(trace.before) | _decided(trace.after)
    lines = [
        Witnessed(
            node=one.node, object=one.object, file=one.file, line=one.line, text=one.text, in_change=one.in_change
        )
        for one in trace.culprits
        if one.line is not None and (one.node, one.file, one.line) in known
    ]
    said += [
        f'traced: not part of the change: {one.file}:{one.line} "{one.text}"' for one in lines if not one.in_change
    ]
    return Testimony(
        flow_id=flow.flow_id, flow_class=flow.flow_class, sentences=tuple(said), decided=tuple(_worth(lines, trace))
    )


def witnessed(findings: Sequence[Finding], told: Testimony | None) -> tuple[Finding, ...]:
    """The findings, with what the trace adds to the blame of those that it speaks for.

    What only the change suggests, or nobody, gives way to a line of the change that the trace shows to have decided. A
    line that was there before is blamed where nobody else is; beside a line of the change it is evidence.
    """
    if told is None:
        return tuple(findings)
    return tuple(
        finding.with_blame(blame)
        if finding.verdict is Severity.FAIL and told.speaks_for(finding) and (blame := _blame(finding.blame, told))
        else finding
        for finding in findings
    )


def read_testimony(run: RunDirectory) -> Testimony | None:
    """What the trace of a run told; None where there was none. Raises ValueError for a file that is none of ours."""
    try:
        stored = run.read_json(NAME)
    except FileNotFoundError:
        return None
    try:
        return Testimony.model_validate(stored["told"])
    except (KeyError, TypeError, ValidationError) as problem:
        raise ValueError(f"{NAME}: no testimony of a trace ({problem})") from None


def _blame(blame: Blame | None, told: Testimony) -> Blame | None:
    same = next((one for one in told.decided if blame is not None and _at(blame, one)), None)
    if blame is not None and (same is not None or blame.decided_by not in GUESSES):
        held = "trace" if same is not None else blame.decided_by
        return replace(blame, evidence=_evidence(blame.evidence, told), decided_by=held)
    best = told.decided[0] if told.decided else None
    if best is not None and (best.in_change or blame is None or not blame.in_change):
        earlier = () if blame is None else blame.evidence
        also = () if blame is None else (f"the change alone would suggest {blame.file}:{blame.line}",)
        evidence = (*told.sentences, *also, *earlier)[:TOLD]
        return Blame(best.node, best.object, best.file, best.line, best.text, evidence, "trace", best.in_change)
    return None if blame is None else replace(blame, evidence=_evidence(blame.evidence, told))


def _evidence(own: Sequence[str], told: Testimony) -> tuple[str, ...]:
    """What was told first stays first; the trace is never left out for the tail of it."""
    return (*own[: TOLD - len(told.sentences)], *told.sentences)


def _at(blame: Blame, one: Witnessed) -> bool:
    return (blame.node, blame.file, blame.line) == (one.node, one.file, one.line)


def _worth(lines: Sequence[Witnessed], trace: Trace) -> list[Witnessed]:
    """Lines that decided how the flow ended or went; of two journeys that end alike only the change's own."""
    alike = trace.before.end.how is trace.after.end.how
    return [one for one in lines if one.in_change or not alike]


def _decided(journey: Journey) -> set[tuple[str, str, int]]:
    """(node, file, line) of everything that decided on a journey."""
    made = [d for leg in journey.legs for hop in leg.hops for d in hop.decisions]
    made += [journey.end.decision] if journey.end.decision is not None else []
    return {(d.node, f"configs/{d.node}/{d.file}", d.line) for d in made if d.file and d.line is not None}


def _ended(journey: Journey) -> str:
    end: End = journey.end
    if end.how is Ended.DELIVERED and journey.kpis.get("completed") is not False:
        return f"delivered to {end.node}"
    where = f"{end.how.value} at {end.node}" + (f":{end.interface}" if end.interface else "")
    return f"{where} ({_why(end.decision) or end.reason})" if end.decision or end.reason else where


def _why(one: Decision | None) -> str:
    if one is None:
        return ""
    place = f", configs/{one.node}/{one.place}" if one.line is not None else ""
    return f'{one.object} "{one.text}"{place}'
