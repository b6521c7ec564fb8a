"""What a node's connection tracking counts: entries, and packets that it could not track.

It knows no rule and no node kind.
"""

from __future__ import annotations

from testbed.devices.base import Box, Reading
from testbed.errors import CommandFailed

STATISTICS = "/proc/net/stat/nf_conntrack"
LIMITS = ("/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max")
TOLD = ("invalid", "insert_failed", "drop", "early_drop")


def conntrack_readings(box: Box) -> list[Reading]:
    """Entries and the whole machine's limit as gauges, losses as counters; nothing where nothing is tracked."""
    try:
        told = box.run(["cat", *LIMITS, STATISTICS])
    except CommandFailed:
        return []
    return read_statistics(told)


def read_statistics(text: str) -> list[Reading]:
    """Count, limit and the per-processor table in hexadecimal, one after the other."""
    lines = text.splitlines()
    if len(lines) < 3 or not all(line.isascii() and line.isdigit() and len(line) < 20 for line in lines[:2]):
        return []
    gauges = [
        Reading("conntrack", "table", metric, float(line), cumulative=False)
        for metric, line in zip(("entries", "limit"), lines[:2], strict=True)
    ]
    names = lines[2].split()
    totals = dict.fromkeys(names, 0)
    for line in lines[3:]:
        for name, value in zip(names, line.split(), strict=False):
            try:
                totals[name] += int(value[:16], 16)
            except ValueError:
                return gauges
    return [*gauges, *(Reading("conntrack", "table", m, float(totals[m])) for m in TOLD if m in totals)]
