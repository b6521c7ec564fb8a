"""A series out of a CSV file: a time and a value a row.  Knows files, not what becomes of the readings.

The columns are found by name (`timestamp` or `time`, and `value` or the one asked for); a file of two columns may name
them as it likes. Times are ISO 8601 (UTC where no zone is told) or seconds since 1970; an empty value or `nan` is a
gap, `inf` is what never came.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from analysis.detect.port import Reading
from testbed.errors import InvalidInput

TIME_NAMES = ("timestamp", "time")
VALUE_NAME = "value"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_S = 1e11
_SHOWN = 40


def read_series(path: Path, column: str | None = None) -> tuple[Reading, ...]:
    """Every row below the header, in the order of the file.

    Raises InvalidInput with line and column of the first thing that cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return tuple(_readings(path, csv.reader(file, strict=True), column))
    except OSError as problem:
        raise InvalidInput(path, 1, 1, problem.strerror or str(problem), "a CSV file that can be read") from None
    except UnicodeDecodeError:
        raise InvalidInput(path, 1, 1, "bytes that are no UTF-8 text", "a CSV file") from None


def _readings(path: Path, rows: Iterator[list[str]], column: str | None) -> Iterator[Reading]:
    line = 1
    try:
        header = next(rows, None)
        if header is None:
            raise InvalidInput(path, 1, 1, "an empty file", "a header line: timestamp,value")
        time_at, value_at = _columns(path, [name.strip() for name in header], column)
        for row in rows:
            line = getattr(rows, "line_num", line)
            if not any(cell.strip() for cell in row):
                raise InvalidInput(path, line, 1, "an empty line", "a time and a value")
            if len(row) != len(header):
                raise InvalidInput(path, line, 1, f"{len(row)} columns", f"{len(header)}, as in the header")
            yield Reading(_time_ns(path, line, time_at, row), _value(path, line, value_at, row))
    except csv.Error as problem:
        place = getattr(rows, "line_num", line)
        raise InvalidInput(path, place, 1, f"no CSV ({problem})", "a time and a value a row") from None


def _columns(path: Path, header: Sequence[str], column: str | None) -> tuple[int, int]:
    names = [name.lower() for name in header]
    by_name = [place for place, name in enumerate(names) if name in TIME_NAMES]
    time_at = by_name[0] if by_name else 0 if len(header) == 2 and column is None else None
    if time_at is None:
        raise InvalidInput(path, 1, 1, f"columns {_told(','.join(header))}", "one named timestamp or time")
    wanted = (column or VALUE_NAME).lower()
    found = [place for place, name in enumerate(names) if name == wanted and place != time_at]
    if found:
        return time_at, found[0]
    if column is None and len(header) == 2:
        return time_at, 1 - time_at
    raise InvalidInput(path, 1, 1, f"columns {_told(','.join(header))}", f"one named {wanted}")


def _time_ns(path: Path, line: int, place: int, row: Sequence[str]) -> int:
    text = row[place].strip()
    problem = InvalidInput(path, line, _column_of(row, place), _told(text), "a time: 2014-04-01 00:05:00 or seconds")
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return (aware - _EPOCH) // timedelta(microseconds=1) * 1_000
        except (ValueError, OverflowError):
            raise problem from None
    if not abs(seconds) <= _LATEST_S:
        raise problem
    return round(seconds * 1e9)


def _value(path: Path, line: int, place: int, row: Sequence[str]) -> float:
    text = row[place].strip()
    if not text:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(path, line, _column_of(row, place), _told(text), "a number") from None


def _column_of(row: Sequence[str], place: int) -> int:
    return 1 + sum(len(cell) + 1 for cell in row[:place])


def _told(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
