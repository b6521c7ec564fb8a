"""Addresses, routes and sysctls of a namespace over netlink, each read back.

It knows no device: it is told interfaces, routes and settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from testbed.errors import Unsupported
from testbed.network.link import Port
from testbed.network.namespace import Namespace
from topologies.model import Interface, IpAddress, IpInterface, IpNetwork, Route

LOOPBACK_INDEX = 1
LOCAL_ROUTE, LOCAL_TABLE, HOST_SCOPE = "local", 255, 254
NODAD = 0x02


def set_addresses(namespace: Namespace, interfaces: Sequence[Interface]) -> None:
    """Give every interface its addresses (IPv6 without duplicate detection, so usable at once)."""
    for interface in interfaces:
        index = LOOPBACK_INDEX if interface.name == "lo" else Port(namespace, interface.name).index
        for address in interface.addresses:
            _add_address(namespace, index, address)
    _read_back(namespace, interfaces)


def put_back_addresses(namespace: Namespace, interface: Interface) -> None:
    """Add those addresses that the kernel took away, as it does with IPv6 below an MTU of 1280."""
    index = Port(namespace, interface.name).index
    present = _present(namespace, index)
    for address in interface.addresses:
        if address.ip not in present:
            _add_address(namespace, index, address)


def _add_address(namespace: Namespace, index: int, address: IpInterface) -> None:
    extra = {"flags": NODAD} if address.version == 6 else {}
    try:
        namespace.netlink.addr(
            "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **extra
        )
    except NetlinkError as refusal:
        raise Unsupported(f"{namespace.name} refused the address {address}: {refusal}", "") from None


def _present(namespace: Namespace, index: int | None = None) -> set[IpAddress]:
    found = namespace.netlink.get_addr() if index is None else namespace.netlink.get_addr(index=index)
    return {ip_address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) for a in found}


def _read_back(namespace: Namespace, interfaces: Sequence[Interface]) -> None:
    present = _present(namespace)
    missing = [str(a.ip) for i in interfaces for a in i.addresses if a.ip not in present]
    if missing:
        raise Unsupported(f"{namespace.name} did not take the addresses {', '.join(missing)}", "check the lab file")


def add_routes(namespace: Namespace, routes: Sequence[Route], *, anew: bool = False) -> None:
    """Add static routes (`anew`: also those already there); raises Unsupported with the kernel's word."""
    for route in routes:
        try:
            namespace.netlink.route("replace" if anew else "add", dst=str(route.to), gateway=str(route.via))
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


def set_sysctls(namespace: Namespace, settings: Mapping[str, str]) -> dict[str, str]:
    """Write `net.*` settings inside the namespace, read each back and return what was there before.

    Raises Unsupported, also for any setting that is the machine's and not one network's.
    """
    paths = {name: _path(name) for name in settings}
    before = {}

    def write() -> None:
        for name, value in settings.items():
            path = paths[name]
            try:
                before[name] = path.read_text().strip()
                path.write_text(value)
                read = path.read_text()
            except OSError as refusal:
                raise Unsupported(
                    f"{namespace.name}: {name} cannot be set here ({refusal.strerror})", "remove it from sysctl.conf"
                ) from None
            if read.split() != value.split():
                raise Unsupported(f"{namespace.name}: {name} reads {read.strip()!r} after writing {value!r}", "")

    namespace.inside(write)
    return before


def _path(name: str) -> Path:
    """The file of a setting; where the first separator is a dot, a slash stands for a dot in a name (sysctl.d(5))."""
    swapped = name.translate({ord("."): "/", ord("/"): "."})
    dotted = name.find(".") >= 0 and (name.find("/") < 0 or name.find(".") < name.find("/"))
    first, *rest = (swapped if dotted else name).strip("/").split("/")
    if first != "net" or not rest or any(part in ("", ".", "..") for part in rest):
        raise Unsupported(
            f"the setting {name!r} is not of one node's network but of the whole machine",
            "keep to net.* in the lab's sysctl.conf",
        )
    return Path("/proc/sys", first, *rest)
