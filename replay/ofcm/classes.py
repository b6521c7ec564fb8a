"""Cells to equivalence classes: flows that the network controlled alike, as people read them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from replay.ofcm.addresses import Int64, parsed
from replay.ofcm.delays import KPIS, medians
from replay.ofcm.grouping import UNZONED, Grouping
from replay.ofcm.model import CELL_TYPES, OUTCOMES, SEEN, TIMES, VOLUMES, Ofcm
from replay.ofcm.prefixes import cover

Float = npt.NDArray[np.float64]

CONFIDENCE = 0.95
POOLED_PORT = -1
CLASS_KEY = ("source", "destination", "protocol", "port", "application")


@dataclass(frozen=True, slots=True)
class Partition:
    """Which class each cell is in, and what the classes are called: CLASS_KEY, and whether the source is a zone."""

    of_cell: Int64
    names: pd.DataFrame


def classes(model: Ofcm) -> pd.DataFrame:
    """The model's classes, most flows first.

    Columns: CLASS_KEY (a port of POOLED_PORT is the pool of rare ports), `zone` (the source is a zone's name),
    `sources` (addresses seen), `flows`, the OUTCOMES, `disposition` (the most frequent outcome), `share` of it with its
    Wilson interval `share_low` to `share_high` (95 %), VOLUMES, medians `connect_ns` and `first_response_ns` (NaN where
    not measured; replay.ofcm.delays has their error), `label`, `translation`, `path` (the most frequent, "" where none
    was seen), `first_ns`, `last_ns`.
    """
    partition = parted(model.grouping, [model.cells])
    table = described(partition.names, partition.of_cell, model.cells, model.delays)
    order = ["flows", *CLASS_KEY]
    return table.sort_values(order, ascending=[False] + [True] * len(CLASS_KEY), ignore_index=True)


def parted(grouping: Grouping, epochs: list[pd.DataFrame]) -> Partition:
    """One partition of the cells of one epoch or two, rows one after the other, that agrees in every epoch."""
    cells = pd.concat(epochs, ignore_index=True)
    outcomes = np.zeros((len(cells), len(epochs), len(OUTCOMES)))
    at = 0
    for place, epoch in enumerate(epochs):
        outcomes[at : at + len(epoch), place] = epoch[list(OUTCOMES)].to_numpy(np.float64)
        at += len(epoch)
    if cells.empty:
        empty = {name: pd.Series(dtype=CELL_TYPES.get(name, "str")) for name in CLASS_KEY}
        return Partition(np.zeros(0, np.int64), pd.DataFrame({**empty, "zone": pd.Series(dtype="bool")}))
    services = _services(cells, outcomes.sum(axis=1), grouping.most_ports)
    service = np.asarray(services.groupby(list(services.columns), sort=True).ngroup(), np.int64)

    codes, texts = _coded(cells["destination_address"])
    to = cover(service, parsed(texts)[codes], outcomes, grouping.grain, grouping.destinations)

    codes, texts = _coded(cells["source_address"])
    sources = parsed(texts)
    zone = grouping.zone_of(sources)[codes]
    unzoned = np.flatnonzero(zone == UNZONED)
    by = cover(to.of_row[unzoned], sources[codes[unzoned]], outcomes[unzoned], grouping.grain, grouping.sources)
    source = zone.copy()
    source[unzoned] = len(grouping.zones) + by.of_row
    named = np.array([zone.name for zone in grouping.zones] + by.texts(), dtype=object)

    combined = to.of_row * len(named) + source
    _, first, of_cell = np.unique(combined, return_index=True, return_inverse=True)
    names = pd.DataFrame(
        {
            "source": pd.Series(named[source[first]], dtype="str"),
            "destination": pd.Series(np.array(to.texts(), dtype=object)[to.of_row[first]], dtype="str"),
            **{name: services[name].to_numpy()[first] for name in ("protocol", "port")},
            "application": pd.Series(services["application"].to_numpy()[first], dtype="str"),
            "zone": zone[first] != UNZONED,
        }
    )
    return Partition(of_cell, names)


def described(names: pd.DataFrame, of_cell: Int64, cells: pd.DataFrame, delays: pd.DataFrame) -> pd.DataFrame:
    """The columns of `classes`, a row per name in its order; a class of no cell has no flow and no disposition."""
    count = len(names)
    table = names.copy()
    pairs = pd.DataFrame({"of": of_cell, "source": cells["source_address"].to_numpy()}).drop_duplicates()
    table["sources"] = np.bincount(pairs["of"].to_numpy(np.int64), minlength=count)
    counts = np.stack([_total(cells[name], of_cell, count) for name in OUTCOMES], axis=1)
    flows, most = counts.sum(axis=1), counts.max(axis=1, initial=0)
    table["flows"] = flows
    table[list(OUTCOMES)] = counts
    dominant = np.array(OUTCOMES, dtype=object)[np.argmax(counts, axis=1)] if count else np.zeros(0, object)
    table["disposition"] = pd.Series(np.where(flows > 0, dominant, ""), dtype="str")
    table["share"], table["share_low"], table["share_high"] = _shares(most, flows)
    for name in VOLUMES:
        table[name] = _total(cells[name], of_cell, count)
    middle = medians(delays.assign(cell=of_cell[delays["cell"].to_numpy(np.int64)]), count)
    for place, kpi in enumerate(KPIS):
        table[kpi] = middle[:, place]
    weight = cells[list(OUTCOMES)].sum(axis=1).to_numpy(np.float64)
    for name in SEEN[1:]:
        table[name] = _commonest(cells[name], weight, of_cell, count)
    for name, how in zip(TIMES, ("min", "max"), strict=True):
        times = cells[name].groupby(of_cell).agg(how).reindex(range(count), fill_value=0)
        table[name] = times.to_numpy(np.int64)
    return table


def _services(cells: pd.DataFrame, outcomes: Float, most_ports: int) -> pd.DataFrame:
    """Protocol, port and application of each cell; the rarest ports of a protocol and disposition become one."""
    counted = pd.DataFrame(outcomes, columns=list(OUTCOMES))
    counted[["protocol", "port"]] = cells[["protocol", "port"]].to_numpy(np.int64)
    ports = counted.groupby(["protocol", "port"], sort=True, as_index=False).sum()
    ports["disposition"] = np.argmax(ports[list(OUTCOMES)].to_numpy(), axis=1)
    ports["flows"] = ports[list(OUTCOMES)].sum(axis=1)
    ordered = ports.sort_values(["flows", "port"], ascending=[False, True], kind="stable")
    rank = ordered.groupby(["protocol", "disposition"]).cumcount().reindex(ports.index)
    rare = ports.loc[rank >= most_ports, ["protocol", "port"]]
    pooled = pd.MultiIndex.from_frame(cells[["protocol", "port"]]).isin(pd.MultiIndex.from_frame(rare))
    return pd.DataFrame(
        {
            "protocol": cells["protocol"].to_numpy(np.int64),
            "port": np.where(pooled, POOLED_PORT, cells["port"]),
            "application": cells["application"].where(~pooled, "").to_numpy(),
        }
    )


def _coded(texts: pd.Series[str]) -> tuple[Int64, list[str]]:
    codes, names = pd.factorize(texts)
    return codes.astype(np.int64), names.tolist()


def _total(values: pd.Series[float], of_cell: Int64, count: int) -> Float:
    return np.asarray(np.bincount(of_cell, weights=values.to_numpy(np.float64), minlength=count), np.float64)


def _shares(most: Float, flows: Float) -> tuple[Float, Float, Float]:
    from statsmodels.stats.proportion import proportion_confint  # noqa: PLC0415  half a second to import

    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = proportion_confint(most, flows, alpha=1 - CONFIDENCE, method="wilson")
        return np.asarray(most / flows, np.float64), np.asarray(low, np.float64), np.asarray(high, np.float64)


def _commonest(texts: pd.Series[str], weight: Float, of_cell: Int64, count: int) -> pd.Series[str]:
    said = pd.DataFrame({"of": of_cell, "text": texts.to_numpy(), "weight": weight})
    said = said[said["text"] != ""].groupby(["of", "text"], as_index=False, sort=True).sum()
    said = said.sort_values(["of", "weight", "text"], ascending=[True, False, True]).drop_duplicates("of")
    named: pd.Series[str] = said.set_index("of")["text"].reindex(range(count), fill_value="")
    return named.astype("str")
