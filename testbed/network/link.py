"""A veth pair between two namespaces: its ports, their names and MTU, read back.

It knows no device and no topology file; what a direction does to packets is the queueing
discipline's business.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pyroute2.netlink.exceptions import NetlinkError

from testbed.errors import Unsupported
from testbed.network.namespace import Namespace

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
        """The interface's number inside its namespace."""
        found: list[int] = self.namespace.netlink.link_lookup(ifname=kernel_name(self.name))
        if not found:
            raise LookupError(f"{self.namespace.name} has no interface {self.name}")
        return found[0]


@dataclass(frozen=True, slots=True)
class Veth:
    """A cable: two ports, made together and gone together."""

    a: Port
    b: Port

    def connect(self, mtu_octets: int) -> None:
        """Make the pair in place: no interface is ever seen, renamed or moved in another namespace."""
        peer: dict[str, object] = {"ifname": kernel_name(self.b.name), "net_ns_fd": self.b.namespace.net_fd}
        own: dict[str, object] = {"ifname": kernel_name(self.a.name)}
        for port, attributes in ((self.a, own), (self.b, peer)):
            attributes["mtu"] = mtu_octets
            if port.mac:
                attributes["address"] = port.mac
        self.a.namespace.netlink.link("add", kind="veth", peer=peer, **own)
        for port in (self.a, self.b):
            # the kernel takes an alias from a change only, not when the interface is made
            alias = {} if kernel_name(port.name) == port.name else {"ifalias": port.name}
            port.namespace.netlink.link("set", index=port.index, state="up", **alias)

    def disconnect(self) -> None:
        """Remove both ends."""
        self.a.namespace.netlink.link("del", index=self.a.index)


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
