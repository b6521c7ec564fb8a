"""`testbed schema`: what the documents that programs read and write may hold."""

from __future__ import annotations

import click

from testbed.verdict_file import SCHEMA_FILE as VERDICT
from topologies.schema import SCHEMA_FILE as LAB

FILES = {"lab": LAB, "verdict": VERDICT}


@click.command(epilog="\b\nExample:\n  testbed schema verdict > verdict.schema.json")
@click.argument("document", type=click.Choice(sorted(FILES)))
def schema(document: str) -> int:
    """Print the JSON Schema of verdict.json (every version of it) or of lab.yaml."""
    click.echo(FILES[document].read_text(encoding="utf-8"), nl=False)
    return 0
