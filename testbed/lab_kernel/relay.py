"""Carry octets between this process's streams and the guest's serial lines until the guest is off.

It knows nothing of mounts or kernels.  The console, where the guest's kernel talks, is kept for error messages only.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from types import FrameType

from testbed.errors import NotReady
from testbed.lab_kernel.kernel import STDERR, STDOUT

CHUNK_OCTETS = 65536
STEP_SECONDS = 0.1
CONSOLE_OCTETS = 65536
TOLD_LINES = 12
OFF_SECONDS = 20.0
"""How long a guest that said its exit code may take to write what it holds and power off."""

INTERRUPTED_SECONDS = 6.0
"""How long an interrupted guest may take, less than a sandbox waits for its job."""


class Relay:
    """One guest's streams: descriptors as (from, to) pairs."""

    def __init__(
        self,
        machine: subprocess.Popen[bytes],
        control: tuple[int, int],
        stdin: tuple[int, int],
        stdout: tuple[int, int],
        stderr: tuple[int, int],
        console: int,
    ) -> None:
        self._machine, self._control, self._stdin, self._console = machine, control, stdin, console
        self._out = {stdout[0]: (STDOUT, stdout[1]), stderr[0]: (STDERR, stderr[1])}
        self._deaf: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._told, self._log, self._pending = b"", b"", b""
        self._ready, self._stdin_ended, self._interrupted, self._exit_code = False, False, False, -1
        self._deadline, self._awaited = 0.0, ""

    def until_off(self, boot_seconds: float) -> int:
        """Carry until the guest is off; the program's exit code.

        Raises NotReady when it is not up within `boot_seconds`, ChildProcessError when it goes without an exit code.
        An interrupt is passed on to the program; the guest ends with it or is ended.
        """
        self._wait(boot_seconds, "User-mode Linux to come up")
        for source in (self._control[0], self._console, *self._out):
            os.set_blocking(source, False)
            self._selector.register(source, selectors.EVENT_READ)
        # noted, not raised: an exception in the middle of a step would lose what is being carried
        signal.signal(signal.SIGINT, self._note_interrupt)
        try:
            while self._machine.poll() is None:
                self._step(STEP_SECONDS)
                if self._interrupted:
                    self._interrupted = False
                    self._interrupt()
            for source in (self._control[0], self._console, *self._out):
                self._drain(source)
        finally:
            self._selector.close()
            if self._machine.poll() is None:
                self._machine.kill()
                self._machine.wait()
        if self._exit_code < 0:
            raise ChildProcessError(f"the guest broke off:\n{self._last_words()}")
        return self._exit_code

    def _wait(self, seconds: float, awaited: str) -> None:
        self._deadline, self._awaited = time.monotonic() + seconds, awaited

    def _step(self, seconds: float) -> bool:
        """Carry what is there; whether there was anything."""
        if self._awaited and time.monotonic() > self._deadline:
            raise NotReady(self._awaited, self._last_words())
        ready = [key.fd for key, _events in self._selector.select(seconds)]
        for descriptor in ready:
            self._carry(descriptor)
        return bool(ready)

    def _carry(self, descriptor: int) -> None:
        if descriptor == self._stdin[1]:
            self._feed()
            return
        if descriptor == self._stdin[0]:
            self._selector.unregister(descriptor)
            self._hear_caller()
            return
        data = os.read(descriptor, CHUNK_OCTETS)
        if not data:
            self._selector.unregister(descriptor)
        elif descriptor in self._out:
            self._say(descriptor, data)
        elif descriptor == self._console:
            self._log = (self._log + data)[-CONSOLE_OCTETS:]
        else:
            self._told += data
            *lines, self._told = self._told.split(b"\n")
            for line in lines:
                self._hear(line.decode())

    def _listen_to_caller(self) -> None:
        try:
            self._selector.register(self._stdin[0], selectors.EVENT_READ)
        except PermissionError:
            # a plain file is always ready and cannot be waited for
            self._hear_caller()

    def _hear_caller(self) -> None:
        data = os.read(self._stdin[0], CHUNK_OCTETS)
        self._stdin_ended = not data
        self._pending = len(data).to_bytes(4) + data
        self._selector.register(self._stdin[1], selectors.EVENT_WRITE)

    def _drain(self, source: int) -> None:
        with suppress(BlockingIOError, KeyError):
            while self._selector.get_key(source):
                self._carry(source)

    def _feed(self) -> None:
        """Give the guest more of its standard input, and ask for more once it has all."""
        with suppress(BlockingIOError, BrokenPipeError):
            self._pending = self._pending[os.write(self._stdin[1], self._pending) :]
        if not self._pending:
            self._selector.unregister(self._stdin[1])
            if not self._stdin_ended:
                self._listen_to_caller()

    def _hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "ready":
            self._ready, self._awaited = True, ""
            os.set_blocking(self._stdin[1], False)
            self._listen_to_caller()
        elif word == "exit":
            self._exit_code = int(rest)
            self._wait(OFF_SECONDS, "the guest to power off")
        else:
            raise NotReady("User-mode Linux to come up", f"{rest}\n{self._last_words()}")

    def _say(self, source: int, data: bytes) -> None:
        """Write what the program said; when nobody listens, let the program find its pipe broken as well."""
        line, target = self._out[source]
        try:
            while data and source not in self._deaf:
                data = data[os.write(target, data) :]
        except BrokenPipeError:
            self._deaf.add(source)
            os.write(self._control[1], f"deaf {line}\n".encode())

    def _note_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupted = True

    def _interrupt(self) -> None:
        if not self._ready:
            raise KeyboardInterrupt
        self._wait(INTERRUPTED_SECONDS, "the interrupted program to end")
        os.write(self._control[1], f"signal {int(signal.SIGINT)}\n".encode())

    def _last_words(self) -> str:
        lines = [line for line in self._log.decode(errors="replace").splitlines() if " [<" not in line]
        return "\n".join(["the console's last lines:", *(f"  {line}" for line in lines[-TOLD_LINES:])])
