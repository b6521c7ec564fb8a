"""By which rules cells become classes: zones, limits and the grain. Knows no flow."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import numpy as np

from replay.ofcm.addresses import Addresses, Int64, Network
from replay.ofcm.prefixes import Limits

UNZONED = -1


@dataclass(frozen=True, slots=True)
class Zone:
    """A name for networks; a source in several zones belongs to the one whose network is longest."""

    name: str
    networks: tuple[Network, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.networks:
            raise ValueError("a zone has a name and at least one network")


@dataclass(frozen=True, slots=True)
class Grouping:
    """How much a model tells apart; kept in the model, so that it is brought up to date by the same rules.

    `grain_*` are the bits kept of an address, for good. Per service at most `most_sources` source prefixes a family;
    up to `most_destinations` destination addresses stand alone, more are joined as sources are. Per protocol and
    disposition `most_ports` ports stand alone; the rest, as of a scan, is one pool.
    """

    zones: tuple[Zone, ...] = ()
    most_sources: int = 8
    most_destinations: int = 16
    most_ports: int = 32
    widest_ipv4: int = 16
    widest_ipv6: int = 32
    grain_ipv4: int = 32
    grain_ipv6: int = 128

    def __post_init__(self) -> None:
        for name in ("most_sources", "most_destinations", "most_ports"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, at least 1 is needed")
        if not (0 <= self.widest_ipv4 <= self.grain_ipv4 <= 32 and 0 <= self.widest_ipv6 <= self.grain_ipv6 <= 128):
            raise ValueError("prefix bits are 0 ≤ widest ≤ grain ≤ 32 for IPv4 and ≤ 128 for IPv6")
        names = [zone.name for zone in self.zones]
        if len(set(names)) != len(names):
            raise ValueError("a zone is named twice")
        owner: dict[IPv4Network | IPv6Network, str] = {}
        for zone in self.zones:
            for network in zone.networks:
                if network in owner:
                    raise ValueError(f"{network} is in the zones {owner[network]} and {zone.name}")
                if network.prefixlen > self.grain[network.version == 6]:
                    raise ValueError(f"{network} of the zone {zone.name} is finer than the grain")
                owner[network] = zone.name

    @property
    def grain(self) -> tuple[int, int]:
        """The bits of an IPv4 and an IPv6 address that are kept."""
        return self.grain_ipv4, self.grain_ipv6

    @property
    def sources(self) -> Limits:
        """How sources are joined."""
        return Limits(self.most_sources, 0, self.widest_ipv4, self.widest_ipv6)

    @property
    def destinations(self) -> Limits:
        """How destinations are joined."""
        return Limits(self.most_destinations, self.most_destinations, self.widest_ipv4, self.widest_ipv6)

    def zone_of(self, addresses: Addresses) -> Int64:
        """The place in `zones` of each address, or UNZONED."""
        found = np.full(len(addresses), UNZONED, np.int64)
        listed = [
            (network.prefixlen, place, network) for place, zone in enumerate(self.zones) for network in zone.networks
        ]
        for _, place, network in sorted(listed, key=lambda one: one[0]):
            found[addresses.inside(network)] = place
        return found
