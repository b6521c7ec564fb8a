"""tcpreplay as a sender of packet mode, where it keeps time, and as what a bench is held against, where it does not.

It knows a namespace and a capture.  Before 4.5.3 its timed replay adds the overshoot of every sleep up: it ends some 60
to 80 ms late a second of capture, so such a version is refused for a window that is to be judged.
"""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from replay.packet_mode.plan import Program
from testbed.errors import CommandFailed, Unsupported
from testbed.network.namespace import Namespace

NEEDED = (4, 5, 3)
START_SECONDS = 5.0
_VERSION = re.compile(r"\btcpreplay version:\s*v?(\d+)\.(\d+)(?:\.(\d+))?", re.IGNORECASE)
_ACTUAL = re.compile(r"Successful packets:\s*(\d+)")
_FAILED = re.compile(r"(?:Failed packets|Truncated packets|Retried packets \((?:ENOBUFS|EAGAIN)\)):\s*(\d+)")
_PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one run of tcpreplay said: packets sent, and packets that failed, were cut or had to be tried again."""

    sent: int
    troubled: int


def version_in(said: str) -> Version | None:
    """The version in the output of `tcpreplay --version`, None when there is none."""
    match = _VERSION.search(said)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def tcpreplay_version() -> Version:
    """The installed version; raises Unsupported when there is no tcpreplay, or none that tells its version."""
    path = shutil.which("tcpreplay")
    if path is None:
        raise Unsupported("tcpreplay is not installed", "install it, or let packet mode send by itself (the default)")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    found = version_in(done.stdout + done.stderr)
    if found is None:
        raise Unsupported(f"{path} does not tell its version", "let packet mode send by itself (the default)")
    return found


def require_punctual(found: Version, needed: Version = NEEDED) -> None:
    """Refuse a version that cannot keep a window's time; raises Unsupported."""
    if found < needed:
        raise Unsupported(
            f"tcpreplay {_text(found)} as a sender: before {_text(needed)} it ends 10 s of capture 560 to 790 ms late",
            f"install {_text(needed)} or newer, or let packet mode send by itself (the default)",
        )


def one_sided(program: Program, folder: Callable[[str], Path]) -> dict[tuple[str, int], Path]:
    """A capture for each interface that a program sends from, in its node's folder, its times those of the plan."""
    written = {}
    for number, (node, index) in enumerate(program.ports):
        path = folder(node) / f"packets.{number}.pcap"
        with path.open("wb") as file:
            file.write(_PCAP_HEADER)
            for row in np.flatnonzero(program.port == number).tolist():
                at, octets = int(program.at[row]), int(program.length[row])
                file.write(struct.pack("<IIII", *divmod(int(program.due_ns[row]), 10**9), octets, octets))
                file.write(program.octets[at : at + octets])
        written[node, index] = path
    return written


@contextmanager
def replaying(
    namespaces: Mapping[str, Namespace], captures: Mapping[tuple[str, int], Path]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """One tcpreplay an interface, started together; what still runs when the block ends is ended by its id.

    `captures`: a path that the node sees, by node and number of the interface.
    """
    with ExitStack() as held:
        started = []
        for (node, index), path in captures.items():
            namespace = namespaces[node]
            interface = namespace.inside(partial(socket.if_indextoname, index))
            argv = ["tcpreplay", "--timer=nano", f"--intf1={interface}", str(path)]
            process = subprocess.Popen(
                namespace.argv(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(namespace.net_fd, namespace.mount_fd),
            )
            held.callback(_end, process)
            started.append(process)
        yield started


def result_of(process: subprocess.Popen[bytes], seconds: float) -> Replayed:
    """Wait for one to end and read what it counted; raises CommandFailed."""
    try:
        said = process.communicate(timeout=seconds)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise CommandFailed("tcpreplay", ("tcpreplay",), -1, f"no end after {seconds:.0f} s") from None
    sent = _ACTUAL.search(said)
    if process.returncode or sent is None:
        raise CommandFailed("tcpreplay", ("tcpreplay",), process.returncode or -1, said)
    return Replayed(int(sent[1]), sum(map(int, _FAILED.findall(said))))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _text(version: Version) -> str:
    return ".".join(map(str, version))
