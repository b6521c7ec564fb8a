"""The error of the links themselves: what engines that impair them did beyond what was asked.

Reports in, a record of one window out; and an engine measured on a link of its own.  It knows no flow and no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_interface

from testbed.network.calibration import calibrated
from testbed.network.fresh_rates import is_rate_only
from testbed.network.impairment import Engine, LineReport
from topologies.model import Impairment

EXCESS_P99_US = 5_000.0
"""As much as the smallest difference in delay that is judged by default: a link that strays so far tells nothing."""

NONE = "none"
_ENDS = (ip_interface("192.0.2.1/30"), ip_interface("192.0.2.2/30"))
"""Of a link that exists only while it is measured."""


def needs_engine(impairment: Impairment) -> bool:
    """Whether more is asked for than a rate, which every kernel has."""
    return impairment != Impairment() and not is_rate_only(impairment)


def calibration(seed: int) -> dict[str, object]:
    """This machine's engine held against what it was asked, inside the current sandbox, for the run record; 3 s."""
    found = calibrated(Engine.AUTO, _ENDS, seed)
    return {
        "engine": found.engine,
        "excess_p50_us": found.excess_p50_ns / 1_000,
        "excess_p99_us": found.excess_p99_ns / 1_000,
        "rate_error_percent": round(found.rate_bps.error_percent, 3),
        "loss_set_ratio": found.loss_ratio.wanted,
        "loss_found_ratio": found.loss_ratio.found,
    }


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
