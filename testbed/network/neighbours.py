"""The neighbour table of a namespace: how many neighbours it has learnt, and forgetting them.

May not know why anyone wants it empty.
"""

from __future__ import annotations

from errno import ENOENT
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from testbed.network.namespace import Namespace

_LEARNT = 0x02 | 0x04 | 0x08 | 0x10
"""Reachable, stale, delay, probe (linux/neighbour.h): what was learnt and is not written down by somebody."""


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


def _learnt(namespace: Namespace) -> list[Any]:
    return [
        entry
        for entry in namespace.netlink.get_neighbours()
        if entry["state"] & _LEARNT and entry.get("NDA_DST") and entry.get("NDA_LLADDR")
    ]
