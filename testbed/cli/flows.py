"""`testbed flows`: what flows a capture or an exporter's records hold, as a table, as JSON or as Parquet."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from replay.errors import InvalidCapture
from replay.flow_priority import classified
from replay.meter import read_traffic
from replay.records import EXPECTED, KINDS, is_capture, kind_of, read_flow_records
from replay.records.protocols import PROTOCOL_NAMES
from replay.records.vpc import columns_of
from testbed.errors import InvalidInput
from testbed.policy import read_policy
from testbed.prepare import flow_rule

OUTCOMES = {"accepted": "green", "denied": "red", "reset": "magenta", "unanswered": "yellow"}
GROUPS = {"class": "flow_class", "protocol": "protocol", "outcome": "outcome"}
EXPECTED_SOURCE = f"a pcap or pcapng capture, or {EXPECTED}"
_PREFIXES = ("", "k", "M", "G", "T", "P")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sources hold: the flow table, how many packets it was made from, what was left out, what it was."""

    flows: pd.DataFrame
    packets: int
    skipped: Counter[str]
    kinds: tuple[str, ...]


@click.command(
    epilog="\b\nExample:\n  testbed flows topologies/shop/traffic/internet.pcap\n"
    "  testbed flows vpc-logs/ --by outcome -o flows.parquet\n  testbed flows conn.log --json | jq .by_protocol"
)
@click.argument("source", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For programs: counts by protocol, outcome, class and grade.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the flow table as Parquet."
)
@click.option("--by", default="protocol", show_default=True, type=click.Choice(list(GROUPS)), help="What a row is.")
@click.option(
    "--policy", type=click.Path(path_type=Path), help="The policy.yaml whose classes the flows are sorted into."
)
@click.option("--kind", type=click.Choice(list(KINDS)), help="Take the files for this, whatever they look like.")
@click.option("--layout", metavar="FORMAT", help="The format string of VPC Flow Logs that have no header line.")
def flows(
    source: tuple[Path, ...],
    as_json: bool,
    output: Path | None,
    by: str,
    policy: Path | None,
    kind: str | None,
    layout: str | None,
) -> int:
    """Say which flows SOURCE holds, and how the network met them.

    SOURCE is a capture (pcap, pcapng) or a file of flow records: AWS VPC Flow Logs, Zeek conn.log, Suricata EVE, Hubble
    JSON, NetFlow and IPFIX stored by nfcapd; packed or not, told apart by content. A folder stands for its files that
    are one of these.
    """
    if layout is not None:
        try:
            columns_of(layout)
        except ValueError as problem:
            raise click.BadParameter(str(problem), param_hint="--layout") from None
    rules = [flow_rule(rule) for rule in read_policy(policy).classes]
    progress = Console(stderr=True, highlight=False, quiet=as_json or not sys.stderr.isatty())
    with progress.status("read"):
        files, left_out = _files(source, only_known=kind is None and layout is None)
        seen = read_sources(files, kind, layout)
    if left_out:
        seen.skipped["other_file"] += left_out
    table = classified(seen.flows, rules)
    if output is not None:
        _write(table, output)
    if as_json:
        click.echo(json.dumps(document(table, seen), indent=2))
    else:
        show(table, seen, by, Console(highlight=False))
    return 0


def read_sources(files: Sequence[Path], kind: str | None = None, layout: str | None = None) -> Seen:
    """Read captures or flow records; raises InvalidInput with the file, and with its line where there is one.

    Both together are refused: a flow that both tell would count twice.
    """
    try:
        captures = [] if kind else [file for file in files if is_capture(file)]
        if captures and len(captures) < len(files):
            other = next(file for file in files if file not in captures)
            raise InvalidInput(
                other, 1, 1, f"something else beside the capture {captures[0]}", "only captures, or none"
            )
        if captures:
            traffic = read_traffic(captures)
            return Seen(traffic.flows, traffic.packets, traffic.skipped, ("capture",))
        records = read_flow_records(files, layout=layout, kind=kind)
    except InvalidCapture as problem:
        expected = EXPECTED_SOURCE if problem.expected == EXPECTED else problem.expected
        raise InvalidInput(problem.path, problem.line or 1, 1, problem.found, expected) from None
    return Seen(records.flows, int(_packets(records.flows).sum()), records.skipped, records.kinds)


def document(table: pd.DataFrame, seen: Seen) -> dict[str, object]:
    """The counts that a program reads; times are ns since 1970, None without a flow."""
    protocols = table["protocol"].map(_protocol)
    return {
        "sources": list(seen.kinds),
        "packets": seen.packets,
        "octets": int(_octets(table).sum()),
        "flows": len(table),
        "start_ns": None if table.empty else int(table["start_ns"].min()),
        "end_ns": None if table.empty else int(table["end_ns"].max()),
        "by_protocol": _counts(protocols),
        "by_outcome": _counts(table["outcome"]),
        "by_class": _counts(table["flow_class"]),
        "by_grade": _counts(table["grade"]),
        "skipped": dict(seen.skipped.most_common()),
    }


def show(table: pd.DataFrame, seen: Seen, by: str, console: Console) -> None:
    """One sentence of totals, a row a group, and what was left out."""
    console.print(Text(_totals(table, seen), "bold"))
    if not table.empty:
        console.print(_grouped(table, by))
    if by == "class" and set(table["flow_class"]) == {"other"}:
        console.print(Text("Every flow is of the class other: give the classes with --policy.", "yellow"))
    if seen.skipped:
        left_out = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in seen.skipped.most_common())
        console.print(Text(f"Left out: {left_out}", "dim"))


def _totals(table: pd.DataFrame, seen: Seen) -> str:
    counted = f"{len(table):,} flows of {', '.join(seen.kinds) or 'no records'}, {seen.packets:,} packets"
    if table.empty:
        return counted
    start, end = pd.Timestamp(table["start_ns"].min()), pd.Timestamp(table["end_ns"].max())
    until = f"{end:%H:%M:%S}" if start.date() == end.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    return f"{counted}, {_short(int(_octets(table).sum()))}B, {start:%Y-%m-%d %H:%M:%S} to {until} UTC"


def _grouped(table: pd.DataFrame, by: str) -> Table:
    key = table[GROUPS[by]].map(_protocol) if by == "protocol" else table[GROUPS[by]]
    outcomes = {} if by == "outcome" else OUTCOMES
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column(by, overflow="fold")
    for heading in ("flows", *outcomes, "packets", "octets"):
        shown.add_column(heading, justify="right", no_wrap=True)
    groups = sorted(table.groupby(key.to_numpy()), key=lambda group: (-len(group[1]), str(group[0])))
    for name, rows in groups:
        cells = [Text(str(name), OUTCOMES.get(str(name), "")), Text(f"{len(rows):,}")]
        for outcome, style in outcomes.items():
            count = int((rows["outcome"] == outcome).sum())
            cells.append(Text(f"{count:,}", style) if count else Text("–", "dim"))
        cells += [Text(_short(int(_packets(rows).sum()))), Text(_short(int(_octets(rows).sum())))]
        shown.add_row(*cells)
    return shown


def _files(sources: Sequence[Path], only_known: bool) -> tuple[list[Path], int]:
    """The files that are meant, and how many of the folders' were left out as neither captures nor records."""
    files: list[Path] = []
    left_out = 0
    for source in sources:
        if not source.is_dir():
            files.append(source)
            continue
        inside = sorted(path for path in source.iterdir() if path.is_file())
        known = [path for path in inside if not only_known or _is_known(path)]
        if not known:
            raise InvalidInput(source, 1, 1, f"a folder with {len(inside)} other files", EXPECTED_SOURCE)
        files += known
        left_out += len(inside) - len(known)
    return files, left_out


def _is_known(path: Path) -> bool:
    try:
        return is_capture(path) or bool(kind_of(path))
    except InvalidCapture:
        return False


def _write(table: pd.DataFrame, output: Path) -> None:
    """The whole table or nothing: it is put in place when it is complete."""
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        table.to_parquet(part, index=False, compression="zstd")
        part.replace(output)
    except OSError as problem:
        found = (problem.strerror or str(problem)).lower()
        raise InvalidInput(output, 1, 1, found, "a place where the table can be written") from None
    finally:
        part.unlink(missing_ok=True)


def _packets(table: pd.DataFrame) -> pd.Series[int]:
    return table["forward_packets"] + table["reverse_packets"]


def _octets(table: pd.DataFrame) -> pd.Series[int]:
    return table["forward_octets"] + table["reverse_octets"]


def _protocol(number: int) -> str:
    return PROTOCOL_NAMES.get(number, str(number))


def _counts(column: pd.Series[str]) -> dict[str, int]:
    return {
        str(name): int(count) for name, count in sorted(Counter(column).items(), key=lambda item: (-item[1], item[0]))
    }


def _short(number: int) -> str:
    """A number in three digits and a decimal prefix."""
    if number < 10_000:
        return f"{number:,} "
    value, place = float(number), 0
    while value >= 999.5 and place + 1 < len(_PREFIXES):
        value, place = value / 1000, place + 1
    return f"{value:.3g} {_PREFIXES[place]}"
