"""Whether an OSPF router has told the network of its neighbours: full adjacency alone leads no packet anywhere.

A router originates its own router-LSA at most every five seconds (RFC 2328, MinLSInterval), so the second neighbour to
become full may stay untold for that long, while all routes hold still.  Pure: FRR's answers in, a reason out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

TOLD_SECONDS = 12.0
"""Twice the interval and some more: a neighbour that is full for longer is told of, or will never be."""

ORIGINATED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "": ("show ip ospf neighbor json", "show ip ospf database router self-originate json"),
        "6": ("show ipv6 ospf6 neighbor json", "show ipv6 ospf6 database router self-originated detail json"),
    }
)
"""What tells whether an OSPF router has announced its neighbours."""

_DURATION = re.compile(r"(?:(\d+)d)?(\d+):(\d+):(\d+)")


class Neighbour(NamedTuple):
    """A full neighbour: who, where, alone there or on a shared network, for how long, and how many LSAs are unsent."""

    router_id: str
    interface: str
    alone: bool
    full_seconds: float
    unacknowledged: int


def untold(version: str, neighbours: Any, own_lsa: Any) -> str:
    """What this router has not announced yet, or the empty string; `version` is "" (OSPFv2) or "6" (OSPFv3)."""
    full = list(_full_v2(neighbours) if version == "" else _full_v3(neighbours))
    links = [(str(x.get("linkType") or x.get("type")), str(x.get("neighborRouterId", ""))) for x in _links(own_lsa)]
    routers = {router_id for kind, router_id in links if not kind.startswith(("a Transit", "Transit", "Stub"))}
    networks = sum(kind.startswith(("a Transit", "Transit")) for kind, _router_id in links)
    young = [n for n in full if n.full_seconds < TOLD_SECONDS]
    for neighbour in young:
        if neighbour.alone and neighbour.router_id not in routers:
            return f"the network to be told of {neighbour.router_id} on {neighbour.interface}"
        if neighbour.unacknowledged:
            return f"{neighbour.router_id} to take {neighbour.unacknowledged} LSAs"
    shared = {n.interface for n in full if not n.alone}
    if networks < len(shared) and any(not n.alone for n in young):
        return f"the network to be told of {len(shared) - networks} of its shared links"
    return ""


def _full_v2(answer: Any) -> Iterator[Neighbour]:
    listed = answer.get("neighbors", answer) if isinstance(answer, dict) else {}
    for router_id, entries in listed.items() if isinstance(listed, dict) else ():
        for entry in _objects(entries):
            state = str(entry.get("nbrState") or entry.get("state", ""))
            if state.startswith("Full"):
                yield Neighbour(
                    str(router_id),
                    str(entry.get("ifaceName", "")).partition(":")[0],
                    state.endswith("/-"),
                    _number(entry.get("upTimeInMsec"), TOLD_SECONDS * 1_000) / 1_000,
                    int(_number(entry.get("linkStateRetransmissionListCounter"), 0)),
                )


def _full_v3(answer: Any) -> Iterator[Neighbour]:
    for entry in _objects(answer.get("neighbors") if isinstance(answer, dict) else None):
        if entry.get("state") == "Full":
            alone = str(entry.get("interfaceState", "")).startswith("PointTo")
            since = _seconds(str(entry.get("duration", "")))
            yield Neighbour(str(entry.get("neighborId")), str(entry.get("interfaceName", "")), alone, since, 0)


def _objects(answer: Any) -> list[dict[str, Any]]:
    return [each for each in answer if isinstance(each, dict)] if isinstance(answer, list) else []


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) else otherwise


def _seconds(text: str) -> float:
    found = _DURATION.search(text)
    if found is None:
        return TOLD_SECONDS
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def _links(answer: Any) -> Iterator[dict[str, Any]]:
    """Every link that a router-LSA describes, however deep this release of FRR puts it."""
    if isinstance(answer, dict):
        if "linkType" in answer or ("neighborRouterId" in answer and "type" in answer):
            yield answer
        for value in answer.values():
            yield from _links(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from _links(value)
