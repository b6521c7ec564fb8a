"""Models made of captures, flow records and flow tables, and put into files: shared by `model build` and `flows`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import pandas as pd
import pyarrow as pa

from replay.errors import InvalidCapture
from replay.meter import read_traffic
from replay.ofcm import Grouping, Ofcm, classes, decayed, merged, model_of, timed
from replay.ofcm.errors import InvalidModel
from replay.ofcm.parquet_file import MAGIC
from replay.ofcm.store import SUFFIXES, load, save
from replay.records import EXPECTED, is_capture, read_flow_records
from testbed.errors import InvalidInput

EXPECTED_SOURCE = f"a pcap or pcapng capture, or {EXPECTED}"
CAPTURE, RECORDS, FLOW_TABLE = "capture", "flow record", "flow table"


def loaded(path: Path) -> Ofcm:
    """A model from its file; InvalidInput tells what is wrong with it."""
    try:
        return load(path)
    except InvalidModel as problem:
        raise InvalidInput(problem.path, problem.line, problem.column, problem.found, problem.expected) from None


def check_suffix(output: Path) -> None:
    """Refuse a file whose name says nothing of the model's form, before anything is read."""
    if output.suffix not in SUFFIXES:
        raise InvalidInput(output, 1, 1, f"the suffix {output.suffix!r}", f"one of: {', '.join(SUFFIXES)}")


def brought_up_to_date(onto: Ofcm | None, made: Ofcm, keep: float = 1.0) -> Ofcm:
    """The new model, or the old one with it; `keep` (above 0, at most 1) is what old flows still count."""
    return made if onto is None else merged(decayed(onto, keep), made)


def written(made: Ofcm, output: Path) -> str:
    """Save a model, and say in one sentence what was saved."""
    try:
        save(made, output)
    except (OSError, ValueError) as problem:
        raise InvalidInput(output, 1, 1, str(problem), "a place and a form for the model") from None
    return f"{output}: {made.flows:,.10g} flows, {len(made.cells):,} cells, {len(classes(made)):,} classes"


def refused(problem: InvalidCapture) -> InvalidInput:
    """What a reader refused as the error that ends a command, with every form that would have been taken."""
    expected = EXPECTED_SOURCE if problem.expected == EXPECTED else problem.expected
    return InvalidInput(problem.path, problem.line or 1, 1, problem.found, expected)


def of_sources(sources: Sequence[Path], grouping: Grouping) -> Ofcm:
    """One kind at a time: a flow that a capture and a record both tell would count twice."""
    try:
        kinds = [_kind(path) for path in sources]
        if len(set(kinds)) > 1:
            other = next(place for place, kind in enumerate(kinds) if kind != kinds[0])
            raise InvalidInput(
                sources[other], 1, 1, f"a {kinds[other]} beside a {kinds[0]}", "one kind; add other flows with --onto"
            )
        if kinds[0] == CAPTURE:
            return model_of(timed(read_traffic(sources)), grouping)
        if kinds[0] == RECORDS:
            return of_flows(read_flow_records(sources).flows, sources[0], grouping)
    except InvalidCapture as problem:
        raise refused(problem) from None
    return reduce(merged, [_of_table(path, grouping) for path in sources])


def of_flows(flows: pd.DataFrame, path: Path, grouping: Grouping) -> Ofcm:
    """The model of a flow table that came from `path`."""
    try:
        return model_of(flows, grouping)
    except ValueError as problem:
        found, _, expected = str(problem).partition(", expected ")
        raise InvalidInput(path, 1, 1, found, expected or "a flow table") from None


def _kind(path: Path) -> str:
    if _starts_with(path, MAGIC):
        return FLOW_TABLE
    return CAPTURE if is_capture(path) else RECORDS


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as problem:
        raise InvalidInput(path, 1, 1, problem.strerror or "an unreadable file", "a readable file") from None


def _of_table(path: Path, grouping: Grouping) -> Ofcm:
    try:
        flows = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as problem:
        said = " ".join(str(problem).split())[:120]
        raise InvalidInput(path, 1, 1, f"damaged Parquet ({said})", "a flow table") from None
    return of_flows(flows, path, grouping)
