"""`testbed up`: a lab's shadow with nothing replayed through it, and Mininet's command line on it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pandas as pd
from rich.console import Console

from replay.schedule import Schedule
from replay.session import Player
from testbed.cli.foreground import in_front, taken_back
from testbed.devices.base import Device
from testbed.devices.registry import known_devices
from testbed.network.mininet_cli import ShadowCli, one_command, prompt_words
from testbed.placement import END_POINTS, listeners
from testbed.prepare import open_lab
from testbed.sandbox import SCRATCH, Sandbox
from testbed.shadow import Shadow, built
from testbed.tls_trust import trusted
from topologies.graph import mermaid
from topologies.load import Lab
from topologies.located import nearest
from topologies.map.html import map_html
from topologies.sources import Opened

READY_SECONDS = 180.0


@click.command(
    epilog="\b\nExamples:\n  testbed up topologies/shop\n  testbed up topologies/shop -- r1 vtysh -c 'show ip route'\n"
    "  testbed up topohub:sndlib/germany50 --graph germany --check\n\n"
    "Exit codes: of COMMAND, its own (pingall: 1 when a packet is lost); 2 invalid input, 4 not possible here."
)
@click.argument("lab")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--graph", metavar="NAME", type=click.Path(path_type=Path), help="Write NAME.mmd (Mermaid) and NAME.html."
)
@click.option("--check", is_flag=True, help="Read and check the lab, draw it if asked, and start nothing.")
@click.option(
    "--ready", default=READY_SECONDS, show_default=True, type=click.FloatRange(min=1), help="Seconds to wait at most."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of loss and the like on links.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the daemons' logs here.")
@click.option("--quiet", is_flag=True, help="No progress.")
def up(
    lab: str,
    command: tuple[str, ...],
    graph: Path | None,
    check: bool,
    ready: float,
    seed: int,
    logs: Path | None,
    quiet: bool,
) -> int:
    """Bring up a shadow of LAB and give Mininet's command line on it, or run one COMMAND in it.

    LAB is a lab folder, a containerlab file, a Mininet file, a GraphML file or topohub:NAME. COMMAND is what one
    would type at the prompt: a node's name and a program to run there, or a word of Mininet's such as pingall.
    """
    told = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
    devices = known_devices()
    if check or graph is not None:
        with TemporaryDirectory(prefix="testbed-up-") as work:
            opened = open_lab(lab, Path(work) / "lab", devices)
            if graph is not None:
                _draw(opened, graph, told)
            if check:
                _tell(opened, told)
                return 0
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
    visible = tuple(path.absolute() for path in (logs, Path(lab)) if path is not None and path.exists())
    with taken_back():
        return Sandbox("up", visible).call(lambda: _live(lab, devices, logs, command, ready, seed, told))


def _live(
    source: str,
    devices: Mapping[str, Device],
    logs: Path | None,
    command: Sequence[str],
    ready_seconds: float,
    seed: int,
    told: Console,
) -> int:
    """Everything that happens inside the sandbox, on whose own file system an imported lab is written."""
    in_front()
    opened = open_lab(source, SCRATCH / "lab", devices)
    _tell(opened, told)
    _refuse_unknown(command, [node.name for node in opened.lab.topology.nodes])
    started = time.monotonic()
    with ExitStack() as world:
        with told.status("build") as status:
            shadow = world.enter_context(
                built(opened.lab.topology, devices, (logs or SCRATCH / "logs").absolute(), seed=seed)
            )
            world.enter_context(_responders(opened.lab, shadow))
            built_s = time.monotonic() - started
            waited_s = shadow.wait_ready(ready_seconds, lambda reason: status.update(f"waiting for {reason}"))
        told.print(f"built in {built_s:.1f} s, ready {waited_s:.1f} s later", markup=False)
        if command:
            return one_command(shadow.net, command)
        if sys.stdin.isatty():
            told.print("help lists the words; NODE PROGRAM runs a program in a node; exit ends it all", markup=False)
        ShadowCli(shadow.net, sys.stdin)
    return 0


def _refuse_unknown(command: Sequence[str], nodes: Sequence[str]) -> None:
    """A command for nobody is told before anything is built."""
    words = prompt_words()
    if command and command[0] not in words and command[0] not in nodes:
        raise click.UsageError(
            f"found {command[0]!r}, expected a node or a word: {nearest(command[0], (*nodes, *words))}"
        )
    if len(command) == 1 and command[0] in nodes:
        raise click.UsageError(f"found the node {command[0]!r} alone, expected a program to run there behind it")


def _responders(lab: Lab, shadow: Shadow) -> Player:
    """Who answers at the ports that the lab says are served, so that health checks and clients find somebody."""
    nobody = pd.DataFrame({c: [] for c in ("outcome", "destination_address", "protocol", "destination_port")})
    spaces = {n.name: shadow.namespaces()[n.name] for n in lab.topology.nodes if n.kind in END_POINTS}
    return Player(Schedule((), 1.0, 0), spaces, listeners(lab, nobody, shadow.configs), trust=trusted(shadow))


def _draw(opened: Opened, graph: Path, told: Console) -> None:
    topology = opened.lab.topology
    for suffix, text in ((".mmd", mermaid(topology)), (".html", map_html(topology, opened.positions))):
        path = graph.with_name(graph.name + suffix)
        path.write_text(text, encoding="utf-8")
        told.print(f"wrote {path}", markup=False)


def _tell(opened: Opened, told: Console) -> None:
    for note in opened.notes:
        told.print(f"note: {note}", markup=False, style="yellow")
    topology = opened.lab.topology
    kinds = Counter(node.kind for node in topology.nodes)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    counts = f"{len(topology.nodes)} nodes ({listed}), {len(topology.links)} links"
    told.print(f"{opened.lab.name}: {counts}", markup=False)
