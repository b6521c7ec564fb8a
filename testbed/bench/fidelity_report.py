"""What a replay's fidelity came to: figures, the table by grade, every difference; for programs and for people.

It replays nothing and compares nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from replay.fidelity import Fidelity
from replay.instrument import Instrument
from replay.schedule import FORWARD, REVERSE
from testbed.bench.result import BenchResult, Reference

MOST_DIFFERENCES = 20
"""How many differing flows a terminal is shown; programs get all."""


@dataclass(frozen=True)
class FidelityReport:
    """What a replay came to, beside the capture it was made from."""

    fidelity: Fidelity
    instrument: Instrument
    captured: int
    left_out: Mapping[str, int]
    silences: int
    cut_ns: int
    speed: float
    seconds: float

    @property
    def result(self) -> BenchResult:
        """The figures; the reference is the capture itself: its flows, messages and octets of grade `payload`."""
        fidelity = self.fidelity
        equal, there = fidelity.of_grade("payload")
        flows = fidelity.flows
        figures: dict[str, float] = {
            "flows_captured": self.captured,
            "flows_replayed": len(flows),
            "flows_left_out": sum(self.left_out.values()),
            "flows_equal": int(flows["equal"].sum()),
            "payload_flows": there,
            "payload_flows_equal": equal,
            "messages": int(flows["messages"].sum()),
            "octets": int(flows["octets"].sum()),
            "seconds": round(self.seconds, 3),
            "silences_shortened": self.silences,
            "silences_cut_s": round(self.cut_ns / 1e9, 3),
            "lateness_p50_us": round(self.instrument.lateness_p50_us, 1),
            "lateness_p99_us": round(self.instrument.lateness_p99_us, 1),
            "realtime": int(self.instrument.realtime),
            "capture_drops": self.instrument.capture_drops,
        }
        gaps = fidelity.gaps
        for side, direction in (("client", FORWARD), ("server", REVERSE)):
            error_us = gaps.loc[gaps["direction"] == direction, "error_ns"].to_numpy(dtype=np.float64) / 1_000
            figures |= _percentiles(f"gap_error_{side}", error_us)
        figures |= _percentiles("gap_error_stated", gaps["stated_ns"].to_numpy(dtype=np.float64) / 1_000)
        figures["gaps_as_stated_ratio"] = round(fidelity.gaps_as_stated, 6)
        figures |= _percentiles("start_error", flows["start_error_ns"].to_numpy(dtype=np.float64) / 1_000)
        whole = flows[flows["grade"] == "payload"]
        references = {}
        if there:
            same = whole[whole["equal"]]
            references["capture_flows"] = Reference(there, "flows", round(equal / there, 6))
            for unit in ("messages", "octets"):
                total = int(whole[unit].sum())
                if total:
                    references[f"capture_{unit}"] = Reference(total, unit, round(int(same[unit].sum()) / total, 6))
        return BenchResult("fidelity", figures, references)

    @property
    def by_grade(self) -> dict[str, dict[str, int]]:
        """Flows of each grade: how many are equal, and how many differ by what."""
        told: dict[str, dict[str, int]] = {}
        for grade in sorted(set(self.fidelity.flows["grade"])):
            equal, there = self.fidelity.of_grade(grade)
            told[grade] = {"flows": there, "equal": equal}
            kinds = Counter(d.kind.value for d in self.fidelity.differences if d.grade == grade)
            told[grade].update(kinds)
        return told

    @property
    def exit_code(self) -> int:
        """0 when the replay is faithful, 1 when it is not, 3 when the machine could not play the window as planned."""
        if self.fidelity.faithful:
            return 0
        return 1 if self.instrument.valid else 3

    def document(self) -> dict[str, object]:
        """The bench's document and every difference, for programs."""
        return {
            **self.result.document(),
            "faithful": self.fidelity.faithful,
            "valid": self.instrument.valid,
            "reason": self.instrument.reason,
            "by_grade": self.by_grade,
            "differences": [{**asdict(d), "kind": d.kind.value} for d in self.fidelity.differences],
            "left_out": dict(self.left_out),
            "explained": dict(self.fidelity.explained),
            "remarks": dict(self.fidelity.remarks),
        }


def _percentiles(name: str, values_us: npt.NDArray[np.float64]) -> dict[str, float]:
    if not len(values_us):
        return {}
    return {f"{name}_p{q}_us": round(float(np.percentile(values_us, q)), 1) for q in (50, 99)}


def print_fidelity(report: FidelityReport, told: Console) -> None:
    """The report for people: by grade, then flow by flow what differs, then what was left out and why."""
    fidelity = report.fidelity
    table = Table(title="flows replayed and captured again", title_justify="left", show_edge=False)
    for column in ("grade", "flows", "equal", "what differs first"):
        table.add_column(column, justify="right" if column in {"flows", "equal"} else "left")
    for grade, counts in report.by_grade.items():
        kinds = {name: count for name, count in counts.items() if name not in {"flows", "equal"}}
        differs = ", ".join(f"{name}: {count}" for name, count in kinds.items()) or "nothing"
        table.add_row(grade, f"{counts['flows']:,}", f"{counts['equal']:,}", differs)
    told.print(table)
    for difference in fidelity.differences[:MOST_DIFFERENCES]:
        where = f" {difference.sequence}" if difference.sequence >= 0 else ""
        line = f"{difference.flow_id} {difference.flow} ({difference.grade}): {difference.kind.value}{where}: "
        told.print(f"{line}captured {difference.expected}, replayed {difference.found}", markup=False)
    if len(fidelity.differences) > MOST_DIFFERENCES:
        told.print(f"and {len(fidelity.differences) - MOST_DIFFERENCES} more; --json has all")
    for what, count in (*fidelity.explained.items(), *fidelity.remarks.items()):
        told.print(f"{count:,} {what}", markup=False)
    for reason, count in report.left_out.items():
        told.print(f"left out: {count:,} flows: {reason}", markup=False)
    if not report.instrument.valid:
        told.print(f"the instrument strayed: {report.instrument.reason}", style="yellow", markup=False)
