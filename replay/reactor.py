"""The player's clock and ear: one heap of due times, one epoll, and how late each due time was.

Knows neither flows nor protocols. Waits in microseconds (`ppoll`; epoll alone rounds to 1 ms).
"""

import ctypes
import heapq
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping

from replay.child import enter_namespace, libc

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
_EVENTS_AT_ONCE = 64
_POLLIN = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Pollfd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class Timer:
    """Something due at a moment of the monotonic clock; `cancel` makes it nothing."""

    __slots__ = ("act", "due_ns", "owner")

    def __init__(self, due_ns: int, act: Callable[[], None], owner: str) -> None:
        self.due_ns = due_ns
        self.act: Callable[[], None] | None = act
        self.owner = owner

    def cancel(self) -> None:
        """Never fire."""
        self.act = None


class Reactor:
    """One loop that fires timers and hands out socket events.

    `lateness` holds (owner, nanoseconds) of every timer that had an owner: timers of the schedule
    have one, timeouts have none.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._pollfd = _Pollfd(self._epoll.fileno(), _POLLIN, 0)
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._heap: list[tuple[int, int, Timer]] = []
        self._count = 0
        self.lateness: list[tuple[str, int]] = []

    def at(self, due_ns: int, act: Callable[[], None], owner: str = "") -> Timer:
        """Call `act` at that moment (monotonic); with an owner its lateness is recorded."""
        timer = Timer(due_ns, act, owner)
        self._count += 1
        heapq.heappush(self._heap, (due_ns, self._count, timer))
        return timer

    def after(self, wait_ns: int, act: Callable[[], None], owner: str = "") -> Timer:
        """Call `act` so many nanoseconds from now."""
        return self.at(time.monotonic_ns() + wait_ns, act, owner)

    def watch(self, sock: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Hand this socket's events to `handler` until `forget`."""
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock.fileno(), events)

    def watch_fd(self, fd: int, handler: Callable[[int], None]) -> None:
        """The same for anything readable that is not a socket object."""
        self._handlers[fd] = handler
        self._epoll.register(fd, READ)

    def change(self, sock: socket.socket, events: int) -> None:
        """Watch for other events."""
        self._epoll.modify(sock.fileno(), events)

    def forget(self, sock: socket.socket) -> None:
        """Stop watching, before the socket is closed."""
        if self._handlers.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    def turn(self) -> None:
        """Wait for the next event or due time, then handle what is there."""
        now = time.monotonic_ns()
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[2]
            if timer.act is None:
                continue
            if timer.owner:
                now = time.monotonic_ns()
                self.lateness.append((timer.owner, now - timer.due_ns))
            timer.act()
            now = time.monotonic_ns()
        self._wait(heap[0][0] - now if heap else 1_000_000_000)
        for fd, events in self._epoll.poll(0, _EVENTS_AT_ONCE):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)

    def _wait(self, wait_ns: int) -> None:
        if wait_ns <= 0:
            return
        limit = _Timespec(*divmod(wait_ns, 1_000_000_000))
        libc.ppoll(ctypes.byref(self._pollfd), 1, ctypes.byref(limit), None)


class Namespaces:
    """The network namespaces by node name; `enter` costs nothing when already there."""

    def __init__(self, fds: Mapping[str, int]) -> None:
        self._fds = dict(fds)
        self._current = ""

    def __contains__(self, node: str) -> bool:
        return node in self._fds

    def __iter__(self) -> Iterator[str]:
        return iter(self._fds)

    def enter(self, node: str) -> None:
        """Make this thread create its next sockets on that node; raises OSError, KeyError."""
        if node != self._current:
            enter_namespace(self._fds[node])
            self._current = node
