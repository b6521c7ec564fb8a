"""How soon the scheduler runs this process once it has work: the best that this user may have.

Real time needs a right (RLIMIT_RTPRIO) that an ordinary user seldom has.  A short slice needs none: since Linux 6.12
the scheduler prefers a waking process that asks for little time at once.  What was asked for is read back.
"""

from __future__ import annotations

import platform
import struct
from ctypes import create_string_buffer
from enum import Enum

from replay.child import ask_real_time, libc

SLICE_NS = 100_000
"""The shortest that the kernel gives."""

_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_SET_AND_GET = {"x86_64": (314, 315), "aarch64": (274, 275)}


class Promptness(Enum):
    """Best first."""

    REAL_TIME = "real time"
    SHORT_SLICE = "short slice"
    ORDINARY = "ordinary"


def ask_promptness(priority: int) -> Promptness:
    """Ask for real time at that priority, else for a short slice; what the kernel granted."""
    if ask_real_time(priority):
        return Promptness.REAL_TIME
    if platform.machine() not in _SET_AND_GET:
        return Promptness.ORDINARY
    system_call = libc.syscall
    set_number, get_number = _SET_AND_GET[platform.machine()]
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, 0, 0, 0, SLICE_NS, 0, 0)
    read = create_string_buffer(_ATTRIBUTES.size)
    if system_call(set_number, 0, wanted, 0) != 0 or system_call(get_number, 0, read, len(read), 0) != 0:
        return Promptness.ORDINARY
    return Promptness.SHORT_SLICE if _ATTRIBUTES.unpack(read.raw)[5] == SLICE_NS else Promptness.ORDINARY
