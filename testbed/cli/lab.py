"""`testbed lab`: what is done to a lab folder itself."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from testbed.devices.registry import known_devices
from testbed.prepare import load
from testbed.sandbox import Sandbox
from testbed.shadow import built


@click.group()
def lab() -> None:
    """Work on a lab folder."""


@lab.command("record", epilog="\b\nExample:\n  testbed lab record topologies/shop")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where captures go; the lab's traffic/ by default."
)
def record_command(folder: Path, output: Path | None) -> int:
    """Record the lab's capture anew: real servers and clients run inside the lab, taps write pcap."""
    from testbed.record import read_recording, record  # noqa: PLC0415  scapy takes half a second to import

    devices = known_devices()
    loaded = load(folder, devices)
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
