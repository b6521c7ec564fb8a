"""OSPF's interfaces and neighbours as FRR tells them, of both versions, and what they still wait for.

Pure: FRR's answers by command in, a reason out.  It asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Answers = Mapping[str, Any]
"""What FRR said, by the command."""

DESIGNATED = 2
EXTERNAL_MSECS = 1200
"""FRR turns external OSPF routes into its own a second after it computed the tree, and tells nobody that it will."""

SHOWN: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "": ("show ip ospf interface json", "show ip ospf json"),
        "6": ("show ipv6 ospf6 interface json", "show ipv6 ospf6 neighbor json"),
    }
)
"""What is asked of OSPFv2 ("") and OSPFv3 ("6")."""


class Adjacency(NamedTuple):
    """Neighbours that an OSPF interface hears, those it is full with, and after what silence there are none."""

    heard: int
    full: int
    dead_seconds: float


def passive_interfaces(text: str) -> frozenset[str]:
    """Interfaces that frr.conf makes passive for OSPFv3, which FRR's JSON does not tell."""
    found, interface = set(), ""
    for line in text.splitlines():
        if line.startswith("interface ") and len(line.split()) > 1:
            interface = line.split()[1]
        elif re.fullmatch(r"ipv6 ospf6 passive", line.strip()):
            found.add(interface)
    return frozenset(found)


def ospf_interfaces(told: Answers, version: str) -> dict[str, Adjacency]:
    """Every active OSPF interface with its neighbours."""
    found: dict[str, Adjacency] = {}
    if version == "":
        answer = told[SHOWN[""][0]]
        for name, facts in answer.get("interfaces", {}).items():
            if not facts.get("timerPassiveIface") and facts.get("ospfEnabled", True) and name != "lo":
                heard, full = int(facts.get("nbrCount", 0)), int(facts.get("nbrAdjacentCount", 0))
                found[name] = Adjacency(heard, full, float(facts.get("timerDeadSecs", 40)))
        return found
    interfaces, neighbours = (told[command] for command in SHOWN["6"])
    listed = neighbours.get("neighbors", [])
    for name, facts in interfaces.items():
        if isinstance(facts, dict) and facts.get("attachedToArea") and name != "lo":
            own = [n for n in listed if n.get("interfaceName") == name]
            full = sum(n.get("state") == "Full" for n in own)
            found[name] = Adjacency(len(own), full, float(facts.get("timerIntervalsConfigDead", 40)))
    return found


def ospf_lack(told: Answers, version: str, passive: frozenset[str], configured_seconds: float) -> str:
    """The first thing that OSPF still waits for, or the empty string; `passive` are interfaces that look for nobody."""
    interfaces = {n: seen for n, seen in ospf_interfaces(told, version).items() if n not in passive}
    label = f"OSPF{'v3' if version else ''}"
    if not interfaces:
        return f"{label} has no active interface yet"
    for name, (heard, full, dead_seconds) in sorted(interfaces.items()):
        if heard == 0 and configured_seconds < dead_seconds:
            return f"{label} neighbour on {name} (none heard yet, of one there may be)"
        # on a shared network routers are full with the designated two only
        if full < min(heard, DESIGNATED):
            return f"{label} neighbour on {name} ({full} of {heard} full)"
    if version == "":
        answer = told[SHOWN[""][1]]
        if "spfTimerDueInMsecs" in answer or answer.get("spfLastExecutedMsecs", EXTERNAL_MSECS) < EXTERNAL_MSECS:
            return f"{label} to compute its routes"
    return ""
