"""`testbed lab`: what is done to a lab folder itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from testbed.cli.lab_run import run
from testbed.devices.registry import known_devices
from testbed.errors import InvalidInput
from testbed.prepare import open_lab
from testbed.sandbox import Sandbox
from testbed.shadow import built
from topologies.imported import Note
from topologies.model import Node
from topologies.schema import SCHEMA_FILE
from topologies.sources import CHOICES


@click.group()
def lab() -> None:
    """Work on a lab folder."""


lab.add_command(run)


@lab.command("schema", epilog="\b\nExample:\n  testbed lab schema")
def schema_command() -> int:
    """Print the path of the JSON Schema of lab.yaml, from which editors complete."""
    click.echo(str(SCHEMA_FILE))
    return 0


@lab.command("record", epilog="\b\nExample:\n  testbed lab record topologies/shop")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where captures go; the lab's traffic/ by default."
)
def record_command(folder: Path, output: Path | None) -> int:
    """Record the lab's capture anew: real servers and clients run inside the lab, taps write pcap."""
    from testbed.record import read_recording, record  # noqa: PLC0415  scapy takes half a second to import

    devices = known_devices()
    loaded = open_lab(str(folder), folder, devices).lab
    recording = read_recording(loaded.folder / "traffic" / "record.yaml")
    target = (output or loaded.folder / "traffic").absolute()
    target.mkdir(parents=True, exist_ok=True)
    told = Console(stderr=True, highlight=False)

    def job() -> list[str]:
        with (
            TemporaryDirectory(prefix="testbed-logs-") as logs,
            built(loaded.topology, devices, Path(logs)) as shadow,
        ):
            written = record(shadow, recording, target, lambda what: told.print(what, markup=False))
        return [str(path) for path in written.values()]

    for path in Sandbox(loaded.name, (target,)).call(job):
        click.echo(path)
    return 0


@lab.command(
    "import",
    epilog="""\b
Examples:
  testbed lab import campus.clab.yml -o labs/campus
  testbed lab import two_sites.py:sites,3 -o labs/sites
  testbed lab import topohub:sndlib/germany50 -o labs/germany50
""",
)
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The new lab folder.")
def import_command(source: str, output: Path) -> int:
    """Write a lab folder from a containerlab file, a Mininet Topo, GraphML or a topohub name.

    A Mininet file is Python and is run.  What the source asks for and a lab cannot honour is told, one note a line.
    """
    target = output.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInput(output, 1, 1, "a file or a folder with something in it", "a new or empty folder")
    if Path(source).is_dir():
        raise InvalidInput(Path(source), 1, 1, "a folder", f"what is no lab folder yet (not {CHOICES.split(',')[0]})")
    made = open_lab(source, target, known_devices())
    for line in _made(made.lab.folder, made.lab.topology.nodes, len(made.lab.topology.links), made.lab.captures):
        click.echo(line)
    _tell(made.notes)
    return 0


def _made(folder: Path, nodes: Sequence[Node], links: int, captures: Sequence[Path]) -> Iterator[str]:
    kinds = Counter(node.kind for node in nodes)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    yield f"{folder}: {len(nodes)} nodes ({listed}), {links} links"
    yield f"  {sum(len(node.configs) for node in nodes)} config files in configs/"
    yield from (f"  {path.relative_to(folder)}: {path.stat().st_size:,} octets" for path in captures)


def _tell(notes: Sequence[Note]) -> None:
    """Each note on a line of its own, on standard error, as compilers tell warnings."""
    told = Console(stderr=True, highlight=False, soft_wrap=True)
    if notes:
        told.print(f"{len(notes)} things of the source are done otherwise or not at all:", style="yellow")
    for note in notes:
        told.print(f"  {note}", markup=False)
