"""Somebody who listens where a probe may arrive: "refused by the host" must not look like "denied by the firewall".

They are there for one pass and answer nothing: a handshake needs no answer, and a datagram tells which probe it is.
Knows namespaces and sockets, no firewall.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from replay.schedule import TCP
from testbed.network.namespace import Namespace
from testbed.preflight.probe import Stand

_BACKLOG = 4_096
_DATAGRAM_OCTETS = 2_048
_SAID = re.compile(rb"testbed (\w+)\.")
_TAKEN = frozenset({errno.EADDRINUSE, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(slots=True)
class StandIns:
    """Open sockets; `arrived` reads what came to those of UDP."""

    datagrams: list[socket.socket] = field(default_factory=list)
    streams: list[socket.socket] = field(default_factory=list)

    def arrived(self) -> frozenset[str]:
        """The probe_ids whose datagrams came, since this was asked last."""
        found = set[str]()
        for line in self.datagrams:
            with suppress(BlockingIOError):
                while True:
                    said = _SAID.match(line.recv(_DATAGRAM_OCTETS))
                    if said is not None:
                        found.add(said[1].decode("ascii"))
        return frozenset(found)


@contextmanager
def stood_in(namespaces: Mapping[str, Namespace], stands: Iterable[Stand]) -> Iterator[StandIns]:
    """Listen at all of these places where nobody does; raises OSError for what is not a place already taken."""
    ins = StandIns()
    by_node: dict[str, list[tuple[int, int]]] = {}
    for node, protocol, port in dict.fromkeys(stands):
        by_node.setdefault(node, []).append((protocol, port))

    def opened(wanted: list[tuple[int, int]]) -> None:
        for protocol, port in wanted:
            for family in (socket.AF_INET, socket.AF_INET6):
                with suppress_taken():
                    line = _socket(family, protocol, port)
                    (ins.streams if protocol == TCP else ins.datagrams).append(line)

    try:
        for node, wanted in by_node.items():
            namespaces[node].inside(lambda wanted=wanted: opened(wanted))  # type: ignore[misc]
        yield ins
    finally:
        for line in (*ins.datagrams, *ins.streams):
            line.close()


@contextmanager
def suppress_taken() -> Iterator[None]:
    """A place where somebody listens already needs nobody else."""
    try:
        yield
    except OSError as error:
        if error.errno not in _TAKEN:
            raise


def _socket(family: int, protocol: int, port: int) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    line = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with closing_on_error(line):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(protocol == TCP))
        if family == socket.AF_INET6:
            line.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        line.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        if protocol == TCP:
            line.listen(_BACKLOG)
    return line


@contextmanager
def closing_on_error(line: socket.socket) -> Iterator[None]:
    """Close the socket only when what is done with it fails."""
    try:
        yield
    except OSError:
        with closing(line):
            raise
