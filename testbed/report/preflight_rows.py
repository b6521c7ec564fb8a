"""The disposition table of the preflight as the page shows it: classes and what opened, the changed ones first.

May not know HTML or how probes were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.reach import ACCEPTED, CLASS, CLOSED, OPENED, as_production
from analysis.verdict import priority_rank
from testbed.store import RunDirectory
from testbed.verdict_file import PreflightEntry, VerdictFile

LIMIT = 300
_PROTOCOLS: Mapping[object, str] = {6: "tcp", 17: "udp"}


@dataclass(frozen=True, slots=True)
class PreflightRow:
    """One probe: `mark` is "bad", "good" or "" for how its answer after the change is to be seen."""

    kind: str
    priority: str
    rank: int
    flow_class: str
    source: str
    destination: str
    flows: int
    expected: str
    before: str
    after: str
    mark: str
    unlike: bool
    way: str


@dataclass(frozen=True, slots=True)
class PreflightTable:
    """Rows, how many more the run's own table has, and the counts of verdict.json."""

    rows: tuple[PreflightRow, ...]
    left_out: int
    entry: PreflightEntry


def preflight_table(run: RunDirectory, verdict: VerdictFile) -> PreflightTable | None:
    """All classes, and of the accesses those that changed; None for a run without a preflight."""
    if verdict.preflight is None:
        return None
    try:
        table = run.read_table("disposition")
    except FileNotFoundError:
        return PreflightTable((), 0, verdict.preflight)
    records = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    shown = [r for r in records if r["kind"] == CLASS or (r["after"] and r["before"] != r["after"])]
    rows = sorted((_row(record) for record in shown), key=lambda r: (r.before == r.after, r.rank, -r.flows))
    return PreflightTable(tuple(rows[:LIMIT]), max(len(rows) - LIMIT, 0), verdict.preflight)


def _row(record: Mapping[str, object]) -> PreflightRow:
    text = {key: str(value) for key, value in record.items()}
    expected, before, after = text["expected"], text["before"], text["after"]
    change = "" if before == after or not after else OPENED if after == ACCEPTED else CLOSED
    bad = bool(change) and not (as_production(expected, after) or record["wanted"])
    protocol = _PROTOCOLS.get(record["protocol"], text["protocol"])
    observed = record["kind"] == CLASS
    destination = f"{text['destination_address']} {protocol}/{text['destination_port']}"
    source, _, rest = text["subject"].partition(" → ")
    return PreflightRow(
        kind={"class": "observed", "rule": "changed line", "refused": "refused flow", "service": "service"}.get(
            text["kind"], text["kind"]
        ),
        priority=text["priority"],
        rank=priority_rank(text["priority"]),
        flow_class=text["flow_class"],
        source=source,
        destination=rest if observed and rest else destination,
        flows=int(text["flows"]),
        expected=expected,
        before=before,
        after=after,
        mark="bad" if bad else "good" if change else "",
        unlike=bool(expected) and observed and not as_production(expected, before),
        way=text["path"].replace(">", " › "),
    )
