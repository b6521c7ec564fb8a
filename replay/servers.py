"""The server side of the replay: listening sockets that answer as the captured servers did.

Lives as long as the player: between windows it answers proxies' health checks. Which flow has
arrived is the recogniser's business, what is said to it the connection's.
"""

import errno
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from replay.arrival import ServerConnection
from replay.datagrams import DatagramServer, datagram_socket
from replay.observed import Notes, Transfer
from replay.reactor import READ, Namespaces, Reactor
from replay.responder import Recogniser
from replay.schedule import TCP, FlowScript


@dataclass(frozen=True, slots=True)
class Listener:
    """A service that a node offers: protocol 6 or 17 and a port, on all its addresses."""

    node: str
    protocol: int
    port: int


class Servers:
    """All listening sockets of all nodes, and the connections that arrived at them."""

    def __init__(self, reactor: Reactor, namespaces: Namespaces) -> None:
        self.reactor = reactor
        self._namespaces = namespaces
        self.recogniser = Recogniser()
        self.notes = Notes()
        self.clock_offset_ns = 0
        self._connections: set[ServerConnection] = set()
        self._datagram_servers: list[DatagramServer] = []
        self._count = 0

    def listen(self, listeners: Iterable[Listener]) -> None:
        """Open every listener; raises OSError with the listener named."""
        wanted = sorted(set(listeners), key=lambda x: (x.node, x.protocol, x.port))
        self.recogniser = Recogniser((x.protocol, x.port) for x in wanted)
        for listener in wanted:
            self._namespaces.enter(listener.node)
            try:
                if listener.protocol == TCP:
                    self._listen_tcp(listener)
                else:
                    self._listen_udp(listener)
            except OSError as error:
                where = f"{listener.node} protocol {listener.protocol} port {listener.port}"
                raise OSError(error.errno, f"listen on {where}: {error.strerror}") from error

    def begin(self, notes: Notes) -> None:
        """A window begins: count streams from here, forget the flows of the window before."""
        self.notes = notes
        self.clock_offset_ns = time.time_ns() - time.monotonic_ns()
        self.recogniser.clear()
        for server in self._datagram_servers:
            server.peers.clear()
        for connection in self._connections:
            connection.rebase()

    def end(self) -> None:
        """A window ended: abort what belongs to its flows, keep what belongs to proxies."""
        self.recogniser.clear()
        for server in self._datagram_servers:
            server.peers.clear()
        for connection in list(self._connections):
            if connection.script is not None:
                connection.abort()

    def retry_unknown(self) -> None:
        """A flow waits again: perhaps a connection that nobody recognised is it."""
        for connection in list(self._connections):
            connection.recognise_again()

    def number(self) -> int:
        """The next connection number."""
        self._count += 1
        return self._count

    def note(self, transfer: Transfer) -> None:
        """Write down a message that the server side sent or received."""
        self.notes.transfers.append(transfer)

    def count(self, script: FlowScript, octets: int) -> None:
        """Application octets of a flow that arrived here."""
        counts = self.notes.server_octets
        counts[script.flow_id] = counts.get(script.flow_id, 0) + octets

    def add(self, connection: ServerConnection) -> None:
        """Keep a connection."""
        self._connections.add(connection)

    def drop(self, connection: ServerConnection) -> None:
        """Let go of a connection that closed."""
        self._connections.discard(connection)

    def _listen_tcp(self, listener: Listener) -> None:
        try:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            address = "::"
        except OSError:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            address = "0.0.0.0"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address, listener.port))
        sock.listen(4096)
        self.reactor.watch(sock, READ, lambda _events: self._accept(sock, listener))

    def _accept(self, sock: socket.socket, listener: Listener) -> None:
        for _ in range(64):
            try:
                accepted, _ = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    return
                continue
            accepted.settimeout(0)
            try:
                ServerConnection(self, accepted, listener.node)
            except OSError:
                accepted.close()

    def _listen_udp(self, listener: Listener) -> None:
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                sock = datagram_socket(family, listener.port)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:
                    continue
                raise
            self._datagram_servers.append(DatagramServer(self, sock, listener.node))
