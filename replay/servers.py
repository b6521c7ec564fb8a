"""The server side of the replay: listening sockets that answer as the captured servers did.

Lives as long as the player: between windows it answers proxies' health checks. Which flow has
arrived is the recogniser's business, what is said to it the connection's.
"""

import errno
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from replay.arrival import ServerConnection, plain
from replay.datagrams import Datagram, DatagramServer, datagram_socket
from replay.desk import Guest
from replay.observed import Notes
from replay.reactor import READ, Namespaces, Reactor
from replay.responder import Endpoint, Recogniser
from replay.schedule import TCP
from replay.shards import Mates, Stranger, StrayDatagram, share_port, steer
from replay.tls_service import server_context

_ACCEPTS_AT_ONCE = 64
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class Listener:
    """A service that a node offers: protocol 6 or 17 and a port, on all its addresses."""

    node: str
    protocol: int
    port: int


class Servers:
    """All listening sockets of all nodes, and the connections that arrived at them."""

    def __init__(
        self,
        reactor: Reactor,
        namespaces: Namespaces,
        mates: Mates | None = None,
        identities: Mapping[tuple[str, int], str] | None = None,
    ) -> None:
        self._tls = {place: server_context(identity) for place, identity in (identities or {}).items()}
        self.reactor = reactor
        self._namespaces = namespaces
        self._mates = mates or Mates()
        self._shards = len(self._mates.lines) + 1
        self.recogniser = Recogniser()
        self.notes = Notes()
        self.clock_offset_ns = 0
        self._guests: set[Guest] = set()
        self._datagram_servers: dict[tuple[str, int, int], DatagramServer] = {}
        self._count = 0
        for mate, line in self._mates.lines.items():
            reactor.watch(line, READ, lambda _events, mate=mate: self._take_over(mate))  # type: ignore[misc]

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
        for server in self._datagram_servers.values():
            server.peers.clear()
        for guest in self._guests:
            guest.rebase()

    def end(self) -> None:
        """A window ended: abort what belongs to its flows, keep what belongs to proxies."""
        self.recogniser.clear()
        for server in self._datagram_servers.values():
            server.peers.clear()
        for guest in list(self._guests):
            if guest.in_a_flow:
                guest.abort()

    def retry_unknown(self) -> None:
        """A flow waits again: perhaps a connection that nobody recognised is it."""
        for guest in list(self._guests):
            guest.recognise_again()

    def number(self) -> int:
        """The next connection number; those of other shards are others."""
        self._count += 1
        return self._count * self._shards + self._mates.own

    def add(self, guest: Guest) -> None:
        """Keep a connection."""
        self._guests.add(guest)

    def drop(self, guest: Guest) -> None:
        """Let go of a connection that closed."""
        self._guests.discard(guest)

    def _listen_tcp(self, listener: Listener) -> None:
        try:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            address = "::"
        except OSError:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            address = "0.0.0.0"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if self._mates.lines:
            share_port(sock)
        sock.bind((address, listener.port))
        sock.listen(4096)
        if self._mates.lines:
            steer(sock, self._shards)
        self.reactor.watch_level(sock.fileno(), lambda _events: self._accept(sock, listener.node))

    def _accept(self, sock: socket.socket, node: str) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                accepted, name = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    return
                continue
            accepted.setblocking(False)
            self._receive(accepted, node, plain(name), b"", 0)

    def _receive(self, sock: socket.socket, node: str, peer: Endpoint, said: bytes, visited: int) -> None:
        try:
            tls = self._tls.get((node, sock.getsockname()[1])) if self._tls else None
            connection = ServerConnection(self, sock, node, peer, self._pass_on, tls)
        except OSError:
            sock.close()  # it was reset before it was looked at
            return
        connection.visited = visited
        connection.take_in(said)

    def _listen_udp(self, listener: Listener) -> None:
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                sock = datagram_socket(family, listener.port, shared=bool(self._mates.lines))
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:
                    continue
                raise
            if self._mates.lines:
                steer(sock, self._shards)
            server = DatagramServer(self, sock, listener.node, self._pass_datagram)
            self._datagram_servers[listener.node, int(family), listener.port] = server

    def _pass_on(self, connection: ServerConnection, said: bytes, *, http: bool) -> bool:
        mate = self._mates.next_for(connection.visited, http=http)
        if mate is None:
            return False
        visited = self._mates.seen_by(connection.visited)
        stranger = Stranger(connection.node, connection.peer, said, visited)
        if not self._mates.give(mate, stranger, [connection.sock]):
            return False
        connection.let_go()
        return True

    def _pass_datagram(self, server: DatagramServer, datagram: Datagram) -> bool:
        mate = self._mates.next_for(datagram.visited, http=False)
        if mate is None:
            return False
        seen = replace(datagram, visited=self._mates.seen_by(datagram.visited))
        return self._mates.give(mate, StrayDatagram(server.node, int(server.family), server.port, seen))

    def _take_over(self, mate: int) -> None:
        for what, fds in self._mates.taken(mate):
            if isinstance(what, Stranger):
                sock = socket.socket(fileno=fds[0])
                sock.setblocking(False)
                self._receive(sock, what.node, what.peer, what.said, what.visited)
            else:
                server = self._datagram_servers.get((what.node, what.family, what.port))
                if server is not None:
                    server.on_datagram(what.datagram)
