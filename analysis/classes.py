"""What became of each class: its medians before and after, for tables that people read.

May not decide anything: it repeats what findings and contrasts already say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.compare import deviation_percent
from analysis.disposition import AS_EXPECTED, Endings, expected_ratios
from analysis.kpi import KPIS
from analysis.roster import Roster
from analysis.slowdown import Judged
from analysis.verdict import Finding, Json, Scope, Severity, Verdict, json_number, priority_rank
from analysis.window import Selection, panel


@dataclass(frozen=True, slots=True)
class KpiChange:
    """A class's median of one KPI before and after; NaN where there was nothing to measure."""

    before: float
    after: float
    unit: str

    def to_json(self) -> dict[str, Json]:
        """As in `classes[].kpis` of `verdict.json`."""
        return {
            "before": json_number(self.before),
            "after": json_number(self.after),
            "deviation_percent": json_number(deviation_percent(self.after, self.before)),
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """What became of one class of flows."""

    flow_class: str
    priority: str
    flows: int
    kpis: Mapping[str, KpiChange]
    verdict: Verdict

    def without_pass(self) -> ClassSummary:
        """The same where too little was measured to call anything a pass."""
        return replace(self, verdict=Verdict.worst((self.verdict, Verdict.INCONCLUSIVE)))

    def to_json(self) -> dict[str, Json]:
        """As in `classes` of `verdict.json`."""
        return {
            "flow_class": self.flow_class,
            "priority": self.priority,
            "flows": self.flows,
            "kpis": {name: change.to_json() for name, change in self.kpis.items()},
            "verdict": self.verdict.name,
        }


def summaries(
    kpis: pd.DataFrame,
    roster: Roster,
    ends: Endings,
    findings: Sequence[Finding],
    groups: Sequence[Judged],
    windows: Selection,
) -> tuple[ClassSummary, ...]:
    """Every class with its medians before and after; the worst and most important first."""
    judged = {(group.subject, group.kpi.name): group for group in groups if group.scope is Scope.CLASS}
    tables = {name: panel(kpis, name, [*windows.baseline, *windows.after]) for name in KPIS if name in kpis.columns}
    found = []
    for name, members in roster.classes.items():
        was, now = (
            float(np.median(expected_ratios(ends, members, part))) for part in (windows.baseline, windows.after)
        )
        changes = {AS_EXPECTED.name: KpiChange(was, now, AS_EXPECTED.unit)}
        for kpi, table in tables.items():
            group = judged.get((name, kpi))
            if group is not None:
                changes[kpi] = KpiChange(group.contrast.before, group.contrast.after, group.kpi.unit)
            else:
                rows = table.reindex(list(members))
                before, after = (_median(rows[list(part)]) for part in (windows.baseline, windows.after))
                if not (np.isnan(before) and np.isnan(after)):
                    changes[kpi] = KpiChange(before, after, KPIS[kpi].unit)
        own = frozenset(members)
        hit = any(item.verdict is Severity.FAIL and own.intersection(item.flows) for item in findings)
        open_ = any(group.undecided for (subject, _), group in judged.items() if subject == name)
        verdict = Verdict.FAIL if hit else Verdict.INCONCLUSIVE if open_ else Verdict.PASS
        found.append(ClassSummary(name, roster.priority(members), len(members), changes, verdict))
    found.sort(key=lambda one: (-one.verdict.value, priority_rank(one.priority), -one.flows, one.flow_class))
    return tuple(found)


def _median(rows: pd.DataFrame) -> float:
    values = rows.to_numpy(dtype="float64").ravel()
    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else float("nan")
