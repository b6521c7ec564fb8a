"""Real runs in which nothing is changed: the packaged lab against itself, one what-if after the other, counted.

The change is a comment in a firewall's rules, so everything that a change does is done (files, check, reload, rollback)
and nothing is another. Each run is a process of its own and a line of JSON in a file, so a series goes on where it
ended. It may not know how a verdict is reached.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from scipy import stats

from testbed.bench.busy import busy_loops
from testbed.bench.result import BenchResult, Reference
from testbed.errors import CommandFailed, Unsupported
from testbed.stored import read_lines

Load = Literal["none", "stress"]
RULES = ("iptables.rules", "nftables.conf")
REMARK = b"# read again, left as it is\n"
LONGEST = 6.0
"""A run that takes so many times its budget, and two minutes, is stuck."""
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")
MOST_FAIL_RATIO, MOST_INCONCLUSIVE_RATIO = 0.05, 0.2


class RealRun(BaseModel):
    """What one run came to. `cause` says in few words what made it inconclusive or fail; "" for a pass.

    `pressure_percent` and `lateness_p99_us` are of the median and the worst window; `others` is the machine's load
    average when it began.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    lab: str
    load: Load
    budget_s: float
    seed: int
    verdict: str
    cause: str
    reason: str
    wall_s: float
    asked: int
    pairs: int
    windows: int
    lost: int
    window_s: float
    flows: int
    pressure_percent: float
    pressure_most_percent: float
    lateness_p99_us: float
    restored: bool
    others: float
    run: str


@dataclass(frozen=True, slots=True)
class Series:
    """`runs` in all, those that `results` has already among them; seeds count from `seed`."""

    runs: int
    lab: Path
    results: Path
    kept: Path
    budget_s: float = 60.0
    load: Load = "none"
    seed: int = 0

    @property
    def stressor(self) -> str:
        """What loads the processors; "" for nothing."""
        if self.load == "none":
            return ""
        return "stress-ng" if shutil.which("stress-ng") else "busy loops"


def bench_real(series: Series, tell: Callable[[RealRun], None]) -> BenchResult:
    """Play what is missing and count all; raises Unsupported, InvalidInput or CommandFailed when a run cannot be."""
    known = [one for one in earlier(series.results) if _same(one, series)][: series.runs]
    with TemporaryDirectory(prefix="testbed-unchanged-") as folder:
        change = unchanging(series.lab, Path(folder))
        for number in range(len(known), series.runs):
            with loaded(series):
                known.append(_played(series, change, number))
            series.results.parent.mkdir(parents=True, exist_ok=True)
            with series.results.open("a", encoding="utf-8") as file:
                file.write(known[-1].model_dump_json() + "\n")
            tell(known[-1])
    return counted(known, series)


def counted(runs: Sequence[RealRun], series: Series) -> BenchResult:
    """How many of each verdict, with the exact 95 % interval (Clopper and Pearson), what they took and why."""
    figures: dict[str, float] = {"runs": len(runs), "loaded": float(bool(series.stressor))}
    if not runs:
        return BenchResult("judge_real", figures, {})
    for verdict in VERDICTS:
        count = sum(one.verdict == verdict for one in runs)
        bounds = stats.binomtest(count, len(runs)).proportion_ci(0.95, method="exact")
        name = verdict.lower()
        figures |= {name: count, f"{name}_ratio": count / len(runs)}
        figures |= {f"{name}_ratio_lower": float(bounds.low), f"{name}_ratio_upper": float(bounds.high)}
    causes = Counter(one.cause for one in runs if one.cause)
    figures |= {f"cause.{cause}": count for cause, count in causes.most_common()}
    figures |= {
        "wall_s": median(one.wall_s for one in runs),
        "wall_most_s": max(one.wall_s for one in runs),
        "pairs": median(one.pairs for one in runs),
        "window_s": median(one.window_s for one in runs),
        "flows": median(one.flows for one in runs),
        "windows_lost_ratio": sum(one.lost for one in runs) / max(1, sum(one.windows for one in runs)),
        "pressure_percent": median(one.pressure_percent for one in runs),
        "pressure_most_percent": max(one.pressure_most_percent for one in runs),
        "lateness_p99_us_most": max(one.lateness_p99_us for one in runs),
        "load_average": median(one.others for one in runs),
        "not_restored": sum(not one.restored for one in runs),
    }
    return BenchResult("judge_real", figures, _targets(figures, len(runs)))


def _targets(figures: Mapping[str, float], runs: int) -> dict[str, Reference]:
    most = {"fail": MOST_FAIL_RATIO, "inconclusive": MOST_INCONCLUSIVE_RATIO}
    return {
        f"{name}_ratio_allowed": Reference(
            allowed, "ratio", round(allowed / max(figures[f"{name}_ratio"], 1 / runs), 2)
        )
        for name, allowed in most.items()
    }


def earlier(path: Path) -> list[RealRun]:
    """The lines of a file of results; none where there is no file. Raises InvalidInput with the line."""
    return read_lines(path, RealRun, "a line that `testbed bench judge --real` wrote")


def unchanging(lab: Path, folder: Path) -> Path:
    """A change that adds a comment to one packet filter's rules; Unsupported where the lab has none."""
    for node in _nodes(lab):
        for name in RULES:
            written = lab / "configs" / node / name
            if written.is_file():
                target = folder / "unchanged" / "configs" / node / name
                target.parent.mkdir(parents=True)
                target.write_bytes(written.read_bytes() + REMARK)
                return folder / "unchanged"
    raise Unsupported(
        f"{lab} has no packet filter in whose rules a comment changes nothing",
        "measure topologies/shop, or a lab with one",
    )


def _nodes(lab: Path) -> list[str]:
    return sorted(path.name for path in (lab / "configs").iterdir()) if (lab / "configs").is_dir() else []


@contextmanager
def loaded(series: Series) -> Iterator[None]:
    """The processors as busy as asked for, and as they were afterwards."""
    processors = len(os.sched_getaffinity(0))
    if series.stressor == "busy loops":
        with busy_loops(processors):
            yield
    elif series.stressor:
        stress = subprocess.Popen(
            ["stress-ng", "--cpu", str(processors), "--quiet"], stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(stress.pid, signal.SIGTERM)
            stress.wait()
    else:
        yield


def _same(one: RealRun, series: Series) -> bool:
    return (one.lab, one.load, one.budget_s) == (series.lab.name, series.load, series.budget_s)


def _played(series: Series, change: Path, number: int) -> RealRun:
    seed, others, began = series.seed + number, os.getloadavg()[0], time.monotonic()
    argv = [sys.executable, "-m", "testbed", "whatif", str(series.lab), "--change", str(change), "--json", "--quiet"]
    argv += ["--budget", f"{series.budget_s:g}", "--seed", str(seed), "--runs", str(series.kept)]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120 + LONGEST * series.budget_s,
        check=False,
    )
    wall_s = time.monotonic() - began
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise CommandFailed("this machine", argv, done.returncode, done.stderr) from None
    run = series.kept / str(told["run_id"])
    return _line(told, run, wall_s, {"number": number, "seed": seed, "others": others}, series)


def _line(told: Mapping[str, Any], run: Path, wall_s: float, known: Mapping[str, float], series: Series) -> RealRun:
    windows = json.loads((run / "measured.json").read_text())["windows"]
    plan = json.loads((run / "run.json").read_text())
    paired = told["paired"] or {}
    pressures = [one["cpu_pressure_percent"] or 0.0 for one in windows]
    return RealRun(
        number=int(known["number"]),
        lab=series.lab.name,
        load=series.load,
        budget_s=series.budget_s,
        seed=int(known["seed"]),
        verdict=told["verdict"],
        cause=cause(told),
        reason=told["reason"],
        wall_s=round(wall_s, 1),
        asked=paired.get("asked", 0),
        pairs=paired.get("pairs", 0),
        windows=sum(bool(one["arm"]) for one in windows),
        lost=len(paired.get("lost", ())),
        window_s=plan["plan"]["window_seconds"],
        flows=plan["flows"]["replayed"],
        pressure_percent=round(median(pressures), 1),
        pressure_most_percent=round(max(pressures), 1),
        lateness_p99_us=max(one["lateness_p99_us"] or 0.0 for one in windows),
        restored=told["rollback"]["restored"],
        others=round(known["others"], 2),
        run=run.name,
    )


def cause(told: Mapping[str, Any]) -> str:
    """What made the verdict none, in few words that count: the layer that refused, or the KPI in doubt."""
    paired, verdict = told["paired"] or {}, told["verdict"]
    if verdict == "PASS":
        return ""
    if verdict == "FAIL":
        worst = next((one for one in told["findings"] if one["verdict"] == "FAIL"), None)
        return f"{worst['kpi']} of a {worst['scope']}" if worst else "no finding"
    if not paired.get("asked"):
        return "budget too short"
    if paired.get("invalid"):
        said = str(paired["invalid"][0])
        known = ("lost unevenly", "A'", "offered load", "attempted", "later", "waited for a CPU", "dropped", "alive")
        return f"not measured alike: {next((word for word in known if word in said), said)}"
    if "usable pairs" in told["reason"]:
        return "too few pairs left"
    return "undecided" if told["reason"].startswith("undecided") else told["reason"].split(":")[0][:60]
