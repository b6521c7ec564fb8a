"""Work that is nobody's: what a machine that has other things to do is like."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def busy_loops(loops: int) -> Iterator[None]:
    """That many processes that want a processor each and never rest."""
    children = []
    for _ in range(loops):
        child = os.fork()
        if child == 0:
            while True:
                pass
        children.append(child)
    try:
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
