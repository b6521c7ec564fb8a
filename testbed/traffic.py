"""Flows from wherever they are known: captures, other people's flow records, or a flow table in Parquet.

What a what-if replays, a model is made of and `testbed flows` tells. One kind at a time: a flow that a capture and a
record both tell would count twice. It knows the files' kinds, not what is done with the flows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from replay.errors import InvalidCapture
from replay.meter import read_traffic
from replay.ofcm.parquet_file import MAGIC
from replay.payload import PayloadStore
from replay.records import EXPECTED, is_capture, read_flow_records
from testbed.errors import InvalidInput

CAPTURE, RECORDS, FLOW_TABLE = "capture", "flow record", "flow table"
EXPECTED_SOURCE = f"a pcap or pcapng capture, or {EXPECTED}"
TOTALS = "totals"
NEEDED = (
    "flow_id", "start_ns", "end_ns", "protocol", "source_address", "source_port", "destination_address",
    "destination_port", "forward_packets", "reverse_packets", "forward_octets", "reverse_octets", "application",
    "label", "outcome", "close",
)  # fmt: skip
"""What a flow table must tell of a flow that is to be replayed."""

_MESSAGE_COLUMNS = ("sequence", "offset_ns", "gap_ns", "direction", "octets", "payload_ref")


@dataclass(frozen=True)
class Traffic:
    """Flows that can be replayed, with what was said in them where that is known.

    Of records and tables no message is known: their flows have the grade `totals`.
    """

    kind: str
    flows: pd.DataFrame
    messages: pd.DataFrame
    payloads: PayloadStore
    packets: int
    skipped: Mapping[str, int]


def read_flows(files: Sequence[Path]) -> Traffic:
    """Read what the files hold; raises InvalidInput with the file, and with its line where there is one."""
    try:
        kind = kind_of_all(files)
        if kind == CAPTURE:
            metered = read_traffic(files)
            return Traffic(
                kind, metered.flows, metered.messages, metered.payloads, metered.packets, dict(metered.skipped)
            )
        if kind == RECORDS:
            records = read_flow_records(files)
            return _without_words(kind, records.flows, dict(records.skipped))
    except InvalidCapture as problem:
        raise refused(problem) from None
    tables = [_checked(read_flow_table(path), path) for path in files]
    return _without_words(kind, pd.concat(tables, ignore_index=True), {})


def kind_of_all(files: Sequence[Path]) -> str:
    """What all files are; raises InvalidInput where they are of more than one kind, InvalidCapture as readers do."""
    kinds = [kind_of_file(path) for path in files]
    if len(set(kinds)) > 1:
        other = next(place for place, kind in enumerate(kinds) if kind != kinds[0])
        raise InvalidInput(files[other], 1, 1, f"a {kinds[other]} beside a {kinds[0]}", "files of one kind")
    return kinds[0]


def kind_of_file(path: Path) -> str:
    """What a file is by its first octets; what is neither capture nor table is taken for flow records."""
    try:
        with path.open("rb") as file:
            table = file.read(len(MAGIC)) == MAGIC
    except OSError as problem:
        raise InvalidInput(path, 1, 1, (problem.strerror or "unreadable").lower(), "a readable file") from None
    if table:
        return FLOW_TABLE
    return CAPTURE if is_capture(path) else RECORDS


def refused(problem: InvalidCapture) -> InvalidInput:
    """What a reader refused as the error that ends a command, with every form that would have been taken."""
    expected = EXPECTED_SOURCE if problem.expected == EXPECTED else problem.expected
    return InvalidInput(problem.path, problem.line or 1, 1, problem.found, expected)


def read_flow_table(path: Path) -> pd.DataFrame:
    """A flow table as `testbed flows -o` writes it; raises InvalidInput for a file that is no Parquet."""
    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as problem:
        said = " ".join(str(problem).split())[:120]
        raise InvalidInput(path, 1, 1, f"damaged Parquet ({said})", "a flow table") from None


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    missing = [column for column in NEEDED if column not in table.columns]
    if missing:
        raise InvalidInput(
            path, 1, 1, f"a table without the columns {', '.join(missing)}", "a flow table of `testbed flows -o`"
        )
    if table["flow_id"].duplicated().any():
        twice = table["flow_id"][table["flow_id"].duplicated()].iloc[0]
        raise InvalidInput(path, 1, 1, f"the flow {twice} twice", "every flow once")
    return table


def _without_words(kind: str, flows: pd.DataFrame, skipped: Mapping[str, int]) -> Traffic:
    names = pd.Index(flows["flow_id"].drop_duplicates(), dtype="str")
    nothing: list[int] = []
    messages = pd.DataFrame(
        {
            "flow_id": pd.Categorical.from_codes(nothing, categories=names),
            **{column: pd.Series(nothing, dtype="int64") for column in _MESSAGE_COLUMNS},
        }
    )
    packets = int((flows["forward_packets"] + flows["reverse_packets"]).sum())
    return Traffic(kind, flows.assign(grade=TOTALS), messages, PayloadStore.of([]), packets, skipped)
