"""A packet player whose packets are sent by tcpreplay: one a sending interface, each with a capture of its own.

It knows a plan and namespaces.  Each tcpreplay keeps its own clock from its own start, so the two sides of a flow are
some milliseconds apart from what was captured; when each packet left is read at the taps.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from replay.packet_mode.plan import Hop, PacketPlan, Program, Way, program
from replay.packet_mode.player import PacketPlayerFailed, PacketResult
from replay.packet_mode.sender import SENT
from testbed.network.namespace import Namespace
from testbed.tcpreplay import NEEDED, Version, one_sided, replaying, require_punctual, result_of, tcpreplay_version

_DRAIN_SECONDS = 0.25
_END_SECONDS = 30.0


class TcpreplayPlayer:
    """The face of `PacketPlayer`; raises Unsupported when tcpreplay is missing or older than `needed`."""

    def __init__(
        self,
        plan: PacketPlan,
        namespaces: Mapping[str, Namespace],
        ways: Callable[[Sequence[Hop]], Mapping[Hop, Way | str]],
        needed: Version = NEEDED,
    ) -> None:
        require_punctual(tcpreplay_version(), needed)
        self.plan = plan
        self._namespaces, self._ways = namespaces, ways
        self._program: Program | None = None
        self._captures: Mapping[tuple[str, int], Path] = {}

    def arm(self) -> Program:
        """Ask for the ways and write what each interface sends into its node."""
        self._program = program(self.plan, self._ways(self.plan.hops()))
        self._captures = one_sided(self._program, lambda node: self._namespaces[node].home / "run")
        return self._program

    def play(self, window: int, *, armed: bool = False) -> TcpreplayPlay:
        """Begin a window now; returns at once."""
        made = self._program if armed and self._program is not None else self.arm()
        inside = {port: Path("/run") / path.name for port, path in self._captures.items()}
        return TcpreplayPlay(window, made, self._namespaces, inside)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self._captures.values():
            path.unlink(missing_ok=True)


class TcpreplayPlay:
    """A window that is being played."""

    def __init__(
        self,
        window: int,
        made: Program,
        namespaces: Mapping[str, Namespace],
        captures: Mapping[tuple[str, int], Path],
    ) -> None:
        self._window, self._program = window, made
        self._held = ExitStack()
        self._started_ns = time.time_ns()
        self._running: list[subprocess.Popen[bytes]] = self._held.enter_context(replaying(namespaces, captures))

    def wait(self, timeout_s: float | None = None) -> PacketResult:
        """The result once every tcpreplay has ended; raises CommandFailed, or PacketPlayerFailed for packets unsent."""
        with self._held:
            sent = sum(result_of(process, timeout_s or _END_SECONDS).sent for process in self._running)
        time.sleep(_DRAIN_SECONDS)
        count = len(self._program)
        if sent != count:
            raise PacketPlayerFailed(f"tcpreplay sent {sent} of {count} packets and does not tell which")
        return PacketResult(
            window=self._window,
            program=self._program,
            started_ns=self._started_ns,
            ended_ns=time.time_ns(),
            left_ns=self._started_ns + self._program.due_ns,
            fate=np.full(count, SENT, np.uint8),
            cpu_ns=0,
            realtime=False,
            stamped=False,
        )
