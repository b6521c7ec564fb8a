"""A node made real: its namespaces, its processes and its kernel, as much of them as a device may touch.

It knows no device kind and no other node.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.network.addressing import set_sysctls
from testbed.network.kernel_state import PortState, ports, protocol_statistics, queue_drops, routes
from testbed.network.namespace import Namespace
from testbed.network.placed_files import hide, place, tried
from topologies.model import Node


@dataclass(frozen=True, slots=True)
class NodeKernel:
    """What the kernel tells of one node."""

    namespace: Namespace

    def ports(self) -> list[PortState]:
        """Interfaces with their counters."""
        return ports(self.namespace)

    def queue_drops(self) -> dict[str, int]:
        """Drops by interface."""
        return queue_drops(self.namespace)

    def routes(self) -> dict[str, str]:
        """Both main tables."""
        return routes(self.namespace)

    def protocol_statistics(self) -> dict[tuple[str, str], int]:
        """ICMP and IP counters."""
        return protocol_statistics(self.namespace)


@dataclass(slots=True)
class NodeBox:
    """A node made real: what a device may touch of it."""

    node: Node
    namespace: Namespace
    log_directory: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    """What each setting was before it was first set here."""

    @property
    def home(self) -> Path:
        """The node's private files, seen from the supervisor."""
        return self.namespace.home

    @property
    def kernel(self) -> NodeKernel:
        """The kernel's counters and tables of this node."""
        return NodeKernel(self.namespace)

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        seconds: float = 60.0,
        *,
        apart: bool = False,
        files: Mapping[str, bytes | None] | None = None,
    ) -> str:
        """Run a command inside the node, or in an empty network, or on files of its own; raises CommandFailed."""
        if not files:
            return self.namespace.run(argv, stdin, seconds, apart=apart)
        with tried(self.namespace, files) as trial:
            return trial.run(argv, stdin, seconds, apart=apart)

    def put_files(self, contents: Mapping[str, bytes | None]) -> None:
        """Put files at absolute paths of the node, or take them away, while it runs; raises Unsupported."""
        place(self.namespace, contents)

    def hide(self, directories: Sequence[str]) -> None:
        """Cover directories of the machine by empty ones of the node's own."""
        hide(self.namespace, directories)

    def spawn(self, name: str, argv: Sequence[str], output: Path | None = None) -> None:
        """Start a daemon inside the node, its output in a file of its own or in the run's logs."""
        with (output or self.log_directory / f"{self.node.name}.{name}.log").open("ab") as log:
            self.processes[name] = self.namespace.spawn(argv, log)

    def process(self, name: str) -> subprocess.Popen[bytes] | None:
        """The daemon of that name, if it was started."""
        return self.processes.get(name)

    def discard(self, name: str) -> None:
        """End a daemon and forget it."""
        process = self.processes.pop(name, None)
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()

    def set_sysctls(self, settings: Mapping[str, str]) -> None:
        """Write and read back settings of this node's network."""
        self.sysctls = {**set_sysctls(self.namespace, settings), **self.sysctls}

    def restore_sysctls(self, names: Iterable[str]) -> None:
        """Give settings the values that the kernel had before anyone here set them."""
        set_sysctls(self.namespace, {name: self.sysctls.pop(name) for name in names if name in self.sysctls})
