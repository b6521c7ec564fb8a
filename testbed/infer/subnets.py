"""Which networks are on a wire: announced ones, else the smallest that hold what answered there.

Pure. A network is never guessed so wide that it would hold an address that lives behind a router.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from replay.stations import ASKS, BROADCAST, Stations, Wire
from testbed.infer.homes import Neighbourhood

Address = IPv4Address | IPv6Address
Net = IPv4Network | IPv6Network

SURE, LIKELY, GUESS = "sure", "likely", "guess"
_USUAL = {4: 24, 6: 64}
_WIDEST_OF_ONE_GUESS = 20
_LIKELY_FROM = 4
_POINT_TO_POINT = 30
_PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
"""Whoever uses these (RFC 1918) has room, and gives a wire the usual size."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """A network of a wire, how sure that is, and what says so."""

    network: Net
    sureness: str
    evidence: str


def subnets(wire: Wire, seen: Stations, around: Neighbourhood) -> list[Subnet]:
    """The wire's networks, those told by DHCP and routers first."""
    told = [
        Subnet(ip_network(one.network), SURE, f"announced by {one.how.upper()}")
        for one in sorted(seen.networks, key=lambda one: (one.how, one.network))
        if one.wire == wire
    ]
    found = list({one.network: one for one in told}.values())
    for version in (4, 6):
        rest = [a for a in _on_link(wire, version, seen, around) if not any(a in one.network for one in found)]
        inside = [one.network for one in found]
        far = [a for a in map(ip_address, around.homes) if a.version == version and _is_far(around, str(a), wire)]
        for group in _groups(rest):
            ended = _by_broadcast(wire, group, seen)
            guessed = ended or _guessed(group, far)
            if not any(guessed.network.overlaps(other) for other in inside):
                found.append(guessed)
                inside.append(guessed.network)
    return found


def _is_far(around: Neighbourhood, address: str, wire: Wire) -> bool:
    """Whether an address lives elsewhere, and nobody on this wire answered for it."""
    home = around.homes[address]
    if home.wire != wire:
        return True
    return home.beyond and not home.answered


def _on_link(wire: Wire, version: int, seen: Stations, around: Neighbourhood) -> list[Address]:
    """Addresses that were answered for on the wire; of a station that never was, the only one it has."""
    answered = [
        (mac, ip_address(address)) for (on, mac, address), how in seen.claimed.items() if on == wire and how != ASKS
    ]
    found = {address for _, address in answered if address.version == version}
    known = {mac for mac, address in answered if address.version == version}
    for mac, station in around.stations.items():
        own = [a for a in map(ip_address, station.own) if a.version == version]
        asked = [a for a in own if seen.claimed.get((wire, mac, str(a))) == ASKS]
        for choice in (own, asked):
            if mac not in known and wire in station.wires and len(choice) == 1:
                found.add(choice[0])
                break
    return sorted(found)


def _groups(addresses: Sequence[Address]) -> list[list[Address]]:
    """All together where one network of a usual size can hold them, else by usual networks."""
    if not addresses:
        return []
    version = addresses[0].version
    if version == 4 and smallest(addresses).prefixlen >= _WIDEST_OF_ONE_GUESS:
        return [list(addresses)]
    groups: dict[Net, list[Address]] = {}
    for address in addresses:
        groups.setdefault(_network(address, _USUAL[version]), []).append(address)
    return list(groups.values())


def _by_broadcast(wire: Wire, group: Sequence[Address], seen: Stations) -> Subnet | None:
    """The network whose last address was sent to as a broadcast."""
    for on, mac, text in sorted(seen.sent_to, key=lambda key: (key[1], key[2])):
        last = ip_address(text)
        if on != wire or mac != BROADCAST or last.version != group[0].version or int(last) == (1 << 32) - 1:
            continue
        network = smallest([*group, last])
        while network.prefixlen > 8 and network.broadcast_address != last:
            network = network.supernet()
        if network.broadcast_address == last and usable(network, group):
            return Subnet(network, SURE, f"{last} was sent to as its broadcast address")
    return None


def _guessed(group: Sequence[Address], far: Iterable[Address]) -> Subnet:
    version = group[0].version
    network = smallest(group)
    if len(group) == 1 or version == 6:
        network = _network(group[0], _USUAL[version])
    while not usable(network, group):
        network = network.supernet()
    beyond = list(far)
    if (
        isinstance(network, IPv4Network)
        and any(network.subnet_of(one) for one in _PRIVATE)
        and network.prefixlen != _POINT_TO_POINT
    ):
        while network.prefixlen > _USUAL[4] and not any(a in network.supernet() for a in beyond):
            network = network.supernet()
    while any(a in network for a in beyond) and network.prefixlen < network.max_prefixlen - 2:
        narrower = _network(group[0], network.prefixlen + 1)
        if not all(a in narrower for a in group) or not usable(narrower, group):
            break
        network = narrower
    count = f"{len(group)} address" + ("es" if len(group) > 1 else "")
    sureness = LIKELY if len(group) >= _LIKELY_FROM or version == 6 else GUESS
    return Subnet(network, sureness, f"a usual size that holds the {count} on the wire")


def usable(network: Net, addresses: Iterable[Address]) -> bool:
    """Whether each is an address that a machine of this network can have."""
    if network.version == 6 or network.prefixlen >= 31:
        return all(address in network for address in addresses)
    ends = (network.network_address, network.broadcast_address)
    return all(address in network and address not in ends for address in addresses)


def smallest(addresses: Sequence[Address]) -> Net:
    """The longest prefix that holds all of one family."""
    low, high = min(int(a) for a in addresses), max(int(a) for a in addresses)
    bits = addresses[0].max_prefixlen
    return _network(addresses[0], bits - (low ^ high).bit_length())


def _network(address: Address, length: int) -> Net:
    return ip_network(f"{address}/{length}", strict=False)
