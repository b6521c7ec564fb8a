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
_USER, _CHILDREN_SYSTEM = 11, 15
"""Fields of /proc/PID/stat behind the name: utime, stime, cutime, cstime."""


def cpu_readings(processes: Mapping[str, subprocess.Popen[bytes]]) -> list[Reading]:
    """Seconds of CPU and of the clock, by daemon; their ratio over a window is the share of one core."""
    now = time.monotonic()
    readings = []
    for name, process in processes.items():
        if process.poll() is None:
            used = sum(_seconds(pid) for pid in _family(process.pid))
            readings.append(Reading("cpu", name, "cpu_seconds", used))
            readings.append(Reading("cpu", name, "clock_seconds", now))
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


def _seconds(pid: int) -> float:
    try:
        told = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0.0
    fields = told.rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[_USER:_CHILDREN_SYSTEM]) / TICKS_PER_SECOND
