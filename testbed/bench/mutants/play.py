"""Plays mutants as what-ifs, each in a process of its own, and keeps what came of each as a line of JSON at once.

So it can be run in slices: what has its line is not played again, unless the mutant or the lab is another by then. It
may not know the truth about a mutant.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from testbed.bench.mutants.mutant import Made
from testbed.errors import CommandFailed
from testbed.stored import read_lines

LONGEST_S = 400.0
FAIL = "FAIL"


class Blamed(BaseModel):
    """The culprit that one failure names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str
    file: str | None
    line: int | None
    text: str
    in_change: bool


class Played(BaseModel):
    """What a what-if said of one mutant; `blames` are those of its failures, first things first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mutant: str
    made_of: str
    pairs: int
    by: Literal["preflight", "replay"] = "replay"
    verdict: str
    reason: str
    exit_code: int
    blames: tuple[Blamed, ...]
    classes: tuple[str, ...]
    opened: int
    restored: bool
    seconds: float
    run: str


@dataclass(frozen=True, slots=True)
class Asked:
    """How a mutant is asked: in so many pairs (0: windows in a row), and whether the preflight's FAIL is enough."""

    pairs: int = 0
    preflight_first: bool = False


def earlier(path: Path) -> list[Played]:
    """The lines of a file of results; none where there is no file. Raises InvalidInput with the line."""
    return read_lines(path, Played, "a line that `testbed bench mutants` wrote")


def fingerprint(made: Made, lab: Path) -> str:
    """Of the change and of everything in the lab that a run reads."""
    told = sha256()
    for path in sorted(one for one in lab.rglob("*") if one.is_file() and "changes" not in one.relative_to(lab).parts):
        told.update(path.relative_to(lab).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for (node, file), text in sorted(made.files.items()):
        told.update(f"{node}/{file}\0{text}\0".encode())
    told.update(made.mutant.link.text.encode() if made.mutant.link else b"")
    return told.hexdigest()[:16]


def play(
    cases: Sequence[Made],
    lab: Path,
    results: Path,
    runs: Path,
    asked: Asked,
    seconds: float,
    tell: Callable[[Played], None],
) -> list[Played]:
    """Play what has no line in `results` yet, until `seconds` are over; the lines of all that have one by then."""
    began = time.monotonic()
    known = {(one.mutant, one.made_of, one.pairs): one for one in earlier(results)}
    found = []
    for case in cases:
        key = (case.mutant.name, fingerprint(case, lab), asked.pairs)
        if key not in known:
            if time.monotonic() - began >= seconds:
                continue
            known[key] = _asked(case, key[1], lab, runs, asked)
            results.parent.mkdir(parents=True, exist_ok=True)
            with results.open("a", encoding="utf-8") as file:
                file.write(known[key].model_dump_json() + "\n")
            tell(known[key])
        found.append(known[key])
    return found


def _asked(case: Made, made_of: str, lab: Path, runs: Path, asked: Asked) -> Played:
    if asked.preflight_first:
        first = _played(case, made_of, lab, runs, ["--preflight-only"])
        if first.verdict == FAIL:
            return first.model_copy(update={"pairs": asked.pairs, "by": "preflight"})
    more = ["--pairs", str(asked.pairs)] if asked.pairs else ["--treatment", "3"]
    return _played(case, made_of, lab, runs, more).model_copy(update={"pairs": asked.pairs})


def _played(case: Made, made_of: str, lab: Path, runs: Path, more: Sequence[str]) -> Played:
    began = time.monotonic()
    with TemporaryDirectory(prefix="testbed-mutant-") as folder:
        change = case.write(Path(folder))
        argv = [
            sys.executable,
            "-m",
            "testbed",
            "whatif",
            str(lab),
            "--change",
            str(change),
            "--runs",
            str(runs),
            "--json",
        ]
        argv += more
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    if not done.stdout:
        raise CommandFailed(case.mutant.name, argv, done.returncode, done.stderr)
    verdict = json.loads(done.stdout)
    failures = [finding for finding in verdict["findings"] if finding["verdict"] == FAIL]
    blames = [Blamed(**{key: b[key] for key in Blamed.model_fields}) for f in failures if (b := f["blame"])]
    run = runs / verdict["run_id"]
    return Played(
        mutant=case.mutant.name,
        made_of=made_of,
        pairs=0,
        verdict=verdict["verdict"],
        reason=verdict["reason"],
        exit_code=done.returncode,
        blames=tuple(dict.fromkeys(blames)),
        classes=tuple(sorted(_classes(failures, run))),
        opened=_opened(verdict),
        restored=verdict["rollback"]["restored"] is not False,
        seconds=round(time.monotonic() - began, 1),
        run=str(run),
    )


def _classes(failures: Iterable[Mapping[str, Any]], run: Path) -> set[str]:
    """The classes of the flows that failures name."""
    table = run / "flows.parquet"
    if not table.exists():
        return set()
    flows = pd.read_parquet(table).set_index("flow_id")["flow_class"]
    return {str(flows[flow]) for failure in failures for flow in failure["flows"] if flow in flows.index}


def _opened(verdict: Mapping[str, Any]) -> int:
    """How many probes the change let through that were not let through before."""
    preflight = verdict.get("preflight") or {}
    return sum(probe["change"] == "opened" for probe in preflight.get("changed", ()))
