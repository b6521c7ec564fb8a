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
from replay.flow_priority import PRIORITIES, classified
from replay.meter import Metered, read_traffic
from replay.ofcm import Grouping, timed
from replay.point_kpis import point_kpis
from replay.records import KINDS, is_capture, kind_of, read_flow_records
from replay.records.protocols import PROTOCOL_NAMES
from replay.records.vpc import columns_of
from testbed.cli.flow_kpis import kpi_document, show_kpis
from testbed.cli.model_build import (
    brought_up_to_date,
    check_suffix,
    of_flows,
    written,
)
from testbed.errors import InvalidInput
from testbed.flow_rules import flow_rule
from testbed.model_file import read_model
from testbed.policy import read_policy, tagged
from testbed.traffic import EXPECTED_SOURCE, refused

OUTCOMES = {"accepted": "green", "denied": "red", "reset": "magenta", "unanswered": "yellow"}
GROUPS = {"class": "flow_class", "protocol": "protocol", "outcome": "outcome"}
_PREFIXES = ("", "k", "M", "G", "T", "P")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sources hold: the flow table, how many packets it was made from, what was left out, what it was.

    `metered` has all tables of the meter, where they were asked for and the sources are captures.
    """

    flows: pd.DataFrame
    packets: int
    skipped: Counter[str]
    kinds: tuple[str, ...]
    metered: Metered | None = None


@click.command(
    epilog="\b\nExample:\n  testbed flows topologies/shop/traffic/internet.pcap\n"
    "  testbed flows vpc-logs/ --by outcome -o flows.parquet\n  testbed flows conn.log --json | jq .by_protocol\n"
    "  testbed flows today.pcap --kpis --by class --policy policy.yaml -o kpis.parquet\n"
    "  testbed flows today.pcap --model week.parquet --onto week.parquet"
)
@click.argument("source", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For programs: counts by protocol, outcome, class and grade.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the table as Parquet.")
@click.option("--kpis", is_flag=True, help="Tell production's own KPIs of a capture: p50, p95 and p99 a group.")
@click.option("--model", type=click.Path(path_type=Path, dir_okay=False), help="Write the model too (.yaml, .parquet).")
@click.option(
    "--onto", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Bring this model up to date."
)
@click.option("--by", default="protocol", show_default=True, type=click.Choice(list(GROUPS)), help="What a row is.")
@click.option(
    "--policy", type=click.Path(path_type=Path), help="The policy.yaml whose classes the flows are sorted into."
)
@click.option("--kind", type=click.Choice(list(KINDS)), help="Take the files for this, whatever they look like.")
@click.option("--inner", is_flag=True, help="Of a capture's tunnels, the flows inside: VXLAN, GENEVE, GTP, GRE, IP.")
@click.option("--layout", metavar="FORMAT", help="The format string of VPC Flow Logs that have no header line.")
def flows(  # noqa: PLR0913, PLR0917  an argument an option
    source: tuple[Path, ...],
    as_json: bool,
    output: Path | None,
    kpis: bool,
    model: Path | None,
    onto: Path | None,
    by: str,
    policy: Path | None,
    kind: str | None,
    inner: bool,
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
    if onto is not None and model is None:
        raise click.UsageError("--onto is for --model FILE: where the model that is brought up to date is written")
    if model is not None:
        check_suffix(model)
    before = None if onto is None else read_model(onto)
    given = read_policy(policy)
    given = given if policy is None else tagged(given, policy, None)
    rules = [flow_rule(rule) for rule in given.classes]
    progress = Console(stderr=True, highlight=False, quiet=as_json or not sys.stderr.isatty())
    with progress.status("read"):
        files, left_out = _files(source, only_known=kind is None and layout is None)
        seen = read_sources(files, kind, layout, whole=kpis or model is not None, inner=inner)
    if left_out:
        seen.skipped["other_file"] += left_out
    table = classified(seen.flows, rules)
    told = None if as_json else Console(highlight=False)
    if kpis:
        _kpis(table, seen, by, files[0], output, told)
    else:
        _flows(table, seen, by, output, told)
    if model is not None:
        grouping = Grouping() if before is None else before.grouping
        made = of_flows(seen.flows if seen.metered is None else timed(seen.metered), files[0], grouping)
        click.echo(written(brought_up_to_date(before, made), model), err=as_json)
    return 0


def _flows(table: pd.DataFrame, seen: Seen, by: str, output: Path | None, told: Console | None) -> None:
    if output is not None:
        _write(table, output)
    if told is None:
        click.echo(json.dumps(document(table, seen), indent=2))
    else:
        show(table, seen, by, told)


def _kpis(table: pd.DataFrame, seen: Seen, by: str, source: Path, output: Path | None, told: Console | None) -> None:
    if seen.metered is None:
        raise InvalidInput(source, 1, 1, "flow records, which tell no message", "a capture")
    measured = point_kpis(seen.metered)
    if output is not None:
        _write(measured, output)
    groups = table[["priority"]].assign(**{by: _keys(table, by)})
    if told is None:
        click.echo(json.dumps(kpi_document(measured, groups, by), indent=2))
    else:
        show_kpis(measured, groups, by, told)


def read_sources(
    files: Sequence[Path],
    kind: str | None = None,
    layout: str | None = None,
    *,
    whole: bool = False,
    inner: bool = False,
) -> Seen:
    """Read captures or flow records; raises InvalidInput with the file, and with its line where there is one.

    `whole` keeps the meter's other tables too.
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
            traffic = read_traffic(captures, flows_only=not whole, inner=inner)
            return Seen(traffic.flows, traffic.packets, traffic.skipped, ("capture",), traffic if whole else None)
        records = read_flow_records(files, layout=layout, kind=kind)
    except InvalidCapture as problem:
        raise refused(problem) from None
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
    key = _keys(table, by)
    outcomes = {} if by == "outcome" else OUTCOMES
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column(by, overflow="fold")
    for heading in ("flows", *outcomes, "packets", "octets"):
        shown.add_column(heading, justify="right", no_wrap=True)
    first = table["priority"].map(PRIORITIES.index)
    groups = sorted(
        table.groupby(key.to_numpy()),
        key=lambda group: (first[group[1].index].min() if by == "class" else 0, -len(group[1]), str(group[0])),
    )
    for name, rows in groups:
        cells = [Text(str(name), OUTCOMES.get(str(name), "")), Text(f"{len(rows):,}")]
        for outcome, style in outcomes.items():
            count = int((rows["outcome"] == outcome).sum())
            cells.append(Text(f"{count:,}", style) if count else Text("–", "dim"))
        cells += [Text(_short(int(_packets(rows).sum()))), Text(_short(int(_octets(rows).sum())))]
        shown.add_row(*cells)
    return shown


def _keys(table: pd.DataFrame, by: str) -> pd.Series[str]:
    return table[GROUPS[by]].map(_protocol) if by == "protocol" else table[GROUPS[by]]


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
