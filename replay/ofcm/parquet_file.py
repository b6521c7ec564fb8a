"""A model as Parquet: a row per cell, delays as lists beside it, the grouping in the file's metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from replay.ofcm.checked import LIMITS, BadRow, grouping_of, model_from
from replay.ofcm.delays import KPIS
from replay.ofcm.errors import InvalidModel
from replay.ofcm.grouping import Grouping
from replay.ofcm.model import CELL_TYPES, Ofcm

MAGIC = b"PAR1"
SCHEMA_VERSION = 1
_META = b"observed_flow_control_model"
_ARROW = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64()}


def _schema() -> Any:
    fields = [pa.field(name, _ARROW[dtype]) for name, dtype in CELL_TYPES.items()]
    for kpi in KPIS:
        fields.append(pa.field(f"{kpi}_buckets", pa.list_(pa.int64())))
        fields.append(pa.field(f"{kpi}_flows", pa.list_(pa.float64())))
    return pa.schema(fields)


def write_parquet(model: Ofcm, path: Path) -> None:
    """Write the model, compressed with zstd."""
    columns = [pa.array(model.cells[name], type=_ARROW[dtype]) for name, dtype in CELL_TYPES.items()]
    for place in range(len(KPIS)):
        mine = model.delays[model.delays["kpi"] == place]
        sizes = np.bincount(mine["cell"].to_numpy(np.int64), minlength=len(model.cells))
        offsets = pa.array(np.concatenate(([0], np.cumsum(sizes))).astype(np.int32))
        for name, kind in (("bucket", pa.int64()), ("flows", pa.float64())):
            columns.append(pa.ListArray.from_arrays(offsets, pa.array(mine[name].to_numpy(), type=kind)))
    zones = {zone.name: [str(network) for network in zone.networks] for zone in model.grouping.zones}
    limits = {name: asdict(model.grouping)[name] for name in LIMITS}
    meta = {_META: json.dumps({"schema": SCHEMA_VERSION, "zones": zones, "limits": limits}).encode()}
    pq.write_table(pa.table(columns, schema=_schema().with_metadata(meta)), path, compression="zstd")


def read_parquet(path: Path) -> Ofcm:
    """Read what write_parquet wrote. Raises InvalidModel."""
    try:
        schema = pq.read_schema(path)
        meta = (schema.metadata or {}).get(_META)
        if meta is None:
            raise InvalidModel(path, "Parquet of something else", "an observed flow control model")
        grouping = _grouping(path, meta)
        if not schema.equals(_schema()):
            raise InvalidModel(path, "other columns", f"the columns of schema {SCHEMA_VERSION}")
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidModel(path, f"damaged Parquet ({_short(error)})", "an observed flow control model") from None
    if any(table.column(name).null_count for name in table.column_names):
        raise InvalidModel(path, "a null", "a value in every column of every row")
    try:
        return model_from(grouping, table.select(list(CELL_TYPES)).to_pandas(), _delays(table))
    except BadRow as bad:
        raise InvalidModel(path, f"{bad.found} in row {bad.row}", bad.expected) from None
    except (pa.ArrowException, ValueError) as error:
        raise InvalidModel(path, f"damaged Parquet ({_short(error)})", "an observed flow control model") from None


def _delays(table: Any) -> pd.DataFrame:
    parts = []
    for place, kpi in enumerate(KPIS):
        buckets, flows = (table.column(f"{kpi}_{name}").combine_chunks() for name in ("buckets", "flows"))
        sizes = _sizes(buckets)
        if not np.array_equal(sizes, _sizes(flows)):
            raise BadRow(int(np.argmax(sizes != _sizes(flows))), f"{kpi} buckets without counts", "one count a bucket")
        parts.append(
            pd.DataFrame(
                {
                    "cell": np.repeat(np.arange(len(sizes)), sizes),
                    "kpi": place,
                    "bucket": buckets.flatten().to_numpy(zero_copy_only=False),
                    "flows": flows.flatten().to_numpy(zero_copy_only=False),
                }
            )
        )
    return pd.concat(parts, ignore_index=True).sort_values(["cell", "kpi"], kind="stable", ignore_index=True)


def _sizes(lists: Any) -> npt.NDArray[np.int64]:
    sizes: npt.NDArray[np.int64] = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return sizes


def _grouping(path: Path, meta: bytes) -> Grouping:
    try:
        said = json.loads(meta)
        version = said["schema"]
        if version == SCHEMA_VERSION:
            return grouping_of(said["zones"], {name: int(said["limits"][name]) for name in LIMITS})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidModel(path, f"damaged metadata ({_short(error)})", "zones and limits") from None
    raise InvalidModel(path, f"schema {version!r}", f"schema {SCHEMA_VERSION}")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
