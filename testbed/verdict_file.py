"""`verdict.json`, version 1, or 2 where pairs of windows were played.

The one document that everything shown to people or machines is made from.

May not know how a verdict is reached or displayed. The schema is published beside this file as `verdict.schema.json`.
A version gains fields that have a default and loses none; what is renamed, goes or means something else makes a new
version, and older ones stay readable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME = "verdict.json"
SCHEMA_FILE = Path(__file__).with_name("verdict.schema.json")


def _carried(value: object) -> object:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


Number = Annotated[float | Literal["Infinity", "-Infinity"] | None, BeforeValidator(_carried)]
"""A number as JSON can carry it: null was not measured, "Infinity" is a delay of what never came."""
Priority = Literal["critical", "high", "normal", "low"]
VerdictWord = Literal["PASS", "INCONCLUSIVE", "FAIL"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChangedLine(_Part):
    """One line that the change adds or removes; numbered in the new file for "+", in the old one for "-"."""

    node: str
    file: str
    line: int
    sign: Literal["+", "-"]
    text: str


class ChangeEntry(_Part):
    """The change that was tried."""

    name: str
    source: str
    lines: tuple[ChangedLine, ...] = ()


KNOWN_BY = {
    "trace": "shown by the kernel's trace of one flow",
    "counters": "shown by counters before and after",
    "checker": "told by the node itself",
    "probe": "shown by a probe of this line",
    "diff": "a guess: no counter tells",
}
"""What stands for `decided_by` where people read."""


class BlameEntry(_Part):
    """The object that did it, the line it was written on, and evidence."""

    node: str
    object: str
    file: str | None = None
    line: int | None = None
    text: str = ""
    evidence: tuple[str, ...] = ()
    decided_by: Literal["", "trace", "counters", "checker", "probe", "diff"] = ""
    in_change: bool = True

    @property
    def known_by(self) -> str:
        """How it is known, for people, and that it is no line of the change; empty where an older run does not say."""
        told = KNOWN_BY.get(self.decided_by, "")
        return told if self.in_change else "; ".join(filter(None, ("not part of the change", told)))


class FindingEntry(_Part):
    """One judged effect."""

    finding_id: str
    scope: Literal["flow", "class", "network"]
    subject: str
    kpi: str
    before: Number = None
    after: Number = None
    unit: str
    deviation_percent: Number = None
    effect: str
    interval_low: Number = None
    interval_high: Number = None
    q_value: Number = None
    priority: Priority = "normal"
    verdict: Literal["FAIL", "WARN", "INFO"]
    flows: tuple[str, ...] = ()
    blame: BlameEntry | None = None


class RollbackEntry(_Part):
    """Whether the change was taken back, and whether the network then was as before."""

    done: bool
    restored: bool | None
    detail: str = ""


class InstrumentEntry(_Part):
    """The instrument's own error."""

    valid: bool
    reason: str = ""
    lateness_p50_us: Number = None
    lateness_p99_us: Number = None
    capture_drops: int = 0
    offered: int = 0
    sent: int = 0
    realtime: bool = False
    lateness_max_us: Number = None
    reaction_p99_us: Number = None
    player_cpu_percent: Number = None
    player_waited_percent: Number = None
    cpu_pressure_percent: Number = None
    send_blocked: int = 0
    udp_receive_drops: int = 0
    listen_drops: int = 0
    shards: int = 1
    link_engine: str = "none"
    link_excess_p50_us: Number = None
    link_excess_p99_us: Number = None
    link_overflowed: int = 0
    link_seeded: bool = True
    noise_percent: Mapping[str, Number] = Field(default_factory=dict)


class WindowEntry(_Part):
    """One window: its counts, and the network median of every KPI; `arm` and `pair` where it is one of a pair."""

    window: int
    role: Literal["warmup", "baseline", "transition", "treatment", "restored"]
    started: str | None = None
    seconds: Number = None
    flows: int
    completed: int
    as_expected: int
    kpis: Mapping[str, Number] = Field(default_factory=dict)
    arm: Literal["A", "B", "A'"] | None = None
    pair: int | None = None


class KpiEntry(_Part):
    """A class's median of one KPI before and after."""

    before: Number = None
    after: Number = None
    deviation_percent: Number = None
    unit: str


class ClassEntry(_Part):
    """What became of one class of flows."""

    flow_class: str
    priority: Priority = "normal"
    flows: int
    kpis: Mapping[str, KpiEntry] = Field(default_factory=dict)
    verdict: VerdictWord


class DispositionEntry(_Part):
    """A probe that is answered otherwise with the change; `kind` "class" stands for observed flows."""

    kind: Literal["class", "rule", "refused", "service", "declared"]
    change: Literal["closed", "opened", "differs"]
    subject: str
    flow_class: str
    priority: Priority = "normal"
    flows: int = 0
    source: str
    destination: str
    protocol: str
    expected: str | None = None
    before: str
    after: str
    restored: str | None = None
    wanted: bool = False


class PreflightEntry(_Part):
    """One flow of every class through the shadow before and after, and the accesses that the change may open.

    `as_production` counts the classes that the shadow treated, before the change, as production does.
    """

    classes: int
    exposures: int
    left_out: int = 0
    as_production: int = 0
    seconds: float
    changed: tuple[DispositionEntry, ...] = ()


class SampledEntry(_Part):
    """How much of one class was replayed where there was not room for every flow."""

    flow_class: str = Field(alias="class")
    priority: Priority = "normal"
    offered: int
    replayed: int

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class EffectEntry(_Part):
    """One KPI of one subject, A against B; the estimate and its interval are where the typical value comes to."""

    scope: Literal["flow", "class", "network"]
    subject: str
    kpi: str
    tail: bool
    priority: Priority = "normal"
    flows: int
    before: Number = None
    after: Number = None
    deviation_percent: Number = None
    baseline: Number = None
    estimate: Number = None
    interval_low: Number = None
    interval_high: Number = None
    limit: Number = None
    unit: str
    p_inferior: Number = None
    p_non_inferior: Number = None
    answer: Literal["inferior", "non_inferior", "undecided"]


class SuspectEntry(_Part):
    """A flow to look at first; it decides nothing."""

    flow_id: str
    kpi: str
    q_value: Number
    label: str


class OddEntry(_Part):
    """A flow whose KPIs together moved strangely; it decides nothing."""

    flow_id: str
    p_value: Number
    q_value: Number
    label: str


class SmallestEntry(_Part):
    """The smallest worsening that would be found four times out of five, as it was told before the pairs began."""

    kpi: str
    tail: bool
    scope: Literal["flow", "class", "network"]
    subject: str
    baseline: Number = None
    smallest_found: Number = None
    smallest_effect_percent: Number = None
    limit: Number = None
    unit: str


class LostEntry(_Part):
    """A window of a pair that did not count, and why."""

    window: int
    arm: Literal["A", "B", "A'"]
    pair: int
    reason: str


class PairedEntry(_Part):
    """Pairs of windows: how many were asked for and judged, and what the test says of classes and the network.

    Of single flows only those are here that are worse or in doubt; all are in `effects.parquet`. `invalid` says why
    the arms cannot be compared, `controlled` whether A' was held against A, `lost` which windows did not count.
    """

    asked: int
    budget_s: float | None = None
    pairs: int
    controlled: bool
    invalid: tuple[str, ...] = ()
    lost: tuple[LostEntry, ...] = ()
    effects: tuple[EffectEntry, ...] = ()
    suspects: tuple[SuspectEntry, ...] = ()
    odd: tuple[OddEntry, ...] = ()
    smallest: tuple[SmallestEntry, ...] = ()


class ExpectationEntry(_Part):
    """One declared change, or one waiver, and what became of it.

    `must` demands a change, `may` allows it, a waiver puts up with findings until it expires. Met: seen as declared,
    or in use; absent: allowed and not there, or not in use. `declared` and `evidence` are sentences.
    """

    kind: Literal["must", "may", "waiver"]
    name: str
    state: Literal["met", "not_met", "not_tested", "absent", "expired"]
    file: str
    line: int
    text: str = ""
    declared: str
    evidence: tuple[str, ...] = ()
    flows: tuple[str, ...] = ()
    probes: int = 0
    owner: str | None = None
    reason: str | None = None
    expires: str | None = None


class TimingsEntry(_Part):
    """How the wall time was spent, in seconds; null for a step that was not reached."""

    validate_s: float | None = None
    build_s: float | None = None
    converge_s: float | None = None
    calibrate_s: float | None = None
    preflight_s: float | None = None
    replay_s: float | None = None
    judge_s: float | None = None
    trace_s: float | None = None
    report_s: float | None = None
    teardown_s: float | None = None
    total_s: float | None = None


class VerdictFile(_Part):
    """The whole document; pydantic.ValidationError when something else is given."""

    version: Literal[1, 2] = Field(default=1, alias="schema")
    verdict: VerdictWord
    reason: str
    expected: VerdictWord | None = None
    lab: str
    run_id: str
    created: str
    change: ChangeEntry
    findings: tuple[FindingEntry, ...] = ()
    forecasts: tuple[Mapping[str, object], ...] = ()
    rollback: RollbackEntry
    instrument: InstrumentEntry
    windows: tuple[WindowEntry, ...] = ()
    classes: tuple[ClassEntry, ...] = ()
    preflight: PreflightEntry | None = None
    sampled: tuple[SampledEntry, ...] = ()
    left_out: Mapping[str, int] = Field(default_factory=dict)
    paired: PairedEntry | None = None
    expectations: tuple[ExpectationEntry, ...] = ()
    timings: TimingsEntry = TimingsEntry()

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def document(self) -> dict[str, object]:
        """The document as plain JSON values, for `RunDirectory.write_json("verdict.json", …)`."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def blamed(self) -> Sequence[FindingEntry]:
        """The findings that name a culprit, one a culprit, in the order of the findings."""
        seen: dict[tuple[object, ...], FindingEntry] = {}
        for finding in self.findings:
            if finding.blame is not None:
                culprit = finding.blame
                seen.setdefault((culprit.node, culprit.object, culprit.file, culprit.line), finding)
        return tuple(seen.values())


def read_verdict(run: Path) -> VerdictFile:
    """The verdict of a run directory; FileNotFoundError when there is none yet."""
    return VerdictFile.model_validate_json((run / NAME).read_bytes())


def number(value: float | str | None) -> float:
    """A Number of the document as a float again: null is NaN, "Infinity" is infinite."""
    return math.nan if value is None else float(value)


def schema_text() -> str:
    """The published JSON Schema (draft 2020-12) of this document."""
    schema = VerdictFile.model_json_schema(by_alias=True, mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
