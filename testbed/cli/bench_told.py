"""How a bench's result is printed: the document, or a table of figures and one of references."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click
from rich.console import Console
from rich.table import Table

from testbed.bench.result import BenchResult, Reference

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the document and nothing else.")


def told(result: BenchResult, as_json: bool) -> int:
    """Print the document, or tables for people; returns 0."""
    if as_json:
        click.echo(json.dumps(result.document(), indent=2))
        return 0
    table = Table(title=f"bench {result.bench}", title_justify="left", show_edge=False)
    for column in ("figure", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, value in result.figures.items():
        table.add_row(name, f"{value:g}")
    shown = Console(highlight=False)
    shown.print(table)
    if result.references:
        shown.print(_references(result.references))
    return 0


def _references(references: Mapping[str, Reference]) -> Table:
    table = Table(title="beside it in the same run", title_justify="left", show_edge=False)
    for column in ("reference", "value", "unit", "ours is better by"):
        table.add_column(column, justify="left" if column in {"reference", "unit"} else "right")
    for name, reference in references.items():
        table.add_row(name, f"{reference.value:g}", reference.unit, f"{reference.ratio:g} ×")
    return table
