"""Interfaces that are no end of a cable: VLANs on another interface, VRFs, and ends whose other side is not modelled.

It knows no lab.  Each is read back; a kernel that lacks a kind refuses, and nothing is left out silently.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from testbed.errors import Unsupported
from testbed.network.link import Port, Veth, kernel_name, lay
from testbed.network.namespace import Namespace
from testbed.network.rtnl import GET_LINK, IFLA_MASTER, Batch, dump
from topologies.model import Interface

FIRST_TABLE = 1001
"""Routing tables of VRFs, in the order in which a node's interfaces name them."""

REMEDY = "testbed lab run -- COMMAND   (boots a kernel that has it)"


@dataclass(frozen=True, slots=True)
class Vlan:
    """A tagged interface by production's own form of name, `ens3.100`: what it stands on and its tag."""

    name: str
    parent: str
    tag: int

    @classmethod
    def of(cls, name: str, others: Iterable[str]) -> Vlan | None:
        """The VLAN that a name means, if what stands before its last dot is another interface of the node."""
        parent, dot, tag = name.rpartition(".")
        if dot and parent in set(others) and tag.isdecimal() and 0 < int(tag) < 4095:
            return cls(name, parent, int(tag))
        return None


def tables(interfaces: Sequence[Interface]) -> dict[str, int]:
    """VRF to routing table."""
    names = dict.fromkeys(interface.vrf for interface in interfaces if interface.vrf is not None)
    return dict(zip(names, count(FIRST_TABLE), strict=False))


def add_unlinked(namespace: Namespace, interfaces: Sequence[Interface], dark: Namespace | None) -> None:
    """Make what of a node's interfaces no cable made, and its VRFs; before any address, since a VRF takes them along.

    An end without a link is up, and its other end lies in `dark`, where nobody answers.  Raises Unsupported.
    """
    names = [interface.name for interface in interfaces]
    missing = [i for i in interfaces if i.name != "lo" and kernel_name(i.name) not in namespace.indexes]
    vlans = {i.name: vlan for i in missing if (vlan := Vlan.of(i.name, names))}
    ends = [i for i in missing if i.name not in vlans]
    if ends and dark is not None:
        start = len(dark.indexes)
        lay([Veth(Port(namespace, end.name, end.mac), Port(dark, f"dark{start + n}")) for n, end in enumerate(ends)])
    for vlan in vlans.values():
        _make(namespace, vlan.name, "vlan", struct.pack("=HHH2x", 6, 1, vlan.tag), Port(namespace, vlan.parent).index)
    masters = {}
    for vrf, table in tables(interfaces).items():
        masters[vrf] = _make(namespace, vrf, "vrf", struct.pack("=HHI", 8, 1, table))
        nowhere = Batch()
        nowhere.unreachable(table)
        nowhere.send(namespace.line)
    _enslave(namespace, {Port(namespace, i.name).index: masters[i.vrf] for i in interfaces if i.vrf is not None})


def _make(namespace: Namespace, name: str, kind: str, data: bytes, parent: int | None = None) -> int:
    index = max(link.fields[2] for link in dump(namespace.line, GET_LINK)) + 1
    batch = Batch()
    batch.device(kind, index, kernel_name(name), data, parent)
    batch.up(index)
    if kernel_name(name) != name:
        batch.alias(index, name)
    try:
        batch.send(namespace.line)
    except OSError as refusal:
        raise Unsupported(f"{namespace.name} asks for the {kind} {name}: {refusal.strerror}", REMEDY) from None
    namespace.indexes[kernel_name(name)] = index
    return index


def _enslave(namespace: Namespace, masters: dict[int, int]) -> None:
    if not masters:
        return
    batch = Batch()
    for port, master in masters.items():
        batch.master(port, master)
    batch.send(namespace.line)
    found = {
        link.fields[2]: struct.unpack("=I", link.attributes[IFLA_MASTER])[0]
        for link in dump(namespace.line, GET_LINK)
        if IFLA_MASTER in link.attributes
    }
    if {port: found.get(port) for port in masters} != masters:
        raise Unsupported(f"{namespace.name}: interfaces did not go into their VRFs ({found}, not {masters})", "")
