"""From homes, networks and roles to a topology: what stands on each wire, what behind which gateway, and why.

Pure. An address that begins or ends a flow always belongs to a host or an edge, so that every flow can be replayed;
gateways keep the addresses that only forward. Whatever is behind a gateway is drawn as one step behind it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from replay.stations import Stations, Wire, is_virtual_router
from testbed.infer.homes import Home, Neighbourhood, Station, ordered
from testbed.infer.roles import Roles
from testbed.infer.subnets import Address, Net, Subnet, subnets
from testbed.infer.wiring import Drawn, Segment, Wiring
from topologies.model import Service, Topology

CORE = "core"
MOST_SERVERS_APART = 100
MOST_EDGES = 16
MOST_NODES = 1000
_ZONES = ({4: 24, 6: 64}, {4: 16, 6: 48}, {4: 8, 6: 32})
MOST_ZONES = 64
_SHOWN = 6


class TooLarge(ValueError):
    """More machines than a lab of one machine holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The network, why each node is there, which node each address of the flows has, and what is uncertain."""

    topology: Topology
    remarks: Mapping[str, tuple[str, ...]]
    owner: Mapping[str, str]
    last_forwarder: Mapping[tuple[str, str], str | None]
    networks: tuple[tuple[str, Subnet], ...]
    doubts: tuple[str, ...]


def planned(name: str, seen: Stations, around: Neighbourhood, roles: Roles, pairs: Iterable[tuple[str, str]]) -> Plan:
    """Draw the network in which the flows between `pairs` of addresses passed; TooLarge beyond MOST_NODES machines."""
    talking = {address for pair in pairs for address in pair}
    drawing = _Drawing(seen, around, roles, talking)
    wiring = drawing.drawn()
    if len(wiring.nodes) > MOST_NODES:
        raise TooLarge(f"{len(wiring.nodes)} machines, expected at most {MOST_NODES}")
    wiring.route()
    owner = drawing.owner
    ends = {(owner[a], owner[b], ip_address(a).version) for a, b in pairs if a in owner and b in owner}
    forwarders = {(a, b): wiring.last_forwarder(a, b, version) for a, b, version in sorted(ends)}
    topology = wiring.topology(name)
    remarks = {node.name: tuple(node.remarks) for node in wiring.nodes.values()}
    return Plan(topology, remarks, owner, forwarders, tuple(drawing.networks), tuple(drawing.doubts))


class _Drawing:
    """One drawing in progress: wires first, then what stands on them, then what is behind."""

    def __init__(self, seen: Stations, around: Neighbourhood, roles: Roles, talking: set[str]) -> None:
        self.around, self.roles, self.talking = around, roles, talking
        self.owner: dict[str, str] = {}
        self.networks: list[tuple[str, Subnet]] = []
        self.doubts: list[str] = []
        taken = {ip_address(text) for text in (*around.homes, *talking)}
        self._wiring = Wiring(taken | {ip_address(one.router) for one in seen.networks if one.router})
        self._on_wire: dict[Wire, list[Station]] = {}
        for station in around.stations.values():
            if self._matters(station):
                for wire in station.wires:
                    self._on_wire.setdefault(wire, []).append(station)
        self._segments = {wire: self._segment(wire, seen) for wire in sorted(self._on_wire)}
        self._drawn: dict[str, Drawn] = {}
        self._count = {"gw": 0, "host": 0, "server": 0, "outside": 0, "beyond": 0, "sought": 0}
        self._edges: list[tuple[Drawn, list[str]]] = []

    def drawn(self) -> Wiring:
        """Everything but the routes."""
        for wire, stations in sorted(self._on_wire.items()):
            for station in sorted(stations, key=lambda one: (not one.forwards, one.mac)):
                self._station(wire, station)
        for station in self.around.stations.values():
            if station.mac in self._drawn and station.forwards:
                self._behind(self._drawn[station.mac], self._far_side(station), f"behind {station.mac}")
        lost = ordered(a for a in self.talking if a not in self.owner)
        if lost or not self._joined():
            self._core(lost)
        for wire, segment in self._segments.items():
            for name in list(segment.members):
                node = self._wiring.nodes[name]
                own = {ip_address(address).version for address, owner in self.owner.items() if owner == name}
                for version in self._versions(wire):
                    if node.forwards or version in own:
                        self._wiring.reachable(node, segment, version)
        self._zones()
        return self._wiring

    def _matters(self, station: Station) -> bool:
        return any(a in self.talking for a in (*station.own, *station.behind, *station.passes))

    def _segment(self, wire: Wire, seen: Stations) -> Segment:
        number = 1 + sorted(self._on_wire).index(wire)
        segment = self._wiring.segment(f"vlan{wire.vlan}-{number}" if wire.vlan else f"lan{number}")
        segment.seen = True
        for one in subnets(wire, seen, self.around):
            segment.networks[one.network.version].append(one.network)
            self.networks.append((segment.name, one))
        return segment

    def _versions(self, wire: Wire) -> list[int]:
        """The families of whatever lives at or behind the wire's stations, or is passed on by them."""
        homes, on = self.around.homes, self._on_wire[wire]
        macs, passed = {one.mac for one in on}, {a for one in on for a in one.passes}
        near = [a for a in self.talking if a in passed or (a in homes and homes[a].mac in macs)]
        return sorted({ip_address(a).version for a in near})

    def _named(self, stem: str) -> str:
        self._count[stem] += 1
        return f"{stem}{self._count[stem]}"

    def _station(self, wire: Wire, station: Station) -> None:
        segment = self._segments[wire]
        own = [ip_address(a) for a in station.own]
        held = [a for a in own if any(a in n for n in segment.networks[a.version])]
        if station.mac in self._drawn:
            node = self._drawn[station.mac]
            self._wiring.attach(node, segment, [a for a in held if str(a) not in self.owner] if node.forwards else held)
            return
        if station.forwards:
            node = self._wiring.node(self._named("gw"), "router", forwards=True)
            held = [a for a in held if str(a) not in self.talking]
        else:
            elsewhere = [str(a) for a in own if a not in held and self.around.homes[str(a)].wire == wire]
            kind, stem = ("edge", "outside") if elsewhere else ("host", "host")
            serves = any(str(a) in self.roles.services for a in held) and not elsewhere
            node = self._wiring.node(self._named("server" if serves else stem), kind)
            if elsewhere:
                self._edges.append((node, elsewhere))
        self._drawn[station.mac] = node
        self._wiring.attach(node, segment, held)
        node.remarks.append(self._why(station))
        if not node.forwards:
            for address in station.own:
                self._settled(node, address)

    def _why(self, station: Station) -> str:
        on = ", ".join(self._segments[wire].name for wire in station.wires if wire in self._segments)
        said = f"{station.mac} on {on}"
        if is_virtual_router(station.mac):
            said += ", a virtual router's MAC (VRRP or HSRP)"
        if station.forwards:
            homes = self.around.homes
            far = sorted({homes[a].distance or 0 for a in station.behind if homes[a].distance})
            reach = ", " + " to ".join(map(str, dict.fromkeys([far[0], far[-1]]))) + " away" if far else ""
            count = len(station.behind) + len(station.passes)
            said += f": a gateway, {count} address{'es' * (count != 1)} behind it by TTL and MAC{reach}"
        elif len(station.own) > 1:
            said += f": {len(station.own)} addresses, none behind a router: aliases, or a machine that speaks for them"
        return said

    def _far_side(self, station: Station) -> list[str]:
        """The gateway's end points: what is behind it, and of its own what flows begin or end at."""
        return [a for a in (*station.behind, *station.own) if a in self.talking and a not in self.owner]

    def _behind(self, gateway: Drawn, addresses: Sequence[str], where: str) -> None:
        homes, services = self.around.homes, self.roles.services
        apart = [a for a in addresses if a in services or self._is_gateways_own(a)]
        apart = sorted(apart, key=lambda a: -sum(one.flows for one in services.get(a, ())))[:MOST_SERVERS_APART]
        for address in ordered(apart):
            serves = address in services
            node = self._wiring.node(self._named("server" if serves else "host"), "host")
            self._wiring.wired(gateway, node, [ip_address(address).version])
            self._wiring.owns(node, [ip_address(address)])
            node.remarks.append(_place(homes.get(address), where, gateway.name))
            self._settled(node, address)
        rest = [a for a in addresses if a not in apart]
        # whoever is only sought stands apart from whoever seeks, so that what passes between them passes the gateway
        began = self.roles.began
        for stem, each in (
            ("beyond", [a for a in rest if a in began]),
            ("sought", [a for a in rest if a not in began]),
        ):
            for zone in _by_zone(each) if gateway.name == CORE else [each]:
                if zone:
                    self._far_edge(gateway, stem, zone, where)

    def _far_edge(self, gateway: Drawn, stem: str, addresses: Sequence[str], where: str) -> None:
        homes = self.around.homes
        node = self._wiring.node(self._named(stem), "edge")
        self._wiring.wired(gateway, node, {ip_address(a).version for a in addresses})
        silent = sum(1 for a in addresses if a not in homes or homes[a].distance is None)
        told = f"{len(addresses)} address{'es' * (len(addresses) != 1)} {where}"
        unheard = bool(silent) and any(home.mac for home in homes.values())
        node.remarks.append(f"{told}, {silent} of them never heard" if unheard else told)
        self._edges.append((node, list(addresses)))
        for address in addresses:
            self._settled(node, address)

    def _is_gateways_own(self, address: str) -> bool:
        home = self.around.homes.get(address)
        return home is not None and home.wire is not None and (not home.beyond or bool(home.answered))

    def _settled(self, node: Drawn, address: str) -> None:
        """An address is this node's: say what it serves and asks, and what is odd."""
        self.owner.setdefault(address, node.name)
        for one in self.roles.services.get(address, ()):
            node.remarks.append(f"{address} serves {one}")
            node.listen.append(Service("tcp" if one.protocol == "tcp" else "udp", one.port))
        began = self.roles.began.get(address, 0)
        if began and len(node.remarks) < _SHOWN + 2:
            node.remarks.append(f"{address} began {began} flow{'s' * (began != 1)}")
        for odd in self.roles.oddities.get(address, ()):
            node.remarks.append(f"{address}: {odd}")
            self.doubts.append(f"{node.name}, {address}: {odd}")

    def _joined(self) -> bool:
        """Whether stations join all wires, and somebody all networks of each."""
        for wire, segment in self._segments.items():
            many = any(len(each) > 1 for each in segment.networks.values())
            if many and not any(one.forwards for one in self._on_wire[wire]):
                return False
        groups: list[set[Wire]] = []
        for station in self.around.stations.values():
            together = set(station.wires) & set(self._segments)
            if together and self._matters(station):
                touching = [group for group in groups if group & together]
                groups = [group for group in groups if not group & together] + [together.union(*touching)]
        return len(groups) <= 1

    def _core(self, lost: Sequence[str]) -> None:
        """What joins wires that no station joins, and whatever no link layer tells of."""
        core = self._wiring.node(CORE, "router", forwards=True)
        core.remarks.append("invented: it joins what no station was seen to join")
        versions = {ip_address(a).version for a in self.talking}
        linked: set[str] = set()
        for wire, segment in self._segments.items():
            gateways = [one for one in self._on_wire[wire] if one.forwards]
            if not gateways:
                self._wiring.attach(core, segment)
                continue
            busiest = max(gateways, key=lambda one: (len(one.passes), len(one.behind), one.mac))
            gateway = self._drawn[busiest.mac]
            if gateway.name not in linked:
                linked.add(gateway.name)
                self._wiring.wired(gateway, core, versions)
        self._behind(core, lost, "of which no link layer tells")

    def _zones(self) -> None:
        """Prefixes for the edges: zones of a usual size that claim nothing of others."""
        networks = self._wiring.networks()
        for node, addresses in self._edges:
            mine = set(addresses)
            others = [ip_address(a) for a in (*self.around.homes, *self.talking) if a not in mine]
            numbers = {
                4: sorted(int(a) for a in others if a.version == 4),
                6: sorted(int(a) for a in others if a.version == 6),
            }
            for lengths in _ZONES:
                zones = {_zone(ip_address(a), lengths, numbers, networks) for a in addresses}
                if len(zones) <= MOST_ZONES:
                    break
            node.prefixes = sorted(zones, key=lambda one: (one.version, int(one.network_address), one.prefixlen))
            held = [own.ip for each in node.interfaces.values() for own in each]
            node.prefixes = [
                p for p in node.prefixes if not (p.prefixlen == p.max_prefixlen and p.network_address in held)
            ]


def _by_zone(addresses: Sequence[str]) -> list[list[str]]:
    """Addresses by prefix, in at most MOST_EDGES groups."""
    zones: dict[Net, list[str]] = {}
    for lengths in _ZONES:
        zones = {}
        for address in addresses:
            length = lengths[ip_address(address).version]
            zones.setdefault(ip_network(f"{address}/{length}", strict=False), []).append(address)
        if len(zones) <= MOST_EDGES:
            return list(zones.values())
    return [list(addresses)]


def _zone(
    address: Address, lengths: Mapping[int, int], others: Mapping[int, list[int]], networks: Sequence[Net]
) -> Net:
    """The widest prefix of at most that size around an address that holds nobody else."""
    for length in range(lengths[address.version], address.max_prefixlen):
        zone = ip_network(f"{address}/{length}", strict=False)
        first = bisect_left(others[address.version], int(zone.network_address))
        free = first == len(others[address.version]) or others[address.version][first] > int(zone.broadcast_address)
        if free and not any(zone.overlaps(one) for one in networks):
            return zone
    return ip_network(f"{address}/{address.max_prefixlen}")


def _place(home: Home | None, where: str, gateway: str) -> str:
    if home is None or home.wire is None:
        return f"{where}: placed behind {gateway}"
    if home.distance:
        unseen = home.distance - 1
        return f"{where}, {home.distance} away by TTL" + (f": {unseen} more between, not drawn" if unseen else "")
    if home.distance == 0:
        return f"the gateway's own address: drawn behind {gateway}, so that its flows can be replayed"
    return f"{where}: sent to, never heard"
