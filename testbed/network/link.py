"""A veth pair between two namespaces and the impairment of each direction, every setting read back.

It knows no device and no topology file; a link is two ends with an `Impairment` each.  A kernel
that cannot do what is asked is refused, never left silently without it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pyroute2.netlink.exceptions import NetlinkError

from testbed.errors import Unsupported
from testbed.network.namespace import Namespace
from topologies.model import Impairment

ROOT_HANDLE, CHILD_HANDLE = 0x10000, 0x20000
NAME_OCTETS = 15
QUEUE_SECONDS = 0.05
"""Depth of a rate-limited queue where none is given: 50 ms at the rate, at least 32 full frames."""


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


def impair(port: Port, impairment: Impairment) -> None:
    """Give what leaves `port` this rate, delay and loss, in place, and read the qdisc back.

    Rate is a token bucket (tbf); the rest is netem with the token bucket below it.  Raises
    Unsupported when this kernel has no netem and the impairment needs it.
    """
    if needs_netem(impairment):
        raise Unsupported(
            f"{port.namespace.name}:{port.name} asks for delay, loss, reordering, duplication or corruption, "
            "which needs the kernel's netem",
            "use rate limits only, or a kernel with sch_netem",
        )
    netlink, index = port.namespace.netlink, port.index
    if impairment.rate_bps is None:
        _remove_root(port)
        return
    bucket = TokenBucket.for_rate(impairment)
    # replace keeps the queue of packets when the kind is the same: traffic flows on
    netlink.tc(
        "replace",
        "tbf",
        index,
        ROOT_HANDLE,
        rate=bucket.rate_octets_per_second,
        burst=bucket.burst_octets,
        limit=bucket.limit_octets,
    )
    read = _bucket_of(port)
    if read is None or read != impairment.rate_bps // 8:
        raise Unsupported(f"{port.namespace.name}:{port.name} took rate {read}, not {impairment.rate_bps // 8}", "")


def needs_netem(impairment: Impairment) -> bool:
    """Whether more than a rate is asked for."""
    return any(
        (
            impairment.delay_ns,
            impairment.pdv_ns,
            impairment.loss_ratio,
            impairment.duplicate_ratio,
            impairment.reorder_ratio,
            impairment.corrupt_ratio,
        )
    )


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """The parameters of a tbf, whose burst is small so that the rate holds at the scale of a packet."""

    rate_octets_per_second: int
    burst_octets: int
    limit_octets: int

    @classmethod
    def for_rate(cls, impairment: Impairment) -> TokenBucket:
        """One millisecond of burst, at least two full frames."""
        rate = (impairment.rate_bps or 0) // 8
        queue = impairment.queue_octets or max(int(rate * QUEUE_SECONDS), 32 * 1514)
        return cls(rate, max(rate // 1000, 3200), queue)


def _bucket_of(port: Port) -> int | None:
    for qdisc in port.namespace.netlink.get_qdiscs(port.index):
        if qdisc.get_attr("TCA_KIND") == "tbf":
            parameters = qdisc.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
            rate: int = parameters["rate"]
            return rate
    return None


def _remove_root(port: Port) -> None:
    netlink, index = port.namespace.netlink, port.index
    ours = [q for q in netlink.get_qdiscs(index) if q["handle"] == ROOT_HANDLE]
    if not ours:
        return
    try:
        netlink.tc("del", index=index, handle=ROOT_HANDLE, root=True)
    except NetlinkError as refusal:
        raise Unsupported(f"{port.namespace.name}:{port.name} would not let its rate limit go: {refusal}", "") from None
