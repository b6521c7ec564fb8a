"""A veth pair between two namespaces: its ports, their names and MTU, read back.

It knows no device and no topology file; what a direction does to packets is the queueing
discipline's business.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from testbed.errors import Unsupported
from testbed.network.namespace import Namespace

NAME_OCTETS = 15


def kernel_name(name: str) -> str:
    """The name an interface bears in the kernel: production's own where it fits, else a stable short form."""
    if len(name.encode()) <= NAME_OCTETS and "/" not in name and not any(c.isspace() for c in name):
        return name
    kept = "".join(c if c.isalnum() else "-" for c in name)[:8]
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
            port.namespace.netlink.link("set", index=port.index, state="up")

    def disconnect(self) -> None:
        """Remove both ends."""
        self.a.namespace.netlink.link("del", index=self.a.index)


def set_mtu(port: Port, mtu_octets: int) -> None:
    """Change an interface's MTU in place and read it back; raises Unsupported."""
    netlink, index = port.namespace.netlink, port.index
    netlink.link("set", index=index, mtu=mtu_octets)
    read = mtu_of(port)
    if read != mtu_octets:
        raise Unsupported(f"{port.namespace.name}:{port.name} took MTU {read}, not {mtu_octets}", "use a smaller MTU")


def mtu_of(port: Port) -> int:
    """The MTU in octets, as the kernel has it."""
    value: int = port.namespace.netlink.get_links(port.index)[0].get("mtu")
    return value
