"""A folder of labelled series, as the Numenta Anomaly Benchmark lays it out: CSV files, and windows.json beside them.

Knows files and labels; neither detectors nor scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from analysis.detect.port import Reading
from testbed.bench.detect_nab import Labelled
from testbed.errors import InvalidInput, Unsupported
from testbed.series_file import read_series

WINDOWS_FILE = "windows.json"
PLACES = (Path("../shared/nab"), Path("nab"))
"""Where the corpus is looked for, from the working directory, when nobody says."""

_WINDOWS = TypeAdapter(dict[str, list[tuple[datetime, datetime]]])


@dataclass(frozen=True, slots=True)
class Series:
    """One file of the corpus: its name, its readings, and its windows as rows."""

    name: str
    readings: tuple[Reading, ...]
    labels: Labelled

    def values(self) -> npt.NDArray[np.float64]:
        """The bare values."""
        return np.array([reading.value for reading in self.readings])


def corpus_folder(asked: Path | None) -> Path:
    """The folder asked for, or the first of the usual places that holds one; raises Unsupported without any."""
    for place in PLACES if asked is None else (asked,):
        if (place / WINDOWS_FILE).is_file():
            return place
    raise Unsupported(
        f"no corpus with a {WINDOWS_FILE} in {asked or ' or '.join(map(str, PLACES))}",
        "name the folder that holds one: testbed bench detect --corpus DIR",
    )


def read_corpus(folder: Path) -> tuple[Series, ...]:
    """Every file that windows.json names, in its order; raises InvalidInput with the place of what is wrong."""
    path = folder / WINDOWS_FILE
    try:
        windows: Mapping[str, list[tuple[datetime, datetime]]] = _WINDOWS.validate_json(path.read_bytes())
    except ValidationError as problem:
        first = problem.errors()[0]
        place = " → ".join(map(str, first["loc"])) or "the document"
        raise InvalidInput(path, 1, 1, f"{place}: {first['msg']}", "file name → list of [start, end]") from None
    return tuple(_series(folder, name, spans) for name, spans in windows.items())


def _series(folder: Path, name: str, spans: list[tuple[datetime, datetime]]) -> Series:
    readings = read_series(folder / name)
    times = np.array([reading.time_ns for reading in readings], np.int64)
    rows = []
    for start, end in spans:
        inside = np.flatnonzero((times >= _ns(start)) & (times <= _ns(end)))
        if not len(inside):
            raise InvalidInput(folder / WINDOWS_FILE, 1, 1, f"{name}: no row from {start} to {end}", "a window of rows")
        rows.append((int(inside[0]), int(inside[-1])))
    return Series(name, readings, Labelled(len(readings), tuple(sorted(rows))))


def _ns(moment: datetime) -> int:
    return int(np.datetime64(moment.replace(tzinfo=None), "us").astype(np.int64)) * 1_000
