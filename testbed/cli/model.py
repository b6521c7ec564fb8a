"""`testbed model`: the observed flow control model of captures and flow tables, shown and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from replay.ofcm import POOLED_PORT, Grouping, Zone, classes
from replay.ofcm.addresses import BITS
from replay.ofcm.diff import Change, Kind, Observed, diff
from testbed.cli.model_build import brought_up_to_date, check_suffix, of_sources, written
from testbed.errors import InvalidInput
from testbed.model_file import read_model

SCHEMA_VERSION = 1
CHANGED = 1
SHOWN_CLASSES = 40
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
STYLES = {"accepted": "green", "denied": "red", "reset": "yellow", "unanswered": "magenta", "": "dim"}
KIND_STYLES = {Kind.OPENED: "bold red", Kind.CLOSED: "bold red", Kind.DISPOSITION: "yellow"}

_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def model() -> None:
    """Work with the observed flow control model: who was seen talking to whom, and what the network did."""


@model.command(
    "build",
    epilog="""\b
Examples:
  testbed model build topologies/shop/traffic/internet.pcap -o shop.yaml --zone customers=198.51.100.0/24
  testbed model build today.pcap --onto week.parquet --keep 0.9 -o week.parquet
""",
)
@click.argument("sources", nargs=-1, required=True, type=_file)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help=".yaml or .parquet"
)
@click.option("--zone", "zones", multiple=True, metavar="NAME=NET[,NET]", help="Sources told by a name of yours.")
@click.option("--grain-ipv4", type=click.IntRange(0, 32), help="Bits kept of an IPv4 address (32).")
@click.option("--grain-ipv6", type=click.IntRange(0, 128), help="Bits kept of an IPv6 address (128).")
@click.option("--onto", type=_file, help="Bring this model up to date; its zones and grain are kept.")
@click.option("--keep", type=float, default=1.0, show_default=True, help="With --onto: what old flows still count.")
def build_command(
    sources: tuple[Path, ...],
    output: Path,
    zones: tuple[str, ...],
    grain_ipv4: int | None,
    grain_ipv6: int | None,
    onto: Path | None,
    keep: float,
) -> int:
    """Make a model of captures, of flow records, or of flow tables in Parquet, and write it."""
    grains = {"grain_ipv4": grain_ipv4, "grain_ipv6": grain_ipv6}
    given = {name: bits for name, bits in grains.items() if bits is not None}
    if onto is not None and (zones or given):
        raise click.UsageError("--onto keeps the model's zones and grain: leave --zone and --grain-* out")
    check_suffix(output)
    if not 0 < keep <= 1:
        raise click.UsageError(f"--keep is {keep}, expected a number above 0 and at most 1")
    grouping = _grouping(zones, given)
    before = None if onto is None else read_model(onto)
    made = of_sources(sources, grouping if before is None else before.grouping)
    click.echo(written(brought_up_to_date(before, made, keep), output))
    return 0


@model.command("show", epilog="\b\nExample:\n  testbed model show shop.yaml\n  testbed model show shop.yaml --json")
@click.argument("file", type=_file)
@click.option("--json", "as_json", is_flag=True, help="For programs: every class.")
@click.option("--all", "every", is_flag=True, help=f"For people: more than the {SHOWN_CLASSES} largest classes.")
def show_command(file: Path, as_json: bool, every: bool) -> int:
    """Show a model's classes, most flows first: what was accepted, denied, reset, left unanswered, and how surely."""
    made = read_model(file)
    table = classes(made)
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA_VERSION, "flows": made.flows, "classes": documented(table)}, indent=2))
        return 0
    console = Console(highlight=False)
    console.print(_classes_table(table if every else table.head(SHOWN_CLASSES)))
    left_out = 0 if every else max(len(table) - SHOWN_CLASSES, 0)
    console.print(f"{made.flows:,.10g} flows, {len(table):,} classes" + (f", {left_out:,} not shown" * bool(left_out)))
    return 0


@model.command("diff", epilog="\b\nExample:\n  testbed model diff monday.yaml tuesday.yaml --fail-on-change")
@click.argument("a", type=_file)
@click.argument("b", type=_file)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--fail-on-change", is_flag=True, help="End with 1 when anything changed.")
@click.option(
    "--least-ratio", type=click.FloatRange(min=1), default=1.5, show_default=True, help="Of a changed volume."
)
def diff_command(a: Path, b: Path, as_json: bool, fail_on_change: bool, least_ratio: float) -> int:
    """Tell what changed from model A to model B: access opened and closed, classes come and gone, volume."""
    try:
        changes = diff(read_model(a), read_model(b), least_ratio=least_ratio)
    except ValueError as problem:
        raise InvalidInput(b, 1, 1, str(problem), f"a model of the grain of {a}") from None
    if as_json:
        listed = [_documented_change(one) for one in changes]
        click.echo(json.dumps({"schema": SCHEMA_VERSION, "changed": bool(changes), "changes": listed}, indent=2))
    elif changes:
        Console(highlight=False).print(_changes_table(changes))
    else:
        click.echo("nothing changed")
    return CHANGED if changes and fail_on_change else 0


def documented(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Classes as JSON has them: null where nothing was seen or measured, and for the pool of rare ports."""
    return [
        {
            str(name): None if value == "" or (isinstance(value, float) and math.isnan(value)) else value
            for name, value in {**row, "port": None if row["port"] == POOLED_PORT else row["port"]}.items()
        }
        for row in table.to_dict("records")
    ]


def _grouping(zones: Sequence[str], grains: dict[str, int]) -> Grouping:
    named = []
    for zone in zones:
        name, _, networks = zone.partition("=")
        try:
            named.append(Zone(name, tuple(ip_network(text) for text in networks.split(",") if text)))
        except ValueError as problem:
            raise click.UsageError(f"--zone {zone}: {problem}") from None
    try:
        ipv4, ipv6 = grains.get("grain_ipv4", BITS[4]), grains.get("grain_ipv6", BITS[6])
        usual = Grouping()
        return Grouping(
            zones=tuple(named),
            widest_ipv4=min(usual.widest_ipv4, ipv4),
            widest_ipv6=min(usual.widest_ipv6, ipv6),
            grain_ipv4=ipv4,
            grain_ipv6=ipv6,
        )
    except ValueError as problem:
        raise click.UsageError(str(problem)) from None


def _classes_table(table: pd.DataFrame) -> Table:
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("source", "destination", "service"):
        shown.add_column(name, overflow="fold")
    for name in ("flows", "octets", "connect", "response"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("disposition", no_wrap=True)
    for row in table.to_dict("records"):
        share = f" {row['share']:.0%} ({row['share_low']:.0%} to {row['share_high']:.0%})"
        shown.add_row(
            Text(row["source"]),
            Text(row["destination"]),
            _service(row["protocol"], row["port"], row["application"]),
            f"{row['flows']:,.10g}",
            f"{row['forward_octets'] + row['reverse_octets']:,.0f}",
            _milliseconds(row["connect_ns"]),
            _milliseconds(row["first_response_ns"]),
            Text.assemble((row["disposition"], STYLES[row["disposition"]]), (share, "dim")),
        )
    return shown


def _changes_table(changes: Sequence[Change]) -> Table:
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("change", "source", "destination", "service", "before", "after"):
        shown.add_column(name, overflow="fold")
    for one in changes:
        shown.add_row(
            Text(one.kind.value if one.certain else f"{one.kind.value}?", KIND_STYLES.get(one.kind, "")),
            Text(one.source),
            Text(one.destination),
            _service(one.protocol, one.port, one.application),
            _seen(one.before),
            _seen(one.after),
        )
    shown.caption = "? is told by too few flows to be sure" if not all(one.certain for one in changes) else None
    return shown


def _seen(observed: Observed) -> Text:
    if not observed.flows:
        return Text("not seen", "dim")
    return Text.assemble((observed.disposition, STYLES[observed.disposition]), f" ({observed.flows:,.10g} flows)")


def _service(protocol: int, port: int, application: str) -> Text:
    name = PROTOCOLS.get(protocol, str(protocol))
    service = f"{name}/rare ports" if port == POOLED_PORT else f"{name}/{port}"
    return Text(f"{service} {application}".rstrip())


def _milliseconds(delay_ns: float) -> str:
    return "" if math.isnan(delay_ns) else f"{delay_ns / 1e6:.3g} ms"


def _documented_change(change: Change) -> dict[str, Any]:
    listed = asdict(change) | {"kind": change.kind.value}
    listed["port"] = None if change.port == POOLED_PORT else change.port
    listed["rate_ratio"] = change.rate_ratio if math.isfinite(change.rate_ratio) else None
    for side in ("before", "after"):
        listed[side]["disposition"] = listed[side]["disposition"] or None
    return listed
