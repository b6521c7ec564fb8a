"""`testbed trace`: one flow of a run sent again, its journeys before and after the change side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from testbed.devices.registry import known_devices
from testbed.sandbox import Sandbox
from testbed.trace.again import traced_again
from testbed.trace.drawing import print_trace
from testbed.trace.journey import Trace
from testbed.trace.wanted import wanted


@click.command(
    epilog="\b\nExamples:\n  testbed trace runs/20261125T043416-shop-block-https-8fb5 worst\n"
    "  testbed trace runs/20261125T043416-shop-block-https-8fb5 checkout --json\n\n"
    "Exit codes: 0 traced, also when the journeys differ; 2 no such run or flow, or an input of the run has changed; "
    "4 not possible here or not restored."
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("flow")
@click.option("--json", "as_json", is_flag=True, help="Print the document and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress.")
def trace(run: Path, flow: str, as_json: bool, quiet: bool) -> int:
    """Send FLOW of RUN again, before the change and after it, and draw its two journeys hop by hop.

    FLOW is a flow's id or the beginning of one, a class (its first flow), or `worst`. The run's lab is built again
    from the same inputs, every interface is captured, and the change is made live and rolled back.
    """
    devices = known_devices()
    chosen = wanted(run, flow, devices)
    progress = Console(stderr=True, highlight=False, quiet=quiet or as_json or not sys.stderr.isatty())

    with TemporaryDirectory(prefix="testbed-trace-") as logs:

        def job() -> Trace:
            with progress.status("build") as status:
                return traced_again(chosen, devices, Path(logs), status.update)

        told = Sandbox("trace", (Path(logs), chosen.case.lab.folder)).call(job)
    if as_json:
        click.echo(json.dumps(told.document(), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        print_trace(told, Console(highlight=False))
    return 0
