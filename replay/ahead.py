"""An iterator whose next item is made on a thread while this one is used. Knows nothing of what the items are."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Full, Queue
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, one made ahead; what making them raises is raised here.

    numpy and compiled code let go of the interpreter, so that two processors are used. The thread ends when the
    iterator is closed.
    """
    made: Queue[tuple[Item] | BaseException | None] = Queue(maxsize=1)
    closed = threading.Event()

    def put(one: tuple[Item] | BaseException | None) -> None:
        while not closed.is_set():
            try:
                made.put(one, timeout=0.2)
            except Full:
                continue
            return

    def make() -> None:
        try:
            for item in items:
                put((item,))
                if closed.is_set():
                    return
            put(None)
        except BaseException as problem:  # noqa: BLE001  raised again by the reader
            put(problem)

    maker = threading.Thread(target=make, name="read ahead", daemon=True)
    maker.start()
    try:
        while (one := made.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one[0]
    finally:
        closed.set()
        maker.join()
