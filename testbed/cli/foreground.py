"""Who owns the terminal: a job in a sandbox is in a process group of its own, and must be in front to read it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def in_front() -> None:
    """Make the calling job the terminal's foreground group, so that it reads keys and hears an interrupt itself."""
    if not sys.stdin.isatty():
        return
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())


@contextmanager
def taken_back() -> Iterator[None]:
    """Be the foreground group again when the block ends, whoever was in between."""
    if not sys.stdin.isatty():
        yield
        return
    group = os.tcgetpgrp(sys.stdin.fileno())
    try:
        yield
    finally:
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(sys.stdin.fileno(), group)
        signal.signal(signal.SIGTTOU, before)
