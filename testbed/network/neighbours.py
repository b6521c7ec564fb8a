"""The neighbour table of a namespace: how many neighbours it has learnt, forgetting them, and whether it can ask.

May not know why anyone wants it empty.
"""

from __future__ import annotations

from errno import ENOENT
from socket import AF_INET6
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from testbed.network.namespace import Namespace

_LEARNT = 0x02 | 0x04 | 0x08 | 0x10
"""Reachable, stale, delay, probe (linux/neighbour.h): what was learnt and is not written down by somebody."""

_RUNNING, _LOOPBACK = 0x40, 0x08
_LINK_SCOPE = 253


def learnt_neighbours(namespace: Namespace) -> int:
    """How many neighbours' MACs the kernel has learnt, of both families."""
    return len(_learnt(namespace))


def forget_neighbours(namespace: Namespace) -> int:
    """Forget every learnt neighbour; returns how many are known all the same, because they were learnt again at once.

    Raises OSError when the kernel refuses.
    """
    for entry in _learnt(namespace):
        try:
            namespace.netlink.neigh("del", dst=entry.get("NDA_DST"), ifindex=entry["ifindex"], family=entry["family"])
        except NetlinkError as refusal:
            if refusal.code != ENOENT:
                raise OSError(refusal.code, f"{namespace.name}: neighbour {entry.get('NDA_DST')}: {refusal}") from None
    return learnt_neighbours(namespace)


def cannot_solicit(namespace: Namespace) -> str | None:
    """The first interface that has an IPv6 address and no link-local one yet, None when there is none.

    Linux gives link-local addresses out some time after the carrier came, and sends no neighbour solicitation without
    one: what is forwarded before that waits for the next try, a second later (ndisc_send_ns).
    """
    running = {
        link["index"]: link.get("ifname")
        for link in namespace.netlink.get_links()
        if link["flags"] & _RUNNING and not link["flags"] & _LOOPBACK
    }
    addresses = [(held["index"], held["scope"]) for held in namespace.netlink.get_addr(family=AF_INET6)]
    local = {index for index, scope in addresses if scope == _LINK_SCOPE}
    return next((running[index] for index, _ in addresses if index in running and index not in local), None)


def _learnt(namespace: Namespace) -> list[Any]:
    return [
        entry
        for entry in namespace.netlink.get_neighbours()
        if entry["state"] & _LEARNT and entry.get("NDA_DST") and entry.get("NDA_LLADDR")
    ]
