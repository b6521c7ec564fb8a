"""Tables from outside made a model, or refused by row. Knows no file format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from ipaddress import ip_network

import numpy as np
import pandas as pd

from replay.ofcm.addresses import parsed
from replay.ofcm.delays import KPIS
from replay.ofcm.grouping import Grouping, Zone
from replay.ofcm.model import CELL_TYPES, KEY, MOST_PORT, MOST_PROTOCOL, OUTCOMES, SUMS, Ofcm, rows_of

LIMITS = tuple(field.name for field in fields(Grouping) if field.name != "zones")
_LARGEST_BUCKET = 2_000


class BadRow(ValueError):
    """Row `row` (from 0) is wrong; caught by whoever knows where in the file the row stands."""

    def __init__(self, row: int, found: str, expected: str) -> None:
        self.row, self.found, self.expected = row, found, expected
        super().__init__(row, found, expected)


def grouping_of(zones: Mapping[str, Sequence[str]], limits: Mapping[str, int]) -> Grouping:
    """A grouping from texts and numbers. Raises ValueError with a sentence."""
    return Grouping(
        tuple(Zone(name, tuple(ip_network(text) for text in networks)) for name, networks in zones.items()), **limits
    )


def model_from(grouping: Grouping, cells: pd.DataFrame, delays: pd.DataFrame) -> Ofcm:
    """The model of cells and delays that are canonical, as every saved model's are. Raises BadRow."""
    cells = cells[list(CELL_TYPES)].astype(CELL_TYPES)
    _refuse(~pd.Series(np.isfinite(rows_of(cells, SUMS)).all(axis=1)), "a sum that is no number", "finite numbers")
    _refuse((cells[list(SUMS)] < 0).any(axis=1), "a negative sum", "numbers of at least 0")
    _refuse(cells[list(OUTCOMES)].sum(axis=1) <= 0, "a cell without flows", "at least one outcome above 0")
    _refuse(cells["last_ns"] < cells["first_ns"], "a last time before the first", "first_ns ≤ last_ns")
    for name, most in (("protocol", MOST_PROTOCOL), ("port", MOST_PORT)):
        _refuse(~cells[name].between(0, most), f"a {name} that cannot be", f"0 to {most}")
    for name in ("source_address", "destination_address"):
        _check_addresses(cells[name], grouping)
    keys = cells[list(KEY)]
    ordered = keys.sort_values(list(KEY), kind="stable").index.to_numpy()
    _refuse(pd.Series(ordered != np.arange(len(keys))), "a cell out of order", "cells in the order of their keys")
    _refuse(keys.duplicated(), "a cell twice", "every cell once")
    known = delays["cell"].between(0, len(cells) - 1) & delays["kpi"].between(0, len(KPIS) - 1)
    fine = known & delays["bucket"].between(0, _LARGEST_BUCKET) & (delays["flows"] > 0) & np.isfinite(delays["flows"])
    ascending = delays.sort_values(["cell", "kpi", "bucket"], kind="stable").index.to_numpy() == np.arange(len(delays))
    fine &= ascending & ~delays.duplicated(["cell", "kpi", "bucket"])
    if not fine.all():
        row = int(delays["cell"][~fine].iloc[0])
        raise BadRow(row, "a count of delays that cannot be", "ascending buckets with counts above 0")
    types = {"cell": "int64", "kpi": "int64", "bucket": "int64", "flows": "float64"}
    return Ofcm(grouping, cells.reset_index(drop=True), delays.astype(types).reset_index(drop=True))


def _check_addresses(texts: pd.Series[str], grouping: Grouping) -> None:
    codes, distinct = pd.factorize(texts)
    names = [str(name) for name in distinct]
    for place, name in enumerate(names):
        try:
            parsed([name])
        except ValueError:
            raise BadRow(int(np.argmax(codes == place)), f"the address {name!r}", "an IP address") from None
    every = parsed(names)
    bits = np.where(every.family == 4, *grouping.grain)
    for place, (name, cut) in enumerate(zip(names, every.cut(bits).texts(), strict=True)):
        if cut != name:
            row = int(np.argmax(codes == place))
            raise BadRow(row, f"the address {name!r}", f"{cut}, the same at the grain of {bits[place]} bits")


def _refuse(wrong: pd.Series[bool], found: str, expected: str) -> None:
    if wrong.any():
        raise BadRow(int(np.argmax(wrong.to_numpy())), found, expected)
