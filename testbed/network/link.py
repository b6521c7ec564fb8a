"""A veth pair between two namespaces: its ports, their names and MTU, read back.

It knows no device and no topology file; what a direction does to packets is the queueing
discipline's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from pyroute2.netlink.exceptions import NetlinkError

from testbed.errors import Unsupported
from testbed.network.namespace import Namespace
from testbed.network.rtnl import GET_LINK, Batch, End, dump

NAME_OCTETS = 15


def kernel_name(name: str) -> str:
    """The name an interface bears in the kernel: production's own where it fits, else a stable short form."""
    plain = name.isascii() and name.isprintable() and not any(c in " /:%" for c in name)
    if plain and 0 < len(name) <= NAME_OCTETS and name not in (".", ".."):
        return name
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:8]
    return f"{kept}{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a link: an interface inside a namespace."""

    namespace: Namespace
    name: str
    mac: str | None = None

    @property
    def index(self) -> int:
        """The interface's number inside its namespace; raises LookupError."""
        made = self.namespace.indexes.get(kernel_name(self.name))
        if made is not None:
            return made
        found: list[int] = self.namespace.netlink.link_lookup(ifname=kernel_name(self.name))
        if not found:
            raise LookupError(f"{self.namespace.name} has no interface {self.name}")
        return found[0]


@dataclass(frozen=True, slots=True)
class Veth:
    """A cable: two ports, made together and gone together."""

    a: Port
    b: Port
    mtu_octets: int = 1500

    def disconnect(self) -> None:
        """Remove both ends."""
        gone = Batch()
        gone.remove(self.a.index)
        gone.send(self.a.namespace.line)
        for port in (self.a, self.b):
            del port.namespace.indexes[kernel_name(port.name)]


def lay(cables: Sequence[Veth]) -> None:
    """Make all pairs in place, both ends up: no interface is ever seen, renamed or moved in another namespace.

    Raises Unsupported with the kernel's word when a name, MAC or MTU is refused.
    """
    made: dict[int, tuple[Namespace, Batch]] = {}
    finished: dict[int, tuple[Namespace, Batch]] = {}
    numbers: dict[int, Iterator[int]] = {}
    for cable in cables:
        own, peer = (_end(port, _numbers(numbers, port.namespace)) for port in (cable.a, cable.b))
        _batch(made, cable.a.namespace).veth(own, peer, cable.b.namespace.net_fd, cable.mtu_octets)
        _batch(finished, cable.b.namespace).up(peer.index)
        for port, end in ((cable.a, own), (cable.b, peer)):
            if end.name != port.name:
                _batch(finished, port.namespace).alias(end.index, port.name)
    for namespace, batch in (*made.values(), *finished.values()):
        try:
            batch.send(namespace.line)
        except OSError as refusal:
            raise Unsupported(
                f"{namespace.name} refused the {refusal.strerror}", "check names and MTU in the lab"
            ) from None


def _numbers(known: dict[int, Iterator[int]], namespace: Namespace) -> Iterator[int]:
    """Numbers that no interface of a namespace has: the kernel gives some out by itself, as to a bridge."""
    if namespace.net_fd not in known:
        taken = max((link.fields[2] for link in dump(namespace.line, GET_LINK)), default=0)
        known[namespace.net_fd] = count(taken + 1)
    return known[namespace.net_fd]


def _end(port: Port, numbers: Iterator[int]) -> End:
    name, index = kernel_name(port.name), next(numbers)
    port.namespace.indexes[name] = index
    return End(index, name, port.mac)


def _batch(batches: dict[int, tuple[Namespace, Batch]], namespace: Namespace) -> Batch:
    return batches.setdefault(namespace.net_fd, (namespace, Batch()))[1]


def set_mtu(port: Port, mtu_octets: int) -> None:
    """Change an interface's MTU in place and read it back; raises Unsupported."""
    try:
        port.namespace.netlink.link("set", index=port.index, mtu=mtu_octets)
    except NetlinkError as refusal:
        raise Unsupported(f"{port.namespace.name}:{port.name} refused MTU {mtu_octets}: {refusal}", "") from None
    read = mtu_of(port)
    if read != mtu_octets:
        raise Unsupported(f"{port.namespace.name}:{port.name} took MTU {read}, not {mtu_octets}", "use a smaller MTU")


def mtu_of(port: Port) -> int:
    """The MTU in octets, as the kernel has it."""
    value: int = port.namespace.netlink.get_links(port.index)[0].get("mtu")
    return value
