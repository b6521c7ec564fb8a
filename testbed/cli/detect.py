"""`testbed detect`: where a series is not what it was, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.detect.port import Reading
from analysis.detect.watch import Detection, Settings, detect
from testbed.series_file import read_series

_DIGITS = 9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@click.command(
    "detect",
    epilog="\b\nExample:\n  testbed detect latency.csv\n  testbed detect latency.csv --json | jq .alarms\n"
    "  testbed detect kpis.csv --column response_ns --evidence 5.5",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--column", metavar="NAME", help="The column with the values; value where not said.")
@click.option(
    "--evidence",
    default=Settings().rule.evidence,
    show_default=True,
    type=click.FloatRange(0, 20),
    help="How much an alarm takes after 2,000 rows; more means fewer alarms.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Of the forest.")
@click.option(
    "--json", "as_json", is_flag=True, help="For programs: a score a row (null in warm-up) and the rows of alarms."
)
def detect_command(file: Path, column: str | None, evidence: float, seed: int, as_json: bool) -> None:
    """Go through FILE (CSV: timestamp,value) row by row as if live, and tell where it becomes odd.

    A score is from 0 to 1; at or above 0.5 an alarm begins in that row. Rows count from 0, the header not included.
    """
    readings = read_series(file, column)
    shipped = Settings(seed=seed)
    found = detect(readings, replace(shipped, rule=replace(shipped.rule, evidence=evidence)))
    if as_json:
        scores = [None if score is None else round(score, _DIGITS) for score in found.scores]
        click.echo(json.dumps({"scores": scores, "alarms": list(found.alarms)}))
    else:
        _show(readings, found)


def _show(readings: Sequence[Reading], found: Detection) -> None:
    console = Console(highlight=False)
    scored = sum(score is not None for score in found.scores)
    console.print(Text(f"{len(readings):,} rows, {scored:,} scored, {len(found.alarms):,} alarms", "bold"))
    if not found.alarms:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("row", "time", "value", "score", "most surprised"):
        table.add_column(heading, justify="left" if heading in {"time", "most surprised"} else "right", no_wrap=True)
    for row, name in zip(found.alarms, found.loudest, strict=True):
        value, score = readings[row].value, found.scores[row] or 0.0
        table.add_row(f"{row:,}", _time(readings[row].time_ns), f"{value:g}", f"{score:.3f}", name)
    console.print(table)


def _time(time_ns: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=time_ns // 1_000)).strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return f"{time_ns / 1e9:g} s"
