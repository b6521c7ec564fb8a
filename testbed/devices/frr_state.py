"""What FRR's daemons say of themselves: which neighbours are not up yet, and the counters of a router.

Asked through vtysh in one go and read from its JSON, tolerant of what a release adds or leaves out.
It starts and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from testbed.devices.base import Box, Reading
from testbed.devices.ospf_origination import ORIGINATED, untold
from testbed.devices.ospf_state import Answers, ospf_interfaces, ospf_lack, passive_interfaces
from testbed.errors import CommandFailed

ISIS_HOLD_SECONDS = 30.0


WAITED_FOR: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ospfd": ("show ip ospf interface json", "show ip ospf json", *ORIGINATED[""]),
        "ospf6d": ("show ipv6 ospf6 interface json", *ORIGINATED["6"]),
        "isisd": ("show isis vrf all interface detail json", "show isis vrf all neighbor detail json"),
        "bfdd": ("show bfd peers json",),
        "bgpd": ("show bgp vrf all summary json", "show bgp vrf all neighbors json"),
    }
)
"""What tells of each daemon whether its neighbours are up."""

TOLD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ospfd": ("show ip ospf interface json",),
        "ospf6d": ("show ipv6 ospf6 interface json", "show ipv6 ospf6 neighbor json"),
        "isisd": ("show isis vrf all neighbor detail json",),
        "bfdd": ("show bfd peers json",),
        "bgpd": ("show bgp vrf all summary json",),
    }
)
TABLES: Mapping[str, str] = MappingProxyType(
    {"ipv4": "show ip route vrf all json", "ipv6": "show ipv6 route vrf all json"}
)


def ask(box: Box, commands: Sequence[str]) -> Answers:
    """The JSON answers of `show` commands, all in one go: vtysh takes longer to start than to answer.

    A command that has nothing to say gives an empty object.  Raises CommandFailed.
    """
    argv = ["vtysh", "-E", *(word for command in commands for word in ("-c", command))]
    said = dict.fromkeys(commands, "")
    current = ""
    # vtysh repeats each command behind its prompt
    for line in box.run(argv).splitlines() if commands else ():
        command = line.partition("# ")[2]
        if command in said:
            current = command
        elif current:
            said[current] += f"{line}\n"
    answers = {}
    for command, text in said.items():
        try:
            answers[command] = json.loads(text) if text.strip() else {}
        except json.JSONDecodeError:
            found = f"found {text.strip()[:80]!r}, expected JSON"
            raise CommandFailed(box.node.name, ("vtysh", "-c", command), 0, found) from None
    return answers


def lack(box: Box, running: Sequence[str], frr_conf: str, configured_seconds: float) -> str:
    """What the router still waits for, or the empty string; `configured_seconds` since it got its configuration."""
    told = ask(box, [command for daemon, own in WAITED_FOR.items() if daemon in running for command in own])
    passive = passive_interfaces(frr_conf)
    for daemon, version in (("ospfd", ""), ("ospf6d", "6")):
        if daemon in running and (why := ospf_lack(told, version, passive, configured_seconds)):
            return why
        if daemon in running and (why := untold(version, *(told[command] for command in ORIGINATED[version]))):
            return f"OSPF{'v3' if version else ''}: {why}"
    if "isisd" in running and (why := _isis_lack(told, configured_seconds)):
        return why
    if "bfdd" in running and (why := bfd_lack(told["show bfd peers json"])):
        return why
    if "bgpd" in running:
        return bgp_lack(*(told[command] for command in WAITED_FOR["bgpd"]))
    return ""


def router_readings(box: Box, running: Sequence[str]) -> list[Reading]:
    """Routes by protocol, a fingerprint of each family's table, and every neighbour's state."""
    commands = [command for daemon, own in TOLD.items() if daemon in running for command in own]
    told = ask(box, [*TABLES.values(), *commands])
    readings = [reading for family, command in TABLES.items() for reading in rib_readings(family, told[command])]
    for version in ("", "6"):
        if f"ospf{version}d" in running:
            for interface, (heard, full, _dead_seconds) in ospf_interfaces(told, version).items():
                state = f"{full} of {heard} neighbours full"
                readings.append(_state("neighbour", f"ospf{version or 'v2'} {interface}", state))
    if "isisd" in running:
        for interface, states in sorted(isis_neighbours(told[TOLD["isisd"][0]]).items()):
            up = sum(state == "Up" for state in states)
            readings.append(_state("neighbour", f"isis {interface}", f"{up} of {len(states)} neighbours up"))
    if "bfdd" in running:
        peers = _bfd_peers(told["show bfd peers json"])
        readings += [_state("neighbour", f"bfd {name}", status) for name, status in peers]
    if "bgpd" in running:
        readings += bgp_readings(told["show bgp vrf all summary json"])
    return readings


def _state(kind: str, name: str, state: str) -> Reading:
    return Reading(kind, name, "state", 1.0, cumulative=False, state=state)


def rib_readings(family: str, table: Any) -> list[Reading]:
    """Routes by protocol, a hash that is equal as long as every route leads the same way, and each route in use.

    A route's state is `ospf [110/20] 10.0.1.2@ens4`: protocol, distance and metric, next hops.
    """
    protocols: Counter[str] = Counter()
    ways = []
    used: dict[str, str] = {}
    for route in _routes(table):
        protocol = str(route.get("protocol", "?"))
        protocols[protocol] += 1
        hops = sorted(
            f"{hop.get('ip', '-')}@{hop.get('interfaceName', '-')}{'' if hop.get('active') else '!'}"
            for hop in _objects(route.get("nexthops"))
        )
        facts = (route.get(name) for name in ("vrfName", "prefix", "selected", "distance", "metric"))
        ways.append(" ".join((protocol, *(str(fact) for fact in facts), *hops)))
        if route.get("selected"):
            vrf = str(route.get("vrfName", "default"))
            name = f"{route['prefix']}" if vrf == "default" else f"{vrf}/{route['prefix']}"
            used[name] = _in_words(protocol, route)
    digest = hashlib.sha256("\n".join(sorted(ways)).encode()).hexdigest()[:16]
    counts = [
        Reading("rib", f"{family} {protocol}", "routes", float(number), cumulative=False)
        for protocol, number in sorted(protocols.items())
    ]
    routes = [Reading("rib", name, "route", 1.0, cumulative=False, state=way) for name, way in sorted(used.items())]
    return [*counts, Reading("rib", family, "hash", 1.0, cumulative=False, state=digest), *routes]


def _in_words(protocol: str, route: Mapping[str, Any]) -> str:
    hops = [hop for hop in _objects(route.get("nexthops")) if hop.get("active")] or _objects(route.get("nexthops"))
    ways = sorted(
        "blackhole" if hop.get("blackhole") else f"{hop.get('ip', 'direct')}@{hop.get('interfaceName', '-')}"
        for hop in hops
    )
    return f"{protocol} [{route.get('distance', 0)}/{route.get('metric', 0)}] {','.join(ways) or 'nowhere'}"


def _routes(table: Any) -> Iterator[Mapping[str, Any]]:
    """Every route below, whether or not the release puts the tables of VRFs apart."""
    for found in table.values() if isinstance(table, dict) else ():
        yield from _routes(found)
        yield from (route for route in _objects(found) if "prefix" in route)


def bgp_readings(summary: Any) -> list[Reading]:
    """A peer's state, and by address family how many prefixes came and went."""
    readings: dict[tuple[str, str], Reading] = {}
    for family, peer, facts in _bgp_peers(summary):
        state = str(facts.get("state", "unknown"))
        readings[peer, "state"] = _state("neighbour", f"bgp {peer}", state)
        for metric, key in (("prefixes_received", "pfxRcd"), ("prefixes_sent", "pfxSnt")):
            name = f"bgp {peer} {family}"
            value = float(facts.get(key) or 0)
            readings[name, metric] = Reading("neighbour", name, metric, value, cumulative=False)
    return list(readings.values())


def _bgp_peers(summary: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(family, peer, facts); a peer of another VRF than the default is named `VRF/PEER`."""
    for vrf, families in _entries(summary):
        for family, facts in _entries(families):
            for peer, told in _entries(facts.get("peers")):
                yield family, peer if vrf == "default" else f"{vrf}/{peer}", told


def _entries(answer: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """The objects inside an object, by name."""
    found = answer.items() if isinstance(answer, dict) else ()
    return sorted((str(name), value) for name, value in found if isinstance(value, dict))


def _objects(answer: Any) -> list[Mapping[str, Any]]:
    """The objects inside an array."""
    return [value for value in answer if isinstance(value, dict)] if isinstance(answer, list) else []


def bgp_lack(summary: Any, neighbours: Any) -> str:
    """The first peer that is not established, or did not yet send or get all of its routes.

    A peer says by End-of-RIB that these were all (RFC 4724, section 2), if both sides can.
    """
    for _family, peer, facts in _bgp_peers(summary):
        state = str(facts.get("state", "unknown"))
        if state != "Established" and "Admin" not in state:
            return f"BGP peer {peer} ({state})"
    for vrf, peers in _entries(neighbours):
        for peer, facts in _entries(peers):
            if facts.get("bgpState") == "Established" and (why := _first_routes(facts)):
                return f"BGP peer {peer if vrf == 'default' else f'{vrf}/{peer}'} {why}"
    return ""


def _first_routes(peer: Mapping[str, Any]) -> str:
    told = dict(_entries(peer))
    can, ends = told.get("neighborCapabilities", {}), dict(_entries(told.get("gracefulRestartInfo")))
    if can.get("gracefulRestart") != "advertisedAndReceived":
        return ""
    families = [f for f, how in _entries(can.get("multiprotocolExtensions")) if "advertisedAndReceived" in how]
    for side, words in (("endOfRibRecv", "to send its first routes"), ("endOfRibSend", "to get our first routes")):
        missing = [f for f in families if not ends.get(side, {}).get(f)]
        if missing:
            return f"{words} ({missing[0]})"
    return ""


def _bfd_peers(answer: Any) -> list[tuple[str, str]]:
    found = []
    for peer in _objects(answer):
        parts = [str(peer.get("peer", "?")), *(str(peer[key]) for key in ("local", "interface") if peer.get(key))]
        found.append((" ".join(parts), str(peer.get("status", "unknown"))))
    return sorted(found)


def bfd_lack(answer: Any) -> str:
    """The first BFD session that is neither up nor shut down."""
    waiting = [(name, status) for name, status in _bfd_peers(answer) if status not in ("up", "shutdown")]
    return f"BFD session with {waiting[0][0]} ({waiting[0][1]})" if waiting else ""


def _circuits(answer: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(answer, dict):
        yield from _objects(answer.get("circuits"))
        for value in answer.values():
            yield from _circuits(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from _circuits(value)


def isis_neighbours(answer: Any) -> dict[str, list[str]]:
    """States of the adjacencies heard, by interface."""
    found: dict[str, list[str]] = {}
    for circuit in _circuits(answer):
        facts = circuit.get("interface")
        if "adj" in circuit and isinstance(facts, dict):
            found.setdefault(str(facts.get("name")), []).append(str(facts.get("state")))
    return found


def isis_active(answer: Any) -> dict[str, float]:
    """Interfaces that look for neighbours, and for how many seconds of silence there may still be one."""
    found = {}
    for circuit in _circuits(answer):
        facts = circuit.get("interface")
        if not isinstance(facts, dict) or facts.get("is-passive") == "passive" or facts.get("state") != "Up":
            continue
        holds = [
            float(level.get("hello-interval") or 0) * float(dict(_entries(level)).get("holddown", {}).get("count") or 0)
            for level in _objects(facts.get("levels"))
        ]
        if facts.get("name") != "lo":
            found[str(facts.get("name"))] = max(holds, default=0.0) or ISIS_HOLD_SECONDS
    return found


def _isis_lack(told: Answers, configured_seconds: float) -> str:
    interfaces, neighbours = (told[command] for command in WAITED_FOR["isisd"])
    heard = isis_neighbours(neighbours)
    for name, hold_seconds in sorted(isis_active(interfaces).items()):
        states = heard.get(name, [])
        if not states and configured_seconds < hold_seconds:
            return f"IS-IS neighbour on {name} (none heard yet, of one there may be)"
        waiting = [state for state in states if state != "Up"]
        if waiting:
            return f"IS-IS neighbour on {name} ({waiting[0]})"
    return ""
