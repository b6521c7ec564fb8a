"""Addresses, routes and sysctls of a namespace over netlink, each read back.

It knows no device: it is told interfaces, routes and settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from testbed.errors import Unsupported
from testbed.network.link import Port
from testbed.network.namespace import Namespace
from testbed.network.rtnl import GET_ADDRESS, IFA_ADDRESS, IFA_LOCAL, LOOPBACK, Batch, dump
from testbed.network.unlinked import tables
from topologies.model import Interface, IpAddress, IpNetwork, Route


def set_addresses(namespace: Namespace, interfaces: Sequence[Interface], prefixes: Sequence[IpNetwork] = ()) -> None:
    """Give every interface its addresses, and the namespace every address of `prefixes` (AnyIP); read back.

    IPv6 comes without duplicate detection, so that it is usable at once.  Raises Unsupported.
    """
    wanted = Batch()
    for interface in interfaces:
        index = _index(namespace, interface)
        for address in interface.addresses:
            wanted.address(index, address)
    for prefix in prefixes:
        wanted.local(prefix, LOOPBACK)
    if not len(wanted):
        return
    _send(namespace, wanted)
    present = _present(namespace)
    missing = [str(a.ip) for i in interfaces for a in i.addresses if a.ip not in present]
    if missing:
        raise Unsupported(f"{namespace.name} did not take the addresses {', '.join(missing)}", "check the lab file")


def put_back_addresses(namespace: Namespace, interface: Interface) -> None:
    """Add those addresses that the kernel took away, as it does with IPv6 below an MTU of 1280."""
    index = _index(namespace, interface)
    present, lost = _present(namespace, index), Batch()
    for address in interface.addresses:
        if address.ip not in present:
            lost.address(index, address)
    _send(namespace, lost)


def add_routes(
    namespace: Namespace, routes: Sequence[Route], interfaces: Sequence[Interface] = (), *, anew: bool = False
) -> None:
    """Add static routes (`anew`: also those already there), each in the VRF of the interface that its gateway is at.

    Raises Unsupported with the kernel's word.
    """
    wanted, of_vrf = Batch(), tables(interfaces)
    for route in routes:
        near = next((i for i in interfaces if any(route.via in a.network for a in i.addresses)), None)
        table = of_vrf.get(near.vrf) if near is not None and near.vrf is not None else None
        wanted.route(route.to, route.via, anew=anew, table=table)
    _send(namespace, wanted)


def _index(namespace: Namespace, interface: Interface) -> int:
    return LOOPBACK if interface.name == "lo" else Port(namespace, interface.name).index


def _send(namespace: Namespace, batch: Batch) -> None:
    try:
        batch.send(namespace.line)
    except OSError as refusal:
        raise Unsupported(f"{namespace.name} refused the {refusal.strerror}", "check the lab file") from None


def _present(namespace: Namespace, index: int | None = None) -> set[IpAddress]:
    """The addresses of a namespace, or of one of its interfaces."""
    return {
        ip_address(packed)
        for answer in dump(namespace.line, GET_ADDRESS)
        if (index is None or answer.fields[4] == index)
        and (packed := answer.attributes.get(IFA_LOCAL) or answer.attributes.get(IFA_ADDRESS))
    }


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
