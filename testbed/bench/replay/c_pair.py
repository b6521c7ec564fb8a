"""The exchange as a client and a server in C, compiled when the bench runs; the program is static/pair.c."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from replay.child import Channel, Child, enter_namespace
from replay.promptness import ask_promptness
from testbed.bench.replay.exchange import EXCHANGES, Load, Played
from testbed.errors import CommandFailed

SOURCE = Path(__file__).with_name("static") / "pair.c"
LINGER_SECONDS = 3.0
LEAD_NS = 200_000_000
REAL_TIME_PRIORITY = 20
_Account: TypeAlias = "tuple[int, npt.NDArray[np.int64], int]"


def compiler() -> str | None:
    """The machine's C compiler, if it has one."""
    return shutil.which("cc") or shutil.which("gcc")


def compiled(folder: Path) -> Path:
    """The program, compiled into a folder; raises CommandFailed with what the compiler said."""
    program = folder / "pair"
    argv = [compiler() or "cc", "-O2", "-o", str(program), str(SOURCE)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise CommandFailed("bench", argv, done.returncode, done.stderr)
    return program


def play_c(program: Path, load: Load, client_fd: int, server_fd: int) -> Played:
    """Play a load between two network namespaces; raises ChildFailed, TimeoutError."""
    start_ns = time.monotonic_ns() + LEAD_NS
    sides = [
        Child(f"C {role}", lambda channel, role=role, fd=fd: _live(channel, program, role, fd, load, start_ns))  # type: ignore[misc]
        for role, fd in (("server", server_fd), ("client", client_fd))
    ]
    limit = load.seconds + 4 * LINGER_SECONDS
    try:
        for side in sides:
            side.start()
        answered, said = (cast("_Account", side.receive("played", limit)) for side in sides)
    finally:
        for side in sides:
            side.stop()
    return Played(np.concatenate([said[1], answered[1]]), said[0], said[2])


def _live(channel: Channel, program: Path, role: str, netns_fd: int, load: Load, start_ns: int) -> None:
    ask_promptness(REAL_TIME_PRIORITY)
    enter_namespace(netns_fd)
    given = (load.flows, load.flows_per_s, load.think_ns, load.request_octets, load.response_octets, EXCHANGES)
    place = (load.first_port, load.source, load.target, load.port, start_ns)
    argv = [str(program), role, *map(str, (*given, *place))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if role == "server":
            time.sleep(0.05)
        channel.send(("ready", None))
        out, said = process.communicate()
    if process.returncode:
        raise CommandFailed(role, argv, process.returncode, said.decode(errors="replace"))
    finished, ended_ns = map(int, said.split()[-2:])
    channel.send(("played", (finished, np.frombuffer(out, dtype=np.int64), ended_ns)))
