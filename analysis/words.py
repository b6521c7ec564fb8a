"""Effects in words: one plain sentence per finding, with units a person reads.

May not know how a number was measured or judged.
"""

from __future__ import annotations

import math
import re

from analysis.disposition import AS_EXPECTED
from analysis.kpi import KPIS, Kpi

_BEHIND = re.compile(r"; on average [^()]*\(90 % interval [^()]*\)")
_STEPS = {
    "ns": ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")),
    "bps": ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s")),
    "octets": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
}


def quantity(value: float, unit: str) -> str:
    """A value as a person says it: "84 ms", "4.1 Mbit/s", "1.2 %", "never" for an infinite delay, "-" for none."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never" if unit == "ns" else "infinite"
    if unit == "ratio":
        return f"{_digits(value * 100)} %"
    for size, name in _STEPS.get(unit, ()):
        if abs(value) >= size:
            return f"{_digits(value / size)} {name}"
    if unit in _STEPS:
        return f"{_digits(value)} {_STEPS[unit][-1][1]}"
    return _digits(value)


def percent(before: float, after: float, deviation: float) -> str:
    """The percentage deviation with its sign: "+600 %", "±0 %", or "" when it is infinite or not a number."""
    if not math.isfinite(deviation):
        return ""
    if deviation < 0.05:
        return "±0 %"
    size = f"{deviation:,.0f}" if deviation >= 1000 else _digits(deviation)
    return f"{'+' if after >= before else '−'}{size} %"


def moved(subject: str, kpi: Kpi, before: float, after: float, deviation: float, *, tail: bool = False) -> str:
    """ "http response time 12 ms → 84 ms (+600 %)"."""
    where = " of the slowest tenth" if tail else ""
    share = percent(before, after, deviation)
    text = f"{subject} {kpi.label}{where} {quantity(before, kpi.unit)} → {quantity(after, kpi.unit)}"
    return f"{text} ({share})" if share else text


def kpi_label(name: str, *, tail: bool = False) -> str:
    """ "response time", "response time of the slowest tenth"; a KPI that nobody knows is told by its own name."""
    kpi = AS_EXPECTED if name == AS_EXPECTED.name else KPIS.get(name)
    return (kpi.label if kpi else name) + (" of the slowest tenth" if tail else "")


def in_short(sentence: str) -> str:
    """A sentence about an effect without its averages, interval and limit: who moved, from where to where."""
    return _BEHIND.sub("", sentence)


def plural(count: int, noun: str) -> str:
    """ "1 flow", "2 flows", "3 classes"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith("s") else f"{count} {noun}s"


def _digits(value: float) -> str:
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2g}"
