"""What a verdict rests on besides the tables: the instrument's records, the seed, and what the preflight found.

Written as `measured.json` beside the tables, and read back for judging a run again.  It knows no judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from analysis.verdict import Blame, Finding, Scope, Severity
from testbed.errors import InvalidInput
from testbed.plan import Plan
from testbed.store import RunDirectory
from testbed.verdict_file import FindingEntry, number

NAME = "measured.json"
_KEPT = ("window", "role", "arm", "pair", "valid", "reason")


class _Record(BaseModel):
    """One window's record; what else the instrument told of it is kept as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    window: int
    role: str
    arm: str
    pair: int
    valid: bool
    reason: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    seed: int
    in_pairs: bool
    windows: tuple[_Record, ...]
    preflight: tuple[FindingEntry, ...]


@dataclass(frozen=True, slots=True)
class MeasuredRecord:
    """The records of all windows, the seed of the run, whether pairs were played, and the preflight's findings."""

    windows: tuple[Mapping[str, object], ...]
    seed: int
    in_pairs: bool
    preflight: tuple[Finding, ...]


def write_measured(
    run: RunDirectory, records: Sequence[Mapping[str, object]], plan: Plan, preflight: Sequence[Finding]
) -> Path:
    """Put `measured.json` in place; a number that was not measured is null there."""
    return run.write_json(
        NAME,
        {
            "version": 1,
            "seed": plan.seed,
            "in_pairs": plan.in_pairs,
            "windows": [{name: _carried(value) for name, value in record.items()} for record in records],
            "preflight": [finding.to_json() for finding in preflight],
        },
    )


def read_measured(run: RunDirectory) -> MeasuredRecord:
    """Read it back; InvalidInput when the run has none, or something else."""
    path = run.path / NAME
    try:
        file = _File.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InvalidInput(run.path, 1, 1, f"no {NAME}", "a run with the records of its windows") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise InvalidInput(path, 1, 1, f"{place}: {first['msg']}", "the record that a run writes") from None
    return MeasuredRecord(
        tuple(_told(record.model_extra or {}) | {k: getattr(record, k) for k in _KEPT} for record in file.windows),
        file.seed,
        file.in_pairs,
        tuple(map(_finding, file.preflight)),
    )


def _carried(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _told(record: Mapping[str, JsonValue]) -> dict[str, object]:
    return {name: math.nan if value is None else value for name, value in record.items()}


def _finding(entry: FindingEntry) -> Finding:
    blame = entry.blame
    return Finding(
        finding_id=entry.finding_id,
        scope=Scope(entry.scope),
        subject=entry.subject,
        kpi=entry.kpi,
        before=number(entry.before),
        after=number(entry.after),
        unit=entry.unit,
        deviation_percent=number(entry.deviation_percent),
        effect=entry.effect,
        priority=entry.priority,
        verdict=Severity[entry.verdict],
        flows=entry.flows,
        interval_low=None if entry.interval_low is None else number(entry.interval_low),
        interval_high=None if entry.interval_high is None else number(entry.interval_high),
        q_value=None if entry.q_value is None else number(entry.q_value),
        blame=None
        if blame is None
        else Blame(
            blame.node,
            blame.object,
            blame.file,
            blame.line,
            blame.text,
            blame.evidence,
            blame.decided_by,
            blame.in_change,
        ),
    )
