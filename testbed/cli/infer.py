"""`testbed infer`: a first lab folder from traffic alone, to be refined by hand."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.words import plural
from testbed.infer.lab import Inferred, infer
from testbed.visible import one_line

SCHEMA_VERSION = 1
_SHOWN = 40


@click.command(
    "infer",
    epilog="\b\nExample:\n  testbed infer edge.pcap servers.pcap -o mylab\n  testbed up mylab --check\n"
    "  testbed whatif mylab --change mylab/changes/none",
)
@click.argument("source", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The lab folder to be written.")
@click.option("--name", help="The lab's name; the folder's by default.")
@click.option("--json", "as_json", is_flag=True, help="For programs: nodes, networks and doubts.")
def infer_command(source: tuple[Path, ...], output: Path, name: str | None, as_json: bool) -> int:
    """Write a first lab of the network that the traffic of SOURCE passed.

    SOURCE is a capture or flow records, several of them captures of one network at several points. Gateways are told
    by MAC and TTL, servers by who answered, networks by ARP, neighbour discovery, DHCP and router advertisements; flow
    records tell prefixes only. Every node has its evidence beside it, and README.md says what to refine.
    """
    progress = Console(stderr=True, highlight=False, quiet=as_json or not sys.stderr.isatty())
    given = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", output.absolute().name).strip("-_.")[:63] or "inferred"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", given):
        raise click.BadParameter(f"found {given!r}, expected letters, digits, '_', '.' and '-'", param_hint="--name")
    with progress.status("read"):
        inferred = infer(source, output, given)
    if as_json:
        click.echo(json.dumps(document(inferred), indent=2))
    else:
        _show(inferred, Console(highlight=False))
    return 0


def document(inferred: Inferred) -> dict[str, object]:
    """What was inferred, for programs."""
    plan = inferred.plan
    return {
        "schema": SCHEMA_VERSION,
        "lab": str(inferred.lab.folder),
        "flows": len(inferred.flows),
        "nodes": [
            {
                "name": node.name,
                "kind": node.kind,
                "addresses": [str(address.ip) for interface in node.interfaces for address in interface.addresses],
                "prefixes": [str(prefix) for prefix in node.prefixes],
                "evidence": list(plan.remarks.get(node.name, ())),
            }
            for node in inferred.lab.topology.nodes
        ],
        "networks": [
            {"wire": wire, "network": str(one.network), "sureness": one.sureness, "evidence": one.evidence}
            for wire, one in plan.networks
        ],
        "rules": inferred.rules.rules,
        "doubts": [*plan.doubts, *inferred.rules.doubts],
    }


def _show(inferred: Inferred, console: Console) -> None:
    topology = inferred.lab.topology
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(n.kind for n in topology.nodes).items()))
    console.print(Text(f"{inferred.lab.folder}: {len(topology.nodes)} nodes ({kinds})", "bold"))
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("node", "kind", "evidence"):
        shown.add_column(heading, overflow="fold")
    for node in topology.nodes[:_SHOWN]:
        said = inferred.plan.remarks.get(node.name, ())
        shown.add_row(node.name, node.kind, Text(one_line("; ".join(said[:2]))))
    console.print(shown)
    if len(topology.nodes) > _SHOWN:
        console.print(Text(f"and {len(topology.nodes) - _SHOWN} more nodes", "dim"))
    doubts = [*inferred.plan.doubts, *inferred.rules.doubts]
    for doubt in doubts[:5]:
        console.print(Text(f"odd: {one_line(doubt)}", "yellow"))
    if len(doubts) > len(doubts[:5]):
        console.print(Text(f"and {plural(len(doubts) - 5, 'more oddity')}, in README.md", "yellow"))
    console.print(Text("README.md says how sure this is and what to refine.", "dim"))
