"""Models made of captures, flow records and flow tables, and put into files: shared by `model build` and `flows`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import pandas as pd

from replay.errors import InvalidCapture
from replay.meter import read_traffic
from replay.ofcm import Grouping, Ofcm, classes, decayed, merged, model_of, timed
from replay.ofcm.store import SUFFIXES, save
from replay.records import read_flow_records
from testbed.errors import InvalidInput
from testbed.traffic import CAPTURE, RECORDS, kind_of_all, read_flow_table, refused


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


def of_sources(sources: Sequence[Path], grouping: Grouping) -> Ofcm:
    """One kind at a time: a flow that a capture and a record both tell would count twice."""
    try:
        kind = kind_of_all(sources)
        if kind == CAPTURE:
            return model_of(timed(read_traffic(sources)), grouping)
        if kind == RECORDS:
            return of_flows(read_flow_records(sources).flows, sources[0], grouping)
    except InvalidCapture as problem:
        raise refused(problem) from None
    return reduce(merged, [of_flows(read_flow_table(path), path, grouping) for path in sources])


def of_flows(flows: pd.DataFrame, path: Path, grouping: Grouping) -> Ofcm:
    """The model of a flow table that came from `path`."""
    try:
        return model_of(flows, grouping)
    except ValueError as problem:
        found, _, expected = str(problem).partition(", expected ")
        raise InvalidInput(path, 1, 1, found, expected or "a flow table") from None
