"""The player's clock and ear: one heap of due times, one epoll, and how late each due time was.

Knows neither flows nor protocols. Waits in microseconds (`ppoll`; epoll alone rounds to 1 ms). Sockets are watched
edge-triggered: whoever is told of one reads it empty, and under load a message costs one event and no other call.
"""

import ctypes
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush

from replay.child import enter_namespace, libc

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR
CLOSING = select.EPOLLRDHUP | GONE
_ON_EDGES = select.EPOLLET | select.EPOLLRDHUP
_BUFFER_OCTETS = 262_144
_EVENTS_AT_ONCE = 1_024
_LONGEST_WAIT_NS = 1_000_000_000
_POLLIN = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Pollfd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class Reactor:
    """One loop that fires what is due and hands out socket events.

    `lateness` holds (owner, nanoseconds) of everything due that had an owner: the schedule's events have one, timeouts
    have none. `buffer` is room to receive into, for whoever has been told of an event and until it returns.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._pollfd = _Pollfd(self._epoll.fileno(), _POLLIN, 0)
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._heap: list[tuple[int, int, Callable[[], None], str]] = []
        self._count = 0
        self._closing: list[socket.socket] = []
        self._looked_ns = 0
        self.lateness: list[tuple[str, int]] = []
        self.waits: list[tuple[int, int]] = []
        self.buffer = bytearray(_BUFFER_OCTETS)

    def at(self, due_ns: int, act: Callable[[], None], owner: str = "") -> None:
        """Call `act` at that moment (monotonic); with an owner its lateness is recorded.

        Nothing is taken back: what is no longer wanted must know so when it is called.
        """
        self._count += 1
        heappush(self._heap, (due_ns, self._count, act, owner))

    def after(self, wait_ns: int, act: Callable[[], None], owner: str = "") -> None:
        """Call `act` so many nanoseconds from now."""
        self._count += 1
        heappush(self._heap, (time.monotonic_ns() + wait_ns, self._count, act, owner))

    def watch(self, sock: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Tell `handler` of each change that makes this socket ready, its peer's close included, until `close`."""
        number = sock.fileno()
        self._handlers[number] = handler
        self._epoll.register(number, events | _ON_EDGES)

    def watch_level(self, fd: int, handler: Callable[[int], None]) -> None:
        """Tell `handler` as long as there is something to read: listeners, the parent's line."""
        self._handlers[fd] = handler
        self._epoll.register(fd, READ)

    def change(self, sock: socket.socket, events: int) -> None:
        """Watch for other events; what is ready now is told at once."""
        self._epoll.modify(sock.fileno(), events | _ON_EDGES)

    def forget(self, sock: socket.socket) -> None:
        """Watch no more, because somebody else will have the socket."""
        if self._handlers.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    def close(self, sock: socket.socket) -> None:
        """Watch no more, and close before the next wait: events at hand may still speak of its number."""
        self._handlers.pop(sock.fileno(), None)
        self._closing.append(sock)

    def turn(self) -> None:
        """Do what is due, wait for the next event or due time, and hand out the events that are there."""
        heap = self._heap
        began = now = time.monotonic_ns()
        while heap and heap[0][0] <= began:
            due_ns, _, act, owner = heappop(heap)
            if owner:
                self.lateness.append((owner, now - due_ns))
            act()
            now = time.monotonic_ns()
        if self._closing:
            self._close_all()
        events = self._epoll.poll(0, _EVENTS_AT_ONCE)
        if events:
            self.waits.append((len(events), now - self._looked_ns))
            self._looked_ns = now
        else:
            self._wait(heap[0][0] - now if heap else _LONGEST_WAIT_NS)
            self._looked_ns = time.monotonic_ns()
            events = self._epoll.poll(0, _EVENTS_AT_ONCE)
        handlers = self._handlers
        for number, which in events:
            handler = handlers.get(number)
            if handler is not None:
                handler(which)
        if self._closing:
            self._close_all()

    def _close_all(self) -> None:
        for sock in self._closing:
            sock.close()
        self._closing.clear()

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
