"""Production's own KPIs of a capture on a terminal and as JSON: a row, or an object, a group of flows.

Knows the kpis table and the flow table, not how either was made.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.kpi import KPIS
from analysis.words import quantity
from replay.flow_priority import PRIORITIES

SCHEMA_VERSION = 1
PERCENTILES = (50, 95, 99)
SHOWN = ("connect_ns", "first_response_ns", "response_ns", "duration_ns", "goodput_bps", "loss_ratio", "retransmits")
NUMBERS = (*SHOWN, "delivered_octets")


def kpi_document(kpis: pd.DataFrame, flows: pd.DataFrame, by: str) -> dict[str, object]:
    """Per group: flows, completed ones, errors by kind, and percentiles of every KPI that was measured.

    `Infinity` stands for an answer that never came, as in verdict.json.
    """
    return {
        "schema": SCHEMA_VERSION,
        "flows": len(kpis),
        "groups": [
            {
                "group": name,
                "priority": priority,
                "flows": len(rows),
                "completed": int(rows["completed"].sum()),
                "errors": dict(sorted(Counter(rows["error"]).items())),
                "kpis": {
                    kpi: {f"p{share}": _carried(value) for share, value in zip(PERCENTILES, values, strict=True)}
                    for kpi in NUMBERS
                    if (values := percentiles(rows[kpi])) is not None
                },
            }
            for name, priority, rows in _groups(kpis, flows, by)
        ],
    }


def show_kpis(kpis: pd.DataFrame, flows: pd.DataFrame, by: str, console: Console) -> None:
    """A row a group and KPI; what was not measured has no row."""
    console.print(Text(f"{len(kpis):,} flows as this capture point saw them", "bold"))
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in (by, "flows", "kpi"):
        shown.add_column(heading, no_wrap=heading != by, overflow="fold")
    failed: list[Text] = []
    for share in PERCENTILES:
        shown.add_column(f"p{share}", justify="right", no_wrap=True)
    for name, _, rows in _groups(kpis, flows, by):
        errors = Counter(error for error in rows["error"] if error != "none").most_common()
        if errors:
            failed.append(Text(f"{name}: {', '.join(f'{count} {error}' for error, count in errors)}", "yellow"))
        cells = [Text(name), Text(f"{len(rows):,}")]
        for kpi in SHOWN:
            values = percentiles(rows[kpi])
            if values is not None:
                shown.add_row(*cells, KPIS[kpi].label, *(quantity(value, KPIS[kpi].unit) for value in values))
                cells = [Text("")] * len(cells)
    if len(kpis):
        console.print(shown)
    for line in failed:
        console.print(line)
    console.print(Text("Responses have the server's own time in them; one-way delays take two capture points.", "dim"))


def percentiles(column: pd.Series[float]) -> tuple[float, ...] | None:
    """The values at PERCENTILES that some flow really had, or None where nothing was measured."""
    values = np.sort(column.dropna().to_numpy(np.float64))
    if not len(values):
        return None
    return tuple(float(values[math.ceil(share / 100 * len(values)) - 1]) for share in PERCENTILES)


def _groups(kpis: pd.DataFrame, flows: pd.DataFrame, by: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each group's name, its highest priority and its rows: by priority, then the largest first."""
    rank = flows["priority"].map(PRIORITIES.index).to_numpy(np.int64)
    groups = [
        (int(rank[rows].min()), -len(rows), str(name), rows)
        for name, rows in kpis.groupby(flows[by].to_numpy()).indices.items()
    ]
    for best, _, name, rows in sorted(groups, key=lambda group: group[:3]):
        yield name, PRIORITIES[best], kpis.iloc[rows]


def _carried(value: float) -> float | str:
    return "Infinity" if math.isinf(value) else value
