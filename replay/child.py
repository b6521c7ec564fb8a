"""A forked child process that obeys its parent over a socket pair and dies with it.

Knows nothing of traffic. Messages are pickles in a memfd, so that a large answer never blocks
the child on a slow reader; both ends are this very program, which makes pickle safe here.
"""

import ctypes
import gc
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NoReturn, Self

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_CLONE_NEWNET = 0x4000_0000
libc = ctypes.CDLL(None, use_errno=True)


class ChildFailed(RuntimeError):
    """The child process ended or reported an error; the text is its own account."""


class Channel:
    """One end of the conversation between parent and child."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        """For epoll and select."""
        return self._end.fileno()

    def send(self, message: object) -> None:
        """Hand over a message of any size without waiting for its reader."""
        memory = os.memfd_create("replay", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(memory), "wb") as file:
                pickle.dump(message, file, pickle.HIGHEST_PROTOCOL)
            socket.send_fds(self._end, [b"m"], [memory])
        finally:
            os.close(memory)

    def receive(self, timeout_s: float | None = None) -> object:
        """The next message; raises TimeoutError, or EOFError when the other end is gone."""
        ready, _, _ = select.select([self._end], [], [], timeout_s)
        if not ready:
            raise TimeoutError
        try:
            mark, fds, _, _ = socket.recv_fds(self._end, 1, 1)
        except ConnectionResetError:
            raise EOFError from None
        if not mark:
            raise EOFError
        with os.fdopen(fds[0], "rb") as file:
            file.seek(0)
            message: object = pickle.load(file)
            return message

    def close(self) -> None:
        """Close this end."""
        self._end.close()


class Child:
    """A process forked from this one that runs `body(channel)`.

    `start` returns when the body has said "ready" (its first message) and raises ChildFailed when
    it failed instead. The kernel kills the child when the thread that started it ends; leaving the
    `with` block kills it by its id. With `keep` the child closes every inherited descriptor but those and the
    standard three: what it does not know of it cannot hold open.
    """

    def __init__(self, name: str, body: Callable[[Channel], None], keep: Iterable[int] | None = None) -> None:
        self._name = name
        self._body = body
        self._keep = None if keep is None else frozenset(keep)
        self._pid = 0
        self._channel: Channel | None = None

    @property
    def pid(self) -> int:
        """The process id, 0 when not running."""
        return self._pid

    def start(self, timeout_s: float = 30.0) -> object:
        """Fork; return what the child reported when it was ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._live(Channel(theirs), parent)
        theirs.close()
        self._pid = pid
        self._channel = Channel(ours)
        try:
            return self.receive("ready", timeout_s)
        except (ChildFailed, TimeoutError):
            self.stop()
            raise

    def send(self, message: object) -> None:
        """Give the child a command; raises ChildFailed when it is gone."""
        try:
            self._open().send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise ChildFailed(f"{self._name} is gone") from None

    def receive(self, kind: str, timeout_s: float | None) -> object:
        """The next answer, which must be of that kind; raises ChildFailed, TimeoutError."""
        try:
            message = self._open().receive(timeout_s)
        except EOFError:
            raise ChildFailed(f"{self._name} ended without a word") from None
        except TimeoutError:
            raise TimeoutError(f"{self._name}: no {kind!r} within {timeout_s} s") from None
        if not isinstance(message, tuple):
            raise ChildFailed(f"{self._name} said {message!r}")
        found, content = message
        if found != kind:
            raise ChildFailed(f"{self._name}: {content}")
        return content

    def stop(self) -> None:
        """Kill the child by its id and reap it; harmless when it is already gone."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._pid:
            try:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass  # the supervisor that reaps everything was first
            self._pid = 0

    def _open(self) -> Channel:
        if self._channel is None:
            raise ChildFailed(f"{self._name} was not started")
        return self._channel

    def _live(self, channel: Channel, parent: int) -> NoReturn:
        try:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            if self._keep is not None:
                close_all_but({0, 1, 2, channel.fileno(), *self._keep})
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            gc.disable()
            gc.freeze()
            self._body(channel)
        finally:
            error = sys.exc_info()[1]
            if error is not None and not isinstance(error, EOFError):
                known = isinstance(error, ChildFailed | OSError)
                account = str(error) if known else "".join(traceback.format_exception(error))
                try:
                    channel.send(("failed", account))
                except OSError:
                    traceback.print_exception(error)
            os._exit(0 if error is None else 1)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor of this process but these."""
    before = -1
    for fd in sorted(kept):
        if fd > before + 1:  # an empty range would be taken for an endless one
            os.closerange(before + 1, fd)
        before = fd
    os.closerange(before + 1, os.sysconf("SC_OPEN_MAX"))


def enter_namespace(netns_fd: int) -> None:
    """Move the calling thread into a network namespace; raises OSError."""
    if libc.setns(netns_fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns to a network namespace (fd {netns_fd}): {os.strerror(code)}")


class ChildOwner(ABC):
    """What runs a child process of its own: enter it to start the process, leave it to end it."""

    _child: Child

    @abstractmethod
    def start(self) -> None:
        """Fork the process; returns when it is ready to be told what to do."""

    def stop(self) -> None:
        """End the process."""
        self._child.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def ask_real_time(priority: int) -> bool:
    """Ask for SCHED_FIFO; False when this user may not have it (RLIMIT_RTPRIO)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False
    return True
