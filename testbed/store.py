"""Where a run is kept: one directory a run, valid at every moment, and a catalogue of all runs.

A file appears whole or not at all, so a crash loses at most the window in flight. May not know what the tables mean.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CATALOGUE = "catalogue.sqlite"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The directory of one run: `run.json`, `events.jsonl`, Parquet tables, `verdict.json`, `report.html`."""

    path: Path

    @classmethod
    def created(cls, runs: Path, run_id: str) -> RunDirectory:
        """Make `runs/<run_id>/`; FileExistsError when that run is there already, ValueError for an unfit run_id."""
        path = runs / _checked(run_id)
        path.mkdir(parents=True)
        return cls(path)

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return self.path.name

    def write_json(self, name: str, document: Mapping[str, object]) -> Path:
        """Put a JSON document in place at once; ValueError for NaN and infinities, which JSON has not."""
        text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        return self.write_bytes(name, text.encode("utf-8", "backslashreplace"))

    def write_text(self, name: str, text: str) -> Path:
        """Put a text file in place at once."""
        return self.write_bytes(name, text.encode("utf-8", "backslashreplace"))

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Put a file in place at once."""
        with self._placed(name) as temporary:
            temporary.write_bytes(content)
        return self.path / name

    def read_json(self, name: str) -> dict[str, object]:
        """A JSON document of this run; FileNotFoundError when it was not written."""
        document = json.loads((self.path / name).read_bytes())
        if not isinstance(document, dict):
            raise TypeError(f"found a {type(document).__name__} in {self.path / name}, expected an object")
        return document

    def amend_json(self, name: str, fields: Mapping[str, object]) -> Path:
        """Put further fields into a JSON document of this run; FileNotFoundError when it was not written."""
        return self.write_json(name, {**self.read_json(name), **fields})

    def append_event(self, created: str, event: str, fields: Mapping[str, object]) -> None:
        """Add one line to `events.jsonl`; `created` is an ISO 8601 time."""
        line = json.dumps({"created": created, "event": event, **fields}, ensure_ascii=False, default=str)
        content = (line + "\n").encode("utf-8", "backslashreplace")
        descriptor = os.open(self.path / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            file.write(content)

    def events(self) -> Iterator[dict[str, object]]:
        """The events so far; a last line that a crash cut short is left out."""
        try:
            lines = (self.path / "events.jsonl").read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)

    def write_table(self, name: str, table: pd.DataFrame, part: int | None = None) -> Path:
        """Put a table in place as `<name>.parquet`, or one part of it (say, a window) as `<name>/<part>.parquet`."""
        file = f"{_checked(name)}.parquet" if part is None else f"{_checked(name)}/{part:05}.parquet"
        with self._placed(file) as temporary:
            pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary, compression="zstd")
        return self.path / file

    def read_table(self, name: str) -> pd.DataFrame:
        """A table, its parts put together in order; FileNotFoundError when nothing of it was written."""
        whole, folder = self.path / f"{_checked(name)}.parquet", self.path / name
        if whole.exists():
            return _read(whole)
        parts = sorted(folder.glob("[0-9]*.parquet"))
        if not parts:
            raise FileNotFoundError(whole)
        return pd.concat([_read(part) for part in parts], ignore_index=True)

    def read_part(self, name: str, part: int) -> pd.DataFrame:
        """One part of a table; FileNotFoundError when it was not written."""
        return _read(self.path / _checked(name) / f"{part:05}.parquet")

    @contextmanager
    def _placed(self, name: str) -> Iterator[Path]:
        target = self.path / name
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"found file name {name!r}, expected one inside the run directory")
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One run in the catalogue; `verdict` is None while it runs, or when it was cut short."""

    run_id: str
    lab: str
    change: str
    verdict: str | None
    created: str
    path: Path


class Catalogue:
    """All runs below one `runs/` directory, in SQLite with a write-ahead log: many readers, one writer at a time."""

    def __init__(self, runs: Path) -> None:
        """Open or make the catalogue; sqlite3.DatabaseError when the file there is not one."""
        runs.mkdir(parents=True, exist_ok=True)
        self._runs = runs
        self._database = sqlite3.connect(runs / CATALOGUE, timeout=30, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS runs (run_id TEXT PRIMARY KEY, lab TEXT NOT NULL, change TEXT NOT NULL,"
            " verdict TEXT CHECK (verdict IN ('PASS', 'INCONCLUSIVE', 'FAIL')), created TEXT NOT NULL,"
            " path TEXT NOT NULL) STRICT"
        )

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def begin(self, run: RunDirectory, lab: str, change: str, created: str) -> None:
        """Enter a run that has just started; sqlite3.IntegrityError when it is there already."""
        path = run.path.resolve().relative_to(self._runs.resolve())
        self._database.execute(
            "INSERT INTO runs (run_id, lab, change, created, path) VALUES (?, ?, ?, ?, ?)",
            (run.run_id, lab, change, created, str(path)),
        )

    def conclude(self, run_id: str, verdict: str) -> None:
        """Write down a run's verdict (PASS, INCONCLUSIVE or FAIL); KeyError for an unknown run."""
        changed = self._database.execute("UPDATE runs SET verdict = ? WHERE run_id = ?", (verdict, run_id))
        if changed.rowcount != 1:
            raise KeyError(run_id)

    def runs(self) -> list[CatalogueEntry]:
        """All runs, the newest first."""
        with closing(
            self._database.execute(
                "SELECT run_id, lab, change, verdict, created, path FROM runs ORDER BY created DESC, run_id DESC"
            )
        ) as rows:
            return [
                CatalogueEntry(run_id, lab, change, verdict, created, self._runs / path)
                for run_id, lab, change, verdict, created, path in rows
            ]


def _read(path: Path) -> pd.DataFrame:
    table: pd.DataFrame = pq.ParquetFile(path).read().to_pandas()
    return table


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"found name {name!r}, expected letters, digits, '.', '_' and '-'")
    return name
