"""Addresses, routes and sysctls of a namespace over netlink, each read back.

It knows no device: it is told interfaces, routes and settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from testbed.errors import Unsupported
from testbed.network.link import Port
from testbed.network.namespace import Namespace
from topologies.model import Interface, IpNetwork, Route

LOOPBACK_INDEX = 1
LOCAL_ROUTE, LOCAL_TABLE, HOST_SCOPE = "local", 255, 254
NODAD = 0x02


def set_addresses(namespace: Namespace, interfaces: Sequence[Interface]) -> None:
    """Give every interface its addresses (IPv6 without duplicate detection, so usable at once)."""
    for interface in interfaces:
        index = LOOPBACK_INDEX if interface.name == "lo" else Port(namespace, interface.name).index
        for address in interface.addresses:
            extra = {"flags": NODAD} if address.version == 6 else {}
            namespace.netlink.addr(
                "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **extra
            )
    _read_back(namespace, interfaces)


def _read_back(namespace: Namespace, interfaces: Sequence[Interface]) -> None:
    present = {a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS") for a in namespace.netlink.get_addr()}
    missing = [str(a.ip) for i in interfaces for a in i.addresses if str(a.ip) not in present]
    if missing:
        raise Unsupported(f"{namespace.name} did not take the addresses {', '.join(missing)}", "check the lab file")


def add_routes(namespace: Namespace, routes: Sequence[Route]) -> None:
    """Add static routes; raises Unsupported with the kernel's word when a gateway is out of reach."""
    for route in routes:
        try:
            namespace.netlink.route("add", dst=str(route.to), gateway=str(route.via))
        except NetlinkError as refusal:
            raise Unsupported(f"{namespace.name} refused the route {route.to} via {route.via}: {refusal}", "") from None


def answer_for(namespace: Namespace, prefixes: Sequence[IpNetwork]) -> None:
    """Make the namespace own every address of `prefixes` (AnyIP), without adding one of them."""
    for prefix in prefixes:
        namespace.netlink.route(
            "add",
            dst=str(prefix),
            oif=LOOPBACK_INDEX,
            type=LOCAL_ROUTE,
            table=LOCAL_TABLE,
            scope=HOST_SCOPE if prefix.version == 4 else 0,
        )


def set_sysctls(namespace: Namespace, settings: Mapping[str, str]) -> None:
    """Write `net.*` settings inside the namespace and read each back; raises Unsupported."""

    def write() -> None:
        for name, value in settings.items():
            path = Path("/proc/sys", *_parts(name))
            try:
                path.write_text(value)
                read = path.read_text()
            except OSError as refusal:
                raise Unsupported(
                    f"{namespace.name}: {name} cannot be set here ({refusal.strerror})", "remove it from sysctl.conf"
                ) from None
            if read.split() != value.split():
                raise Unsupported(f"{namespace.name}: {name} reads {read.strip()!r} after writing {value!r}", "")

    namespace.inside(write)


def _parts(name: str) -> list[str]:
    return name.split("/") if "/" in name else name.split(".")
