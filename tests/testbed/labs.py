"""Tiny labs made on the fly, and jobs run on their real shadows.  Knows no packaged lab."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from testbed.bench.as_ordinary_user import NOBODY, as_ordinary_user
from testbed.devices.base import Configs
from testbed.devices.registry import known_devices
from testbed.network.namespace import Namespace
from testbed.sandbox import Sandbox
from testbed.shadow import Shadow, built
from topologies.model import Impairment, Interface, Link, LinkEnd, Node, Route, Topology

READY_SECONDS = 30.0


def node(
    name: str,
    interfaces: Mapping[str, Sequence[str]],
    kind: str = "host",
    routes: Mapping[str, str] | None = None,
    prefixes: Sequence[str] = (),
    configs: Mapping[str, Path] | None = None,
) -> Node:
    """A node; `routes` maps a prefix to its gateway."""
    return Node(
        name,
        kind,
        tuple(Interface(i, tuple(ip_interface(a) for a in own)) for i, own in interfaces.items()),
        tuple(Route(ip_network(to), ip_address(via)) for to, via in (routes or {}).items()),
        tuple(ip_network(prefix) for prefix in prefixes),
        configs=configs or {},
    )


def link(a: str, b: str, mtu: int = 1500, rate_bps: int | None = None) -> Link:
    """A wire between two `node:interface`, the same in both directions."""
    ends = [LinkEnd(*end.split(":", 1), Impairment(rate_bps)) for end in (a, b)]
    return Link(ends[0], ends[1], mtu)


def topology(nodes: Sequence[Node], links: Sequence[Link]) -> Topology:
    """A network of these."""
    return Topology("tiny", tuple(nodes), tuple(links))


def files(folder: Path, node_name: str, contents: Mapping[str, str]) -> dict[str, Path]:
    """Configuration files of a node, written into the folder."""
    written = {}
    for name, text in contents.items():
        path = folder / "configs" / node_name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written[name] = path
    return written


def on_shadow(lab: Topology, folder: Path, job: Callable[[Shadow], Any], ready: bool = True) -> Any:
    """The value of `job` on the lab's shadow, ready by protocol state, in a sandbox of its own."""

    def inside() -> Any:
        with built(lab, known_devices(), folder / "logs") as shadow:
            if ready:
                shadow.wait_ready(READY_SECONDS, lambda reason: None)
            return job(shadow)

    return Sandbox(lab.name, (folder,)).call(inside)


def with_file(shadow: Shadow, node_name: str, file: str, content: str) -> Configs:
    """The node's files as they are, but for this one."""
    return {**shadow.configs[node_name], file: content.encode()}


def as_nobody(act: Callable[[Path], Any]) -> Any:
    """The value of `act` in a child that gave root up for good; it gets a folder that is its own."""
    folder = Path(tempfile.mkdtemp(prefix="labs-"))
    os.chown(folder, NOBODY, NOBODY)
    try:
        return as_ordinary_user(lambda: act(folder))
    finally:
        shutil.rmtree(folder)


def soon(holds: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether it comes to hold within the time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def listener(namespace: Namespace, address: str, port: int, *, foreign: bool = False) -> socket.socket:
    """A listening TCP socket that lives in a node; `foreign` allows addresses that are no interface's."""
    six = ":" in address

    def made() -> socket.socket:
        line = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if foreign:
            line.setsockopt(socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP, 78 if six else 15, 1)
        line.bind((address, port))
        line.listen(16)
        return line

    return namespace.inside(made)


def connected(namespace: Namespace, address: str, port: int, seconds: float = 2.0) -> socket.socket:
    """A TCP socket of a node, connected; raises OSError."""

    def made() -> socket.socket:
        line = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        line.settimeout(seconds)
        try:
            line.connect((address, port))
        except OSError:
            line.close()
            raise
        return line

    return namespace.inside(made)


def datagrams(namespace: Namespace, address: str, count: int, octets: int = 64) -> None:
    """Send UDP datagrams to the discard port of an address, as fast as they leave."""

    def send() -> None:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
            for _ in range(count):
                line.sendto(bytes(octets), (address, 9))

    namespace.inside(send)


@contextmanager
def flood(sender: socket.socket) -> Iterator[None]:
    """Octets without end from a connected socket, as fast as the network takes them."""
    child = os.fork()
    if child == 0:
        sender.settimeout(None)
        try:
            while True:
                sender.sendall(bytes(65_536))
        except OSError:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def goodput_bps(receiver: socket.socket, seconds: float) -> float:
    """What arrives on a socket during the time."""
    receiver.settimeout(2.0)
    started, octets = time.monotonic(), 0
    while (spent := time.monotonic() - started) < seconds:
        octets += len(receiver.recv(65_536))
    return octets * 8 / spent
