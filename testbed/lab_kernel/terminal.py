"""A standard input that a sandbox can read.  It knows nothing of who reads it.

A sandbox stands outside the terminal's foreground group, so the terminal would stop it when it reads: a child of ours
that stays in the group reads for it, and is gone with us.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from testbed.sandbox import die_with_parent


@contextmanager
def readable_stdin() -> Iterator[int]:
    """A descriptor that gives what this process's standard input gives; /dev/null's when it has none."""
    try:
        terminal = os.isatty(0)
        os.fstat(0)
    except OSError:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        return
    if not terminal:
        yield 0
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _pump(writer)
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _pump(writer: int) -> None:
    try:
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while data := os.read(0, 65536):
            while data:
                data = data[os.write(writer, data) :]
    finally:
        os._exit(0)
