"""What this machine has and allows: numbers that the kernel tells, nothing is tried."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from testbed.doctor.rows import Row, State, judged

MEBI = 2**20


def limit_rows() -> list[Row]:
    """Python, cores, memory, and the limits that large labs meet first."""
    return [_python(), _cores(), _memory(), *(_sysctl(*limit) for limit in LIMITS)]


LIMITS = (
    ("user namespaces allowed", "user/max_user_namespaces", 64, "every run", True),
    ("network namespaces allowed", "user/max_net_namespaces", 2_000, "one a node", False),
    ("mount namespaces allowed", "user/max_mnt_namespaces", 2_000, "one a node", False),
    ("PID namespaces allowed", "user/max_pid_namespaces", 64, "one a run", False),
    ("tracked connections", "net/netfilter/nf_conntrack_max", 65_536, "stateful firewalls, all runs together", False),
    ("neighbour table", "net/ipv4/neigh/default/gc_thresh3", 1_024, "all nodes' neighbours together", False),
    ("inotify instances", "fs/inotify/max_user_instances", 128, "programs that watch files", False),
    ("processes", "kernel/pid_max", 32_768, "daemons of large labs", False),
)


def _sysctl(capability: str, name: str, enough: int, needed_for: str, demo: bool) -> Row:
    try:
        number: int | None = int((Path("/proc/sys") / name).read_text())
    except (OSError, ValueError):
        number = None
    state, seen = judged(number, enough)
    if number == 0:
        state = State.MISSING
    remedy = "" if state is State.WORKS else f"sudo sysctl -w {name.replace('/', '.')}={enough}"
    if number is None:
        seen, remedy = "not told by this kernel", ""
    return Row("limits", capability, state, seen, needed_for, remedy, demo)


def _python() -> Row:
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "" if fits else "make .venv with Python 3.11, 3.12 or 3.13"
    return Row("machine", "Python", State.WORKS if fits else State.LIMITED, version, "everything", remedy, demo=True)


def _cores() -> Row:
    state, seen = judged(len(os.sched_getaffinity(0)), 2)
    remedy = "" if state is State.WORKS else "give the machine two cores: times measured on one mix player and network"
    return Row("machine", "cores", state, seen, "playing apart from the network", remedy)


def _memory() -> Row:
    rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    state, seen = judged(int(rows["MemAvailable"].split()[0]) * 1024 // MEBI, 1_024, " MiB")
    remedy = "" if state is State.WORKS else "end other programs or give the machine more memory"
    return Row("machine", "free memory", state, seen, "the demo takes 0.5 GiB, an FRR router 27 MiB", remedy)
