"""The port every device kind fulfils, and what a device sees of its node.

It knows no kind and no network: a device is given a `Box` (a node made real) and acts through it.
Extras are protocols of their own; a kind that cannot reload live is restarted by nobody.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from topologies.model import Node

Configs = Mapping[str, bytes]
"""Configuration files by name, as the lab or a change has them."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a node does what its configuration asks, and if not, what it waits for."""

    ready: bool
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number or text a node tells of itself: a counter since its start, or a gauge.

    `state` holds what is compared and not subtracted (a route, a server's state); then `value` is 1.
    """

    kind: str
    object: str
    metric: str
    value: float
    cumulative: bool = True
    state: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a daemon's own checker says of a configuration file: a change that does not parse."""

    file: str
    line: int | None
    message: str


class Port(Protocol):
    """An interface as its kernel counts it."""

    @property
    def name(self) -> str:
        """Production's name."""
        ...

    @property
    def mtu_octets(self) -> int:
        """The MTU now."""
        ...

    @property
    def up(self) -> bool:
        """Whether frames can pass: this end and its peer are up."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """`rx_packets`, `tx_dropped` and their like, since the interface was made."""
        ...


class Kernel(Protocol):
    """What a node's kernel tells, read without starting a process."""

    def ports(self) -> Sequence[Port]:
        """Every interface but loopback."""
        ...

    def queue_drops(self) -> Mapping[str, int]:
        """Packets that each interface's rate limit or impairment dropped."""
        ...

    def routes(self) -> Mapping[str, str]:
        """Prefix to `gateway@interface`, or to `blackhole` and its like."""
        ...

    def protocol_statistics(self) -> Mapping[tuple[str, str], int]:
        """(group, counter) of IP and ICMP, as the kernel names them."""
        ...


class Box(Protocol):
    """A node made real, as its device may touch it."""

    @property
    def node(self) -> Node:
        """What the lab says of it."""
        ...

    @property
    def home(self) -> Path:
        """Its private files, seen from the supervisor."""
        ...

    @property
    def kernel(self) -> Kernel:
        """Its kernel's counters and tables."""
        ...

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        seconds: float = 60.0,
        *,
        apart: bool = False,
        files: Mapping[str, bytes | None] | None = None,
    ) -> str:
        """Run a command to its end; what it printed, or CommandFailed.

        `apart`: in an empty network of its own; `files`: as if these lay in the node, by absolute path.
        """
        ...

    def put_files(self, contents: Mapping[str, bytes | None]) -> None:
        """Put files at absolute paths of the node, or take them away (None); the machine's own stay as they are."""
        ...

    def hide(self, directories: Sequence[str]) -> None:
        """Cover directories of the machine by empty ones of the node's own; those it has not are skipped."""
        ...

    def spawn(self, name: str, argv: Sequence[str], output: Path | None = None) -> None:
        """Start a daemon that stays in the foreground; what it prints goes to `output`, or to the run's logs."""
        ...

    def process(self, name: str) -> subprocess.Popen[bytes] | None:
        """The daemon of that name, if it was started."""
        ...

    def discard(self, name: str) -> None:
        """End a daemon on purpose and forget it, so that nobody takes it for one that failed."""
        ...

    def set_sysctls(self, settings: Mapping[str, str]) -> None:
        """Write settings of its network and read each back; raises Unsupported."""
        ...

    def restore_sysctls(self, names: Iterable[str]) -> None:
        """Give settings the values that the kernel had before `set_sysctls`."""
        ...


class Device(Protocol):
    """A kind of node: what it reads, how it is checked, started, known to be ready, changed and counted."""

    @property
    def reads(self) -> frozenset[str]:
        """Names of the configuration files this kind honours; any other is an error in the lab."""
        ...

    @property
    def directories(self) -> Mapping[str, str]:
        """Private directories (name under the box's home) and the machine's path each covers."""
        ...

    def check(self, box: Box, configs: Configs) -> Sequence[Complaint]:
        """Ask the daemons' own checkers; nothing running is touched."""
        ...

    def start(self, box: Box, configs: Configs) -> None:
        """Bring the node up on these files."""
        ...

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """Look at protocol state.  There is no default: "ready" would be a lie."""
        ...

    def reload(self, box: Box, before: Configs, after: Configs) -> None:
        """Change the running node the way production does it, while traffic flows."""
        ...

    def readings(self, box: Box, configs: Configs) -> Sequence[Reading]:
        """Counters and state of a node that runs on these files, for blame."""
        ...


@runtime_checkable
class Forgets(Protocol):
    """A device with state that must be alike at the start of every window."""

    def forget(self, box: Box) -> None:
        """Drop learnt state (path MTU, neighbours' hints) so that windows start alike."""
        ...
