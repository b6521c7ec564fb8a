"""The processor time that a node's daemons took, theirs and their children's, as counters.

It knows no daemon: processes by name, and what the kernel says of them in /proc.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from testbed.devices.base import Reading

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_USER, _CHILDREN_SYSTEM, _STARTED = 11, 15, 19
"""Fields of /proc/PID/stat behind the name: utime, stime, cutime, cstime; and starttime, in ticks since boot."""


def cpu_readings(processes: Mapping[str, subprocess.Popen[bytes]]) -> list[Reading]:
    """Seconds of CPU and of life, by daemon; their ratio over a window is the share of one core."""
    readings = []
    for name, process in processes.items():
        if process.poll() is None:
            told = [_seconds(pid) for pid in _family(process.pid)]
            readings.append(Reading("cpu", name, "cpu_seconds", sum(used for used, _ in told)))
            readings.append(Reading("cpu", name, "clock_seconds", told[0][1]))
    return readings


def _family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        told = (PROC / str(pid) / "task" / str(pid) / "children").read_text()
    except OSError:
        return
    for child in told.split():
        yield from _family(int(child))


def _seconds(pid: int) -> tuple[float, float]:
    """Seconds of CPU and since its start."""
    try:
        told = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0.0, 0.0
    fields = told.rpartition(")")[2].split()
    used = sum(int(ticks) for ticks in fields[_USER:_CHILDREN_SYSTEM])
    started = int(fields[_STARTED]) / TICKS_PER_SECOND
    return used / TICKS_PER_SECOND, time.clock_gettime(time.CLOCK_BOOTTIME) - started
