"""One node's private network and file view: a namespace pair, its netlink socket and its processes.

It knows no device, no topology and no link: what is mounted or run is said by the caller.
Processes enter through nsenter, so nothing of ours runs between fork and exec.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, Any, TypeVar

from pyroute2 import IPRoute

from testbed.errors import CommandFailed
from testbed.network import rtnl
from testbed.sandbox import CLONE_NEWNET, CLONE_NEWNS, MS_BIND, SCRATCH, mount, setns, unshare

Result = TypeVar("Result")
COMMAND_SECONDS = 60.0
NODES = "nodes"


@dataclass(slots=True)
class Namespace:
    """The network and mount namespace of one node, with a netlink socket kept open in it.

    Opening a netlink socket per request costs more than the request; `line` is opened once here.
    """

    name: str
    net_fd: int
    mount_fd: int
    line: socket.socket
    indexes: dict[str, int] = field(default_factory=dict)
    """Interfaces made by us, by the kernel's name."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    folder: str = NODES
    _netlink: Any = None

    @property
    def netlink(self) -> Any:
        """pyroute2's view of the namespace, for questions that are asked once; made when first wanted."""
        if self._netlink is None:
            # pyroute2 opens a socket lazily on the thread that uses it: hand it one made in there
            family, kind = socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            line = self.inside(lambda: socket.socket(family, kind, socket.NETLINK_ROUTE))
            self._netlink = IPRoute(fileno=line.detach())
        return self._netlink

    @property
    def home(self) -> Path:
        """Where this node's private files lie, seen from the supervisor."""
        return SCRATCH / self.folder / self.name

    def inside(self, act: Callable[[], Result]) -> Result:
        """Run `act` on a thread that has entered the network namespace (not the mount namespace)."""

        def entered() -> Result:
            setns(self.net_fd, CLONE_NEWNET)
            return act()

        return on_a_thread(entered)

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` inside both namespaces."""
        paths = (f"--net=/proc/self/fd/{self.net_fd}", f"--mount=/proc/self/fd/{self.mount_fd}")
        return ["nsenter", *paths, "--", *command]

    def run(
        self, command: Sequence[str], stdin: bytes = b"", seconds: float = COMMAND_SECONDS, *, apart: bool = False
    ) -> str:
        """Run `command` to its end and return what it printed; raises CommandFailed.

        `apart`: in an empty network that ends with it, so that a trial touches nothing.
        """
        try:
            done = subprocess.run(
                self.argv(["unshare", "--net", "--", *command] if apart else command),
                input=stdin,
                capture_output=True,
                pass_fds=(self.net_fd, self.mount_fd),
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(self.name, tuple(command), -1, f"no end after {seconds:.0f} s") from None
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
            raise CommandFailed(self.name, tuple(command), done.returncode, said)
        return done.stdout.decode(errors="replace")

    def spawn(self, command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a daemon in the foreground of its own; it ends with `close` or with the sandbox."""
        process = subprocess.Popen(
            self.argv(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(self.net_fd, self.mount_fd),
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        """End this node's processes and let go of its namespaces."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        if self._netlink is not None:
            self._netlink.close()
        self.line.close()
        os.close(self.net_fd)
        os.close(self.mount_fd)


def make_namespace(name: str, directories: Mapping[str, str], folder: str = NODES) -> Namespace:
    """Make a node's namespaces; `directories` maps a private directory to the path it covers.

    `folder` holds the private files of all nodes of one network, so that two may have the same names.

    Paths the machine does not have are skipped: a router without HAProxy's package has no
    /etc/haproxy to cover.  The node's /run is always its own.
    """
    home = SCRATCH / folder / name
    for private in ("run", *directories):
        (home / private).mkdir(parents=True, exist_ok=True)

    def made() -> tuple[int, int, socket.socket]:
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        for private, covered in directories.items():
            if Path(covered).is_dir():
                mount(str(home / private), covered, None, MS_BIND)
        mount(str(home / "run"), "/run", None, MS_BIND)
        _quiet_network()
        return (
            os.open("/proc/thread-self/ns/net", os.O_RDONLY),
            os.open("/proc/thread-self/ns/mnt", os.O_RDONLY),
            rtnl.opened(),
        )

    namespace = Namespace(name, *on_a_thread(made), folder=folder)
    loopback = rtnl.Batch()
    loopback.up(rtnl.LOOPBACK)
    loopback.send(namespace.line)
    return namespace


def _quiet_network() -> None:
    """Addresses are usable at once: duplicate detection would hold IPv6, where there is any, back for a second."""
    for setting in ("default/accept_dad", "all/accept_dad", "default/dad_transmits", "default/router_solicitations"):
        with suppress(FileNotFoundError):
            Path("/proc/sys/net/ipv6/conf", setting).write_text("0")


def on_a_thread(act: Callable[[], Result]) -> Result:
    """Namespaces belong to threads: act on a fresh one, so that ours stays where it is."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def acted() -> None:
        try:
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            errors.append(error)

    thread = Thread(target=acted)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
