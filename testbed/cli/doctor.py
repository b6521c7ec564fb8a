"""`testbed doctor`: what this machine can do, and for every lack what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbed.doctor import Row, State, document, examined

MARKS = {State.WORKS: ("✓ works", "green"), State.LIMITED: ("~ limited", "yellow"), State.MISSING: ("✗ missing", "red")}
NARROW = 100
PREVENTED = 4


@click.command("doctor", epilog="\b\nExample:\n  testbed doctor\n  testbed doctor --json | jq .demo")
@click.option("--json", "as_json", is_flag=True, help="For programs: the same rows, in a schema that stays.")
def doctor(as_json: bool) -> int:
    """Say what this machine can do, found by trying it, and for every lack what to do.

    Nothing on the machine is changed.  Ends with 0 when the demo can run and with 4 when it cannot.
    """
    rows = examined()
    if as_json:
        click.echo(json.dumps(document(rows), indent=2))
    else:
        show(rows, Console(highlight=False))
    return PREVENTED if any(row.prevents_demo() for row in rows) else 0


def show(rows: Sequence[Row], console: Console) -> None:
    """The table, what to do, and whether the demo can run."""
    narrow = console.width < NARROW
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("capability", no_wrap=not narrow)
    table.add_column("state", no_wrap=True)
    table.add_column("seen", ratio=3, overflow="fold")
    if not narrow:
        table.add_column("needed for", ratio=2)
    for place, row in enumerate(rows):
        mark, style = MARKS[row.state]
        last = place + 1 == len(rows) or rows[place + 1].group != row.group
        cells = [Text(row.capability), Text(mark, style), Text(row.seen)]
        table.add_row(*cells, *([] if narrow else [Text(row.needed_for, "dim")]), end_section=last)
    console.print(table)
    lacks = [row for row in rows if row.state is not State.WORKS and row.remedy]
    if lacks:
        console.print(Text("What to do", "bold"))
        for remedy in dict.fromkeys(row.remedy for row in lacks):
            for row in lacks:
                if row.remedy == remedy:
                    mark, style = MARKS[row.state]
                    console.print(Text.assemble((mark[0], style), f" {row.capability}: ", (row.needed_for, "dim")))
            console.print(Text(f"    {remedy}"), soft_wrap=True)
        console.print()
    preventing = [row.capability for row in rows if row.prevents_demo()]
    if preventing:
        console.print(Text(f"✗ The demo cannot run without: {', '.join(preventing)}", "bold red"))
    else:
        console.print(Text("✓ The demo can run: ./lab demo", "bold green"))
