"""Delays counted in buckets of constant relative width, so that medians of merged counts stay true. Knows no flow.

The buckets are those of C. Masson, J. E. Rim, H. K. Lee, "DDSketch", VLDB 2019, without its limit of buckets: a delay x
is in bucket ceil(log x / log γ), γ = (1 + ε) / (1 - ε), and a bucket's value is off by at most ε.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

Int64 = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

RELATIVE_ERROR = 0.02
KPIS = ("connect_ns", "first_response_ns")
DELAY_COLUMNS = ("cell", "kpi", "bucket", "flows")

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)


def buckets(delays_ns: Float) -> Int64:
    """The bucket of each finite delay; what is below 1 ns counts as 1 ns."""
    return np.ceil(np.log(np.maximum(delays_ns, 1.0)) / _LOG_GAMMA).astype(np.int64)


def bucket_values_ns(bucket: Int64) -> Float:
    """The delay that stands for each bucket."""
    return np.asarray(2 * np.exp(bucket * _LOG_GAMMA) / (_GAMMA + 1), np.float64)


def none() -> pd.DataFrame:
    """No delays, in the right types."""
    types = dict(zip(DELAY_COLUMNS, ("int64", "int64", "int64", "float64"), strict=True))
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in types.items()})


def summed(delays: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, KPI and bucket, in that order."""
    return delays.groupby(["cell", "kpi", "bucket"], sort=True)["flows"].sum().reset_index()


def medians(delays: pd.DataFrame, classes: int) -> Float:
    """classes × KPIs: the lower median of each, NaN where there is none; `cell` is the class's number here."""
    out = np.full((classes, len(KPIS)), np.nan)
    if delays.empty:
        return out
    table = summed(delays)
    group = (table["cell"] * len(KPIS) + table["kpi"]).to_numpy(np.int64)
    weights = table["flows"].to_numpy(np.float64)
    total = np.bincount(group, weights=weights, minlength=out.size)
    reached = table.groupby(group)["flows"].cumsum().to_numpy(np.float64)
    # half of a decayed total and the sum that reaches it may differ in the last bit
    half = np.flatnonzero(reached >= total[group] / 2 * (1 - 1e-9))
    first = half[np.unique(group[half], return_index=True)[1]]
    out.reshape(-1)[group[first]] = bucket_values_ns(table["bucket"].to_numpy(np.int64)[first])
    return out
