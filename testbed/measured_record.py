"""What a verdict rests on besides the tables: the instrument's records, the plan, and how the run ended.

Written as `measured.json` beside the tables, and read back for judging a run again.  It knows no judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from analysis.pairs.design import Arm
from analysis.reach import COLUMNS
from analysis.verdict import Blame, Finding, Scope, Severity
from analysis.window import Role
from testbed.change.model import Line
from testbed.counters import COLUMNS as COUNTER_COLUMNS
from testbed.errors import InvalidInput
from testbed.pairs.judged import Paired
from testbed.plan import Plan
from testbed.preflight.judged import Seen, Stood
from testbed.store import RunDirectory
from testbed.stored import read_document
from testbed.verdict_file import FindingEntry, number

NAME = "measured.json"
EXPECTED = "the record that a run of this version writes"
PREFLIGHT_COUNTERS = "preflight_counters"

_Float = Annotated[float, BeforeValidator(lambda written: math.nan if written is None else written)]
_Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Record(BaseModel):
    """One window's record; what else the instrument told of it is kept as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    window: _Count
    role: Role
    arm: Arm | Literal[""]
    pair: int
    valid: bool
    reason: str
    started: str
    seconds: _Float
    lateness_p50_us: _Float
    lateness_p99_us: _Float
    lateness_max_us: _Float
    offered: _Count
    sent: _Count
    capture_drops: _Count
    realtime: bool
    reaction_p99_us: _Float
    player_cpu_percent: _Float
    player_waited_percent: _Float
    cpu_pressure_percent: _Float
    send_blocked: _Count
    udp_receive_drops: _Count
    listen_drops: _Count
    shards: _Count
    link_engine: str
    link_excess_p50_us: _Float
    link_excess_p99_us: _Float
    link_overflowed: _Count
    link_seeded: bool
    daemons_alive: bool


class _Planned(_Part):
    asked: _Count
    budget_s: float | None
    reason: str


class _Stood(_Part):
    probe_id: str
    members: tuple[str, ...]
    origin: Line | None


class _Preflight(_Part):
    seconds: float
    left_out: _Count
    stood: tuple[_Stood, ...]


class _File(_Part):
    version: Literal[2]
    seed: _Count
    in_pairs: bool
    preflight_only: bool
    windows: tuple[_Record, ...]
    planned: _Planned | None
    refused: tuple[FindingEntry, ...]
    restored_tries: _Count
    preflight: _Preflight | None


@dataclass(frozen=True, slots=True)
class Planned:
    """How many pairs were asked for; `reason` tells why there are none, "" where there are."""

    asked: int
    budget_s: float | None
    reason: str

    @classmethod
    def of(cls, paired: Paired) -> Planned:
        """As the judge of pairs has it."""
        return cls(paired.asked, paired.budget_s, "" if paired.asked else paired.found.reason)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: `refused` are the findings of a change that could not be put in force.

    `restored_tries` says how often the restored network was looked at, 0 where the change was not taken back.
    """

    refused: tuple[Finding, ...] = ()
    restored_tries: int = 0


@dataclass(frozen=True, slots=True)
class MeasuredRecord:
    """The records of all windows, the seed, whether pairs or no windows were meant, and how the run ended.

    `seen` is the preflight's, None of a run that had none.
    """

    windows: tuple[Mapping[str, object], ...]
    seed: int
    in_pairs: bool
    preflight_only: bool
    planned: Planned | None
    ending: Ending
    seen: Seen | None


def write_measured(
    run: RunDirectory,
    records: Sequence[Mapping[str, object]],
    plan: Plan,
    planned: Planned | None,
    ending: Ending,
    seen: Seen | None,
) -> Path:
    """Put `measured.json` in place, and the preflight's counters; a number that was not measured is null there."""
    if seen is not None:
        run.write_table(PREFLIGHT_COUNTERS, seen.counters)
    return run.write_json(
        NAME,
        {
            "version": 2,
            "seed": plan.seed,
            "in_pairs": plan.in_pairs,
            "preflight_only": plan.preflight_only,
            "windows": [{name: _carried(value) for name, value in record.items()} for record in records],
            "planned": None
            if planned is None
            else {"asked": planned.asked, "budget_s": planned.budget_s, "reason": planned.reason},
            "refused": [finding.to_json() for finding in ending.refused],
            "restored_tries": ending.restored_tries,
            "preflight": None
            if seen is None
            else {
                "seconds": seen.seconds,
                "left_out": seen.left_out,
                "stood": [
                    {"probe_id": one.probe_id, "members": list(one.members), "origin": _origin(one.origin)}
                    for one in seen.stood
                ],
            },
        },
    )


def read_measured(run: RunDirectory) -> MeasuredRecord:
    """Read it back; InvalidInput when the run has none, or something else."""
    path = run.path / NAME
    try:
        file = read_document(path, _File, "the record that a run of version 2 writes")
    except FileNotFoundError:
        raise InvalidInput(run.path, 1, 1, f"no {NAME}", "a run with the records of its windows") from None
    numbers = [record.window for record in file.windows]
    if numbers != list(range(len(numbers))):
        raise InvalidInput(path, 1, 1, f"windows {numbers[:8]}", "windows numbered from 0, each once")
    planned = file.planned
    return MeasuredRecord(
        tuple(_told(record) for record in file.windows),
        file.seed,
        file.in_pairs,
        file.preflight_only,
        None if planned is None else Planned(planned.asked, planned.budget_s, planned.reason),
        Ending(tuple(map(_finding, file.refused)), file.restored_tries),
        None if file.preflight is None else _seen(run, path, file.preflight),
    )


def read_part(run: RunDirectory, name: str, columns: Iterable[str], part: int | None = None) -> pd.DataFrame:
    """A table of a run, or one part of it, with these columns; InvalidInput when there is none or something else."""
    path = run.path / (f"{name}.parquet" if part is None else f"{name}/{part:05}.parquet")
    try:
        table = run.read_table(name) if part is None else run.read_part(name, part)
    except FileNotFoundError:
        raise InvalidInput(path, 1, 1, "no such file", "a table that the run wrote") from None
    except (OSError, ValueError) as problem:
        raise InvalidInput(path, 1, 1, f"no table ({problem})", "a table that the run wrote") from None
    lacking = sorted(set(columns) - set(table.columns))
    if lacking:
        raise InvalidInput(path, 1, 1, f"a table without {', '.join(lacking)}", "a table that the run wrote")
    return table


def _seen(run: RunDirectory, path: Path, preflight: _Preflight) -> Seen:
    table = read_part(run, "disposition", COLUMNS)
    counters = read_part(run, PREFLIGHT_COUNTERS, COUNTER_COLUMNS)
    stood = tuple(Stood(one.probe_id, one.members, one.origin) for one in preflight.stood)
    if [one.probe_id for one in stood] != table["probe_id"].tolist():
        raise InvalidInput(path, 1, 1, "other probes than disposition.parquet has", "the record of the same run")
    return Seen(table, stood, counters, preflight.seconds, preflight.left_out)


def _origin(line: Line | None) -> dict[str, object] | None:
    return None if line is None else asdict(line)


def _carried(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _told(record: _Record) -> dict[str, object]:
    told = record.model_dump() | {"role": record.role.value, "arm": str(record.arm)}
    return {name: math.nan if value is None else value for name, value in told.items()}


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
