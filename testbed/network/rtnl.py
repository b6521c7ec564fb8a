"""Requests to a namespace's rtnetlink, many in one system call, and plain dumps to read back what became of them.

It knows messages, not labs.  pyroute2 asks and waits for one request at a time, which costs more than the request:
what a build makes by the hundred goes through here, everything else through pyroute2.

Numbers are those of linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h and pkt_sched.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from topologies.model import IpAddress, IpInterface, IpNetwork

LOOPBACK = 1
"""The number of lo in every namespace."""

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_QDISC = struct.Struct("=BxxxiIII")
_ATTRIBUTE = struct.Struct("=HH")

REQUEST, MULTI, ACK, DUMP = 0x1, 0x2, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
NEW_LINK, DELETE_LINK, GET_LINK, NEW_ADDRESS, GET_ADDRESS, NEW_ROUTE, NEW_QDISC, GET_QDISC = (
    16,
    17,
    18,
    20,
    22,
    24,
    36,
    38,
)
DELETE_QDISC = 37
NEW_FILTER, DELETE_FILTER, GET_FILTER = 44, 45, 46
_BODY = {NEW_LINK: _LINK, NEW_ADDRESS: _ADDRESS, NEW_ROUTE: _ROUTE, NEW_QDISC: _QDISC, NEW_FILTER: _QDISC}
_ANSWER = {GET_LINK: NEW_LINK, GET_ADDRESS: NEW_ADDRESS, GET_QDISC: NEW_QDISC, GET_FILTER: NEW_FILTER}

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 18, 20, 28
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
TCA_KIND, TCA_OPTIONS, TCA_TBF_PARMS, TCA_TBF_BURST = 1, 2, 1, 6
_UP = 0x1
_NODAD = 0x02
_STATIC, _UNICAST, _LOCAL, _UNREACHABLE = 4, 1, 2, 7
LAST_RESORT = 4_278_198_272
"""The metric with which every other route of a VRF wins (the kernel's documentation of VRFs)."""

_MAIN_TABLE, _LOCAL_TABLE, _HOST_SCOPE = 254, 255, 254

_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_EXTENDED = 0x200
_AT_ONCE = 64
"""Requests a system call: their acknowledgements must fit in the socket's buffer."""


def opened() -> socket.socket:
    """A socket to the rtnetlink of the namespace that the calling thread is in."""
    line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    line.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
    line.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
    return line


@dataclass(frozen=True, slots=True)
class End:
    """One end of a veth pair to be made: its number and name, and its MAC when that matters."""

    index: int
    name: str
    mac: str | None = None


@dataclass(slots=True)
class Batch:
    """Requests in the order in which the kernel shall see them; `send` empties it."""

    _requests: list[tuple[str, int, int, bytes]] = field(default_factory=list)

    def veth(self, own: End, peer: End, peer_net_fd: int, mtu_octets: int) -> None:
        """A pair, the peer in the namespace behind a descriptor; it can be brought `up` only when both are there."""
        far = _LINK.pack(0, 0, peer.index, 0, 0) + _interface(peer, mtu_octets) + _number(IFLA_NET_NS_FD, peer_net_fd)
        data = _attribute(2, _attribute(1, far))
        body = _LINK.pack(0, 0, own.index, _UP, _UP) + _interface(own, mtu_octets)
        body += _attribute(IFLA_LINKINFO, _attribute(1, b"veth\0") + data)
        self._add(f"link {own.name} to {peer.name}", NEW_LINK, CREATE | EXCLUSIVE, body)

    def up(self, index: int) -> None:
        """Bring an interface up."""
        self._add(f"interface {index} up", NEW_LINK, 0, _LINK.pack(0, 0, index, _UP, _UP))

    def down(self, index: int) -> None:
        """Take an interface down."""
        self._add(f"interface {index} down", NEW_LINK, 0, _LINK.pack(0, 0, index, 0, _UP))

    def remove(self, index: int) -> None:
        """Remove an interface, and with a veth its peer."""
        self._add(f"removal of interface {index}", DELETE_LINK, 0, _LINK.pack(0, 0, index, 0, 0))

    def device(self, kind: str, index: int, name: str, data: bytes, parent: int | None = None) -> None:
        """An interface of any kind, with the attributes of its kind, on a `parent` where it stands on one."""
        body = _LINK.pack(0, 0, index, 0, 0) + _attribute(IFLA_IFNAME, name.encode() + b"\0")
        body += b"" if parent is None else _number(IFLA_LINK, parent)
        body += _attribute(IFLA_LINKINFO, _attribute(1, kind.encode() + b"\0") + _attribute(2, data))
        self._add(f"{kind} {name}", NEW_LINK, CREATE | EXCLUSIVE, body)

    def master(self, index: int, master: int) -> None:
        """Put an interface under another: a VRF, a bridge."""
        self._add(
            f"interface {index} under {master}",
            NEW_LINK,
            0,
            _LINK.pack(0, 0, index, 0, 0) + _number(IFLA_MASTER, master),
        )

    def alias(self, index: int, name: str) -> None:
        """Write production's name beside the kernel's, which takes it of an interface that is there already."""
        body = _LINK.pack(0, 0, index, 0, 0) + _attribute(IFLA_IFALIAS, name.encode())
        self._add(f"alias {name}", NEW_LINK, 0, body)

    def address(self, index: int, address: IpInterface) -> None:
        """An address, IPv6 without duplicate detection, so usable at once."""
        packed = address.ip.packed
        family, flags = (socket.AF_INET, 0) if address.version == 4 else (socket.AF_INET6, _NODAD)
        body = _ADDRESS.pack(family, address.network.prefixlen, flags, 0, index)
        body += _attribute(IFA_LOCAL, packed) + _attribute(IFA_ADDRESS, packed)
        self._add(f"address {address}", NEW_ADDRESS, CREATE | EXCLUSIVE, body)

    def route(self, to: IpNetwork, via: IpAddress, *, anew: bool = False, table: int | None = None) -> None:
        """A static route (`anew`: also in the place of one that is there), in the main table or that of a VRF."""
        family = socket.AF_INET if to.version == 4 else socket.AF_INET6
        head = _MAIN_TABLE if table is None else 0
        body = _ROUTE.pack(family, to.prefixlen, 0, 0, head, _STATIC, 0, _UNICAST, 0)
        body += b"" if table is None else _number(RTA_TABLE, table)
        if to.prefixlen:
            body += _attribute(RTA_DST, to.network_address.packed)
        body += _attribute(RTA_GATEWAY, via.packed)
        self._add(f"route {to} via {via}", NEW_ROUTE, CREATE | (REPLACE if anew else EXCLUSIVE), body)

    def unreachable(self, table: int) -> None:
        """Let a VRF's table end with "nowhere", of both families: what it lacks is not looked up elsewhere."""
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _ROUTE.pack(family, 0, 0, 0, 0, _STATIC, 0, _UNREACHABLE, 0)
            body += _number(RTA_TABLE, table) + _number(RTA_PRIORITY, LAST_RESORT)
            self._add(f"last route of table {table}", NEW_ROUTE, CREATE | EXCLUSIVE, body)

    def local(self, prefix: IpNetwork, index: int) -> None:
        """AnyIP: every address of a prefix is the namespace's own."""
        family, scope = (socket.AF_INET, _HOST_SCOPE) if prefix.version == 4 else (socket.AF_INET6, 0)
        body = _ROUTE.pack(family, prefix.prefixlen, 0, 0, _LOCAL_TABLE, _STATIC, scope, _LOCAL, 0)
        body += _attribute(RTA_DST, prefix.network_address.packed) + _number(RTA_OIF, index)
        self._add(f"prefix {prefix}", NEW_ROUTE, CREATE | EXCLUSIVE, body)

    def queue(self, kind: str, index: int, handle: int, parent: int, options: bytes) -> None:
        """A queueing discipline of any kind, changed in place where this handle has that kind already."""
        body = _QDISC.pack(0, index, handle, parent, 0) + _attribute(TCA_KIND, kind.encode() + b"\0")
        self._add(f"{kind} on {index}", NEW_QDISC, CREATE | REPLACE, body + _attribute(TCA_OPTIONS, options))

    def remove_queue(self, index: int, handle: int, parent: int) -> None:
        """Remove a queueing discipline, with what waits in it."""
        self._add(f"removal of a queue on {index}", DELETE_QDISC, 0, _QDISC.pack(0, index, handle, parent, 0))

    def ask(self, what: str, kind: int, flags: int, body: bytes) -> None:
        """Any other request, `what` in words for its refusal."""
        self._add(what, kind, flags, body)

    def __len__(self) -> int:
        return len(self._requests)

    def send(self, line: socket.socket) -> None:
        """Have the kernel do all of it; raises OSError that says which request was refused, and why."""
        requests, self._requests = self._requests, []
        refusal: OSError | None = None
        for start in range(0, len(requests), _AT_ONCE):
            part = requests[start : start + _AT_ONCE]
            line.send(b"".join(_message(kind, flags | ACK, n, body) for n, (_w, kind, flags, body) in enumerate(part)))
            for number, code, said in _acknowledged(line, len(part)):
                if code and refusal is None:
                    refusal = OSError(code, f"{part[number][0]}: {said or os.strerror(code)}")
        if refusal is not None:
            raise refusal

    def _add(self, what: str, kind: int, flags: int, body: bytes) -> None:
        self._requests.append((what, kind, flags, body))


@dataclass(frozen=True, slots=True)
class Answer:
    """One object of a dump: its fixed fields in the kernel's order, and its attributes by number."""

    fields: tuple[int, ...]
    attributes: Mapping[int, bytes]


def dump(line: socket.socket, what: int, of: bytes = b"") -> Iterator[Answer]:
    """Every link (GET_LINK), address (GET_ADDRESS), queueing discipline (GET_QDISC) or filter (GET_FILTER).

    `of` are the fixed fields of the question where it is not about everything; raises OSError.
    """
    body = _BODY[_ANSWER[what]]
    line.send(_message(what, DUMP, 0, of or bytes(body.size)))
    while True:
        data = line.recv(1 << 17)
        for kind, _flags, _number_of, content in _messages(data):
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", content)[0]
                raise OSError(code, os.strerror(code))
            yield Answer(body.unpack_from(content), attributes(content[body.size :]))


def link(line: socket.socket, index: int) -> Answer:
    """One interface by number; raises OSError."""
    line.send(_message(GET_LINK, 0, 0, _LINK.pack(0, 0, index, 0, 0)))
    kind, _flags, _number_of, content = next(_messages(line.recv(1 << 17)))
    if kind == _ERROR:
        code = -struct.unpack_from("=i", content)[0]
        raise OSError(code, os.strerror(code))
    return Answer(_LINK.unpack_from(content), attributes(content[_LINK.size :]))


def is_up(line: socket.socket, index: int) -> bool:
    """Whether an interface is administratively up."""
    return any(link.fields[2] == index and link.fields[3] & _UP for link in dump(line, GET_LINK))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message or of a nested attribute, the last of each number."""
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _interface(end: End, mtu_octets: int) -> bytes:
    mac = _attribute(IFLA_ADDRESS, bytes.fromhex(end.mac.replace(":", ""))) if end.mac else b""
    return _attribute(IFLA_IFNAME, end.name.encode() + b"\0") + _number(IFLA_MTU, mtu_octets) + mac


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, number, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, number, _port = _HEADER.unpack_from(data, at)
        yield kind, flags, number, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _acknowledged(line: socket.socket, wanted: int) -> Iterator[tuple[int, int, str]]:
    """(number, error or 0, the kernel's own words) of each request."""
    while wanted:
        for kind, flags, number, content in _messages(line.recv(1 << 17)):
            if kind != _ERROR:
                raise OSError(errno.EPROTO, f"found a message of type {kind}, expected an acknowledgement")
            wanted -= 1
            code = -struct.unpack_from("=i", content)[0]
            words = attributes(content[4 + _HEADER.size :]).get(1, b"") if flags & _EXTENDED else b""
            yield number, code, words.rstrip(b"\0").decode(errors="replace")
