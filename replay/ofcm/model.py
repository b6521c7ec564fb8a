"""The observed flow control model: what it keeps of flows, and how more flows, or time, change it.

A model keeps cells: a row per source, destination, protocol, service port, application, label, translation and path,
with sums, a first and a last time. Sums do not depend on order, so a model brought up to date equals one built at
once; what people read, the classes (replay.ofcm.classes), is made of the cells anew each time. This file knows the
flow table, not captures, and no topology.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replay.ofcm.addresses import BITS, parsed
from replay.ofcm.delays import KPIS, buckets, none, summed
from replay.ofcm.grouping import Grouping

OUTCOMES = ("accepted", "denied", "reset", "unanswered")
PLACE = ("source_address", "destination_address", "protocol", "port")
SEEN = ("application", "label", "translation", "path")
KEY = PLACE + SEEN
VOLUMES = ("forward_packets", "reverse_packets", "forward_octets", "reverse_octets")
SUMS = OUTCOMES + VOLUMES
TIMES = ("first_ns", "last_ns")
CELL_TYPES = (
    dict.fromkeys(KEY, "str")
    | {"protocol": "int64", "port": "int64"}
    | dict.fromkeys(SUMS, "float64")
    | dict.fromkeys(TIMES, "int64")
)

FORGOTTEN_BELOW_FLOWS = 0.01
MOST_PROTOCOL, MOST_PORT = 255, 65_535
NEEDED = (
    "start_ns", "end_ns", "protocol", "source_address", "destination_address", "destination_port", *VOLUMES, "outcome"
)  # fmt: skip
_NO_GROUPING = Grouping()


@dataclass(frozen=True, slots=True, eq=False)
class Ofcm:
    """Who was seen talking to whom, and what the network did; equal by value.

    `cells` has the columns CELL_TYPES, by KEY in order; sums are floats, exact up to 2⁵³ until a decay makes fractions
    of them. `delays` counts flows by cell (its row), KPI (place in KPIS) and bucket (replay.ofcm.delays).
    """

    grouping: Grouping
    cells: pd.DataFrame
    delays: pd.DataFrame

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ofcm):
            return NotImplemented
        return self.grouping == other.grouping and self.cells.equals(other.cells) and self.delays.equals(other.delays)

    __hash__ = None  # type: ignore[assignment]

    @property
    def flows(self) -> float:
        """How many flows it was made of, less what decay took."""
        return float(self.cells[list(OUTCOMES)].to_numpy().sum())


def model_of(flows: pd.DataFrame, grouping: Grouping = _NO_GROUPING) -> Ofcm:
    """The model of a flow table (design section 5).

    The columns application, label, translation, path, connect_ns and first_response_ns may be missing; an empty text
    and a delay that is not finite mean that nothing was seen. Raises ValueError for a table that is none, naming what
    is wrong.
    """
    _check(flows)
    cells = pd.DataFrame(
        {
            "source_address": _kept(flows["source_address"], grouping),
            "destination_address": _kept(flows["destination_address"], grouping),
            "protocol": flows["protocol"],
            "port": flows["destination_port"],
            **{name: _text(flows, name) for name in SEEN},
            **{outcome: flows["outcome"] == outcome for outcome in OUTCOMES},
            **{name: flows[name] for name in VOLUMES},
            "first_ns": flows["start_ns"],
            "last_ns": flows["end_ns"],
        }
    )
    cells = cells.reset_index(drop=True).astype(CELL_TYPES)
    delays = [_delays(flows, place, kpi) for place, kpi in enumerate(KPIS) if kpi in flows.columns]
    return _canonical(grouping, cells, pd.concat([none(), *delays], ignore_index=True))


def updated(model: Ofcm, flows: pd.DataFrame, keep: float = 1.0) -> Ofcm:
    """The model with more flows: with `keep` 1 the one that all flows at once would have given.

    Below 1 what the model knew is decayed by it first.
    """
    return merged(decayed(model, keep), model_of(flows, model.grouping))


def merged(one: Ofcm, other: Ofcm) -> Ofcm:
    """The model of both models' flows. Raises ValueError where their grouping differs."""
    if one.grouping != other.grouping:
        raise ValueError("models of different zones, limits or grain cannot be merged")
    moved = other.delays.assign(cell=other.delays["cell"] + len(one.cells))
    cells = pd.concat([one.cells, other.cells], ignore_index=True)
    return _canonical(one.grouping, cells, pd.concat([one.delays, moved], ignore_index=True))


def decayed(model: Ofcm, keep: float) -> Ofcm:
    """The model with every sum multiplied by `keep` (0 to 1); cells of fewer than FORGOTTEN_BELOW_FLOWS flows go."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}, expected a number above 0 and at most 1")
    if keep == 1:
        return model
    sums = list(SUMS)
    cells = model.cells.copy()
    cells[sums] *= keep
    stays = (cells[list(OUTCOMES)].sum(axis=1) >= FORGOTTEN_BELOW_FLOWS).to_numpy(np.bool_)
    number = np.cumsum(stays) - 1
    of = model.delays["cell"].to_numpy(np.int64)
    delays = model.delays.assign(flows=model.delays["flows"] * keep, cell=number[of] if len(of) else of)
    return Ofcm(model.grouping, cells[stays].reset_index(drop=True), delays[stays[of]].reset_index(drop=True))


def _check(flows: pd.DataFrame) -> None:
    missing = [name for name in NEEDED if name not in flows.columns]
    if missing:
        raise ValueError(f"no column {missing[0]!r}, expected a flow table with {', '.join(NEEDED)}")
    unknown = set(flows["outcome"].unique().tolist()) - set(OUTCOMES)
    if unknown:
        raise ValueError(f"the outcome {sorted(map(str, unknown))[0]!r}, expected one of {', '.join(OUTCOMES)}")
    for name in NEEDED:
        if name not in ("source_address", "destination_address", "outcome"):
            if not pd.api.types.is_integer_dtype(flows[name]):
                raise ValueError(f"the column {name!r} of type {flows[name].dtype}, expected whole numbers")
            if name != "start_ns" and len(flows) and flows[name].min() < 0:
                raise ValueError(f"a negative number in the column {name!r}, expected none")
    ranges = (("protocol", MOST_PROTOCOL), ("destination_port", MOST_PORT))
    for name, most in ranges:
        if len(flows) and flows[name].max() > most:
            raise ValueError(f"{flows[name].max()} in the column {name!r}, expected at most {most}")


def _kept(texts: pd.Series[str], grouping: Grouping) -> pd.Series[str]:
    """Addresses cut to the grain, and written in one way."""
    codes, names = pd.factorize(texts)
    if (codes < 0).any():
        raise ValueError("an address is missing, expected one in every row")
    addresses = parsed([str(name) for name in names])
    bits = np.where(addresses.family == 4, grouping.grain_ipv4, grouping.grain_ipv6)
    if (bits != np.where(addresses.family == 4, BITS[4], BITS[6])).any():
        addresses = addresses.cut(bits)
    written = pd.Series(addresses.texts(), dtype="str")
    return pd.Series(written.take(codes).to_numpy(), index=texts.index, dtype="str")


def _text(flows: pd.DataFrame, name: str) -> pd.Series[str]:
    if name not in flows.columns:
        return pd.Series("", index=flows.index, dtype="str")
    return flows[name].fillna("").astype("str")


def _delays(flows: pd.DataFrame, place: int, kpi: str) -> pd.DataFrame:
    values = flows[kpi].to_numpy(np.float64, na_value=np.nan)
    known = np.flatnonzero(np.isfinite(values))
    return pd.DataFrame({"cell": known, "kpi": place, "bucket": buckets(values[known]), "flows": 1.0})


def _canonical(grouping: Grouping, cells: pd.DataFrame, delays: pd.DataFrame) -> Ofcm:
    """Rows of the same key summed, in the order of the key."""
    groups = cells.groupby(list(KEY), sort=True)
    how: dict[str, str] = dict.fromkeys(SUMS, "sum") | {"first_ns": "min", "last_ns": "max"}
    one_each = groups.agg(how).reset_index()[list(CELL_TYPES)].astype(CELL_TYPES)
    number = groups.ngroup().to_numpy(np.int64)
    of = delays["cell"].to_numpy(np.int64)
    moved = summed(delays.assign(cell=number[of] if len(of) else of))
    return Ofcm(grouping, one_each, moved.astype({"cell": "int64", "kpi": "int64", "bucket": "int64"}))


def rows_of(cells: pd.DataFrame, names: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Columns of sums as one array."""
    return cells[list(names)].to_numpy(np.float64)
