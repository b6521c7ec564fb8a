"""Run something as the ordinary user that most users are, in a child of a root process that gives root up for good."""

from __future__ import annotations

import ctypes
import os
import pickle
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
NOBODY = 65_534
_PR_SET_DUMPABLE = 4


def as_ordinary_user(act: Callable[[], Result]) -> Result:
    """The value of `act`, or its exception; it travels by pickle between our own processes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            # as a program just started would be: its /proc/self is its own
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
            answer: tuple[bool, object] = (True, act())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            answer = (False, error)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    good, value = pickle.loads(data)
    if not good:
        raise value
    return value  # type: ignore[no-any-return]
