"""`testbed report`: the report of a run again, from its directory alone."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from testbed.report import write_report
from testbed.summary import print_summary
from testbed.verdict_file import read_verdict


@click.command(epilog="\b\nExample:\n  testbed report runs/20261123T120000-shop-block-https-1a2b")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
def report(run: Path) -> int:
    """Write report.html of RUN again and print its summary."""
    write_report(run)
    print_summary(read_verdict(run), run / "report.html", Console(highlight=False))
    return 0
