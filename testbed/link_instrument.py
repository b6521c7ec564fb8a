"""The error of the links themselves: what engines that impair them did beyond what was asked.

Pure: reports in, a record of one window out.  It knows no flow and no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.network.impairment import LineReport

EXCESS_P99_US = 5_000.0
"""As much as the smallest difference in delay that is judged by default: a link that strays so far tells nothing."""

NONE = "none"


@dataclass(frozen=True, slots=True)
class LinkInstrument:
    """One window's links: the engine that impaired them, its excess over the set delay, and what it lost unasked.

    `seeded` is whether chance (loss, reordering) repeats with the run's seed.
    """

    engine: str
    excess_p50_us: float
    excess_p99_us: float
    overflowed: int
    seeded: bool
    reason: str

    @classmethod
    def of(cls, reports: Mapping[tuple[str, str], LineReport]) -> LinkInstrument:
        """The worst of all directions; without one that is impaired there is no error."""
        if not reports:
            return cls(NONE, 0.0, 0.0, 0, True, "")
        worst = max(reports, key=lambda key: reports[key].excess_p99_ns)
        excess_us = reports[worst].excess_p99_ns / 1_000
        overflowed = sum(report.overflowed for report in reports.values())
        reasons = []
        if overflowed:
            reasons.append(f"the delay line lost {overflowed} frames that it could not read in time")
        if excess_us > EXCESS_P99_US:
            held = f"{excess_us / 1_000:.1f} ms longer than asked (bound {EXCESS_P99_US / 1_000:.0f} ms)"
            reasons.append(f"1 % of the frames at {':'.join(worst)} were held {held}")
        return cls(
            engine=reports[worst].engine,
            excess_p50_us=max(report.excess_p50_ns for report in reports.values()) / 1_000,
            excess_p99_us=excess_us,
            overflowed=overflowed,
            seeded=all(report.seeded for report in reports.values()),
            reason="; ".join(reasons),
        )
