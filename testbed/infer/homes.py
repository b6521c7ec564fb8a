"""Where every address lives: on the wire itself, behind which gateway, how many routers away, and what says so.

Pure: what the link headers told in, homes out. Knows no flow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from replay.stations import ASKS, BROADCAST, Stations, Wire, hops, is_virtual_router

_ODD_SHARE = 0.01
_MOST_DISTANCES = 3


@dataclass(frozen=True, slots=True)
class Home:
    """An address's place: the station it is reached by, and how many routers stand between; None: never heard.

    `mac` is "" where no link layer told anything. `answered` is how the station claimed the address (arp, nd, dhcp), ""
    where it did not. `distances` has every hop count that is more than an oddity, the commonest first.
    """

    address: str
    wire: Wire | None
    mac: str
    distance: int | None
    answered: str = ""
    distances: tuple[int, ...] = ()

    @property
    def beyond(self) -> bool:
        """Whether routers stand, or may stand, between the wire and the address."""
        return self.distance is None or self.distance > 0


@dataclass(frozen=True, slots=True)
class Station:
    """A MAC: the wires it was on, what lives at it and what lives behind it, in order of address.

    `passes` are addresses that it passed on although they live on another wire.
    """

    mac: str
    wires: tuple[Wire, ...]
    own: tuple[str, ...]
    behind: tuple[str, ...]
    passes: tuple[str, ...] = ()

    @property
    def forwards(self) -> bool:
        """Whether it was seen to pass on what is not its own."""
        return bool(self.behind or self.passes) or len(self.wires) > 1 or is_virtual_router(self.mac)


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """All homes by address, and all stations by MAC."""

    homes: Mapping[str, Home]
    stations: Mapping[str, Station]


def neighbourhood(seen: Stations, addresses: Iterable[str]) -> Neighbourhood:
    """Find the home of every address that stations or flows have.

    An address with several stations lives where it is nearest; one that never spoke lives where it was sought.
    """
    distances: dict[tuple[Wire, str, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for (wire, mac, address, hop_limit), count in seen.heard.items():
        crossed = hops(hop_limit)
        if crossed is not None:
            distances[wire, mac, address][crossed] += count
    spoken = _sole_addresses(distances)
    places: dict[str, list[Home]] = defaultdict(list)
    for place in {*distances, *(key for key, how in seen.claimed.items() if how != ASKS or key in distances)}:
        wire, mac, address = place
        told = distances.get(place, {})
        kept = _common(told)
        how = seen.claimed.get(place, "")
        answered = "" if how == ASKS else how
        distance = kept[0] if kept else 0
        if answered and distance and spoken[wire, mac, ip_address(address).version] == {address}:
            distance = 0
        places[address].append(Home(address, wire, mac, distance, answered, kept))
    homes = {address: min(found, key=lambda home: _preference(home, distances)) for address, found in places.items()}
    homes |= _sought(seen, homes, [address for address in addresses if address not in homes])
    return Neighbourhood(homes, _stations(homes, seen))


def _sole_addresses(distances: Mapping[tuple[Wire, str, str], object]) -> dict[tuple[Wire, str, int], set[str]]:
    """The addresses heard from each MAC, by family: one alone with an odd TTL is the station's own."""
    spoken: dict[tuple[Wire, str, int], set[str]] = defaultdict(set)
    for wire, mac, address in distances:
        spoken[wire, mac, ip_address(address).version].add(address)
    return spoken


def _common(told: Mapping[int, int]) -> tuple[int, ...]:
    """Hop counts of more than a stray packet, commonest first; of very many (a probe's random TTLs) the least."""
    total = sum(told.values())
    kept = [crossed for crossed, count in told.items() if count > 1 and count >= _ODD_SHARE * total] or list(told)
    if len(kept) > _MOST_DISTANCES:
        return (min(kept),)
    return tuple(sorted(kept, key=lambda crossed: (-told[crossed], crossed)))


def _preference(home: Home, distances: Mapping[tuple[Wire, str, str], Mapping[int, int]]) -> tuple[object, ...]:
    assert home.wire is not None
    packets = sum(distances.get((home.wire, home.mac, home.address), {}).values())
    return home.distance, not home.answered, -packets, home.wire, home.mac


def _sought(seen: Stations, homes: Mapping[str, Home], silent: Iterable[str]) -> dict[str, Home]:
    """Addresses that never spoke: behind the station that packets for them were sent to, or that station's only one."""
    to: dict[str, list[tuple[int, Wire, str]]] = defaultdict(list)
    for_mac: dict[str, set[str]] = defaultdict(set)
    for (wire, mac, address), count in seen.sent_to.items():
        if mac != BROADCAST and not int(mac[:2], 16) & 1:
            to[address].append((-count, wire, mac))
            for_mac[mac].add(address)
    speaking = {home.mac for home in homes.values()}
    found = {}
    for address in silent:
        if address not in to:
            found[address] = Home(address, None, "", None)
            continue
        _, wire, mac = min(to[address])
        alone = mac not in speaking and for_mac[mac] == {address}
        found[address] = Home(address, wire, mac, 0 if alone else None, "sought" if alone else "")
    return found


def _stations(homes: Mapping[str, Home], seen: Stations) -> dict[str, Station]:
    wires: dict[str, set[Wire]] = defaultdict(set)
    passes: dict[str, set[str]] = defaultdict(set)
    for heard in seen.heard:
        wires[heard[1]].add(heard[0])
    for claim in seen.claimed:
        wires[claim[1]].add(claim[0])
    for _, mac, address, hop_limit in seen.heard:
        if hops(hop_limit) and address in homes and homes[address].mac != mac:
            passes[mac].add(address)
    own: dict[str, list[str]] = defaultdict(list)
    behind: dict[str, list[str]] = defaultdict(list)
    for address, home in homes.items():
        if home.wire is not None:
            wires[home.mac].add(home.wire)
            (behind if home.beyond else own)[home.mac].append(address)
    return {
        mac: Station(mac, tuple(sorted(on)), ordered(own[mac]), ordered(behind[mac]), ordered(passes[mac]))
        for mac, on in sorted(wires.items())
    }


def ordered(addresses: Iterable[str]) -> tuple[str, ...]:
    """Addresses in their own order, IPv4 first."""
    return tuple(sorted(addresses, key=lambda text: (ip_address(text).version, ip_address(text))))
