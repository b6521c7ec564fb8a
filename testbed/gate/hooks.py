"""A command of the pipeline's own, run on a verdict: what it was, how it ended and what it said last are kept.

There is no shell: the words of the command are its arguments. May not know what a verdict means.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.errors import InvalidInput
from testbed.visible import visible

SECONDS = 600.0
TAIL_OCTETS = 4096


@dataclass(frozen=True, slots=True)
class HookRun:
    """One command that was run; `status` is None when it could not be started or was ended after its time."""

    event: str
    argv: tuple[str, ...]
    status: int | None
    seconds: float
    output_tail: str
    problem: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether it ended with status 0."""
        return self.status == 0

    @property
    def told(self) -> str:
        """One sentence for people."""
        if self.status is None:
            return f"{self.event}: {shlex.join(self.argv)} {self.problem}"
        return f"{self.event}: {shlex.join(self.argv)} ended with status {self.status} after {self.seconds:.1f} s"

    def to_json(self) -> dict[str, object]:
        """As in gate.json."""
        return {**asdict(self), "argv": list(self.argv)}


def words(command: str, option: str) -> tuple[str, ...]:
    """The arguments of a command as a person writes it; InvalidInput for an open quote or no words."""
    try:
        argv = tuple(shlex.split(command))
    except ValueError as problem:
        raise InvalidInput(Path(option), 1, 1, f"{command!r} ({problem})", "a command with closed quotes") from None
    if not argv or any("\0" in word for word in argv):
        raise InvalidInput(Path(option), 1, 1, f"{command!r}", "a command: a program and its arguments")
    return argv


def ran(
    event: str, argv: tuple[str, ...], environment: Mapping[str, str], log: Path, seconds: float = SECONDS
) -> HookRun:
    """Run a command with these variables added, its output into `log`; after `seconds` it is ended with its group."""
    started = time.monotonic()
    status, problem = None, ""
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                argv,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            problem = f"could not be started: {error.strerror}"
        else:
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                problem = f"was ended after {seconds:.0f} s"
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
    return HookRun(event, argv, status, round(time.monotonic() - started, 3), _tail(log), problem)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_OCTETS))
        return visible(file.read().decode(errors="replace"))
