"""Who stands on the wire: which link-layer address sent, answered and was sent what, out of captures.

Knows link headers, ARP, neighbour discovery, router advertisements and DHCP; no flow and no topology. Every read is
held to the captured octets; what is cut short tells nothing. References: RFC 826, 4861, 2131, 5798; LINKTYPE registry.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from pathlib import Path

import numpy as np

from replay.capture.reader import opened
from replay.capture.records import Records
from replay.columns import Int64, UInt8

ASKS = "asks"
BROADCAST = "ff:ff:ff:ff:ff:ff"
_ETHERNET, _COOKED, _COOKED_2 = 1, 113, 276
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_VLAN_TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
_MOST_VLAN_TAGS = 2
_STEP_OCTETS = 16 << 20
_MOST_ANNOUNCEMENTS = 20_000
_NO_MAC = b"\0" * 6
_VIRTUAL_ROUTERS = ("00:00:5e:00:01:", "00:00:5e:00:02:", "00:00:0c:07:ac:", "00:00:0c:9f:f")
_INITIAL_HOP_LIMITS = (64, 128, 255)
MOST_HOPS = 32


@dataclass(frozen=True, slots=True, order=True)
class Wire:
    """A broadcast domain as a capture tells it: a number, and the VLAN of its frames (0: untagged)."""

    number: int
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class Network:
    """A network that DHCP or a router announced, with the router's address where it was told."""

    wire: Wire
    network: str
    router: str
    how: str


@dataclass(slots=True)
class Stations:
    """What was seen, counted in packets; MAC addresses are text, addresses as RFC 5952 has them.

    `heard`: (wire, MAC, address, hop limit) of unicast packets by their source. `sent_to`: (wire, MAC, address) by
    their destination. `claimed`: (wire, MAC, address) → how, where a MAC said itself that it has an address: dhcp, arp
    and nd are answers and so mean this wire's networks, `asks` is a mere sender's address in a question.
    """

    heard: Counter[tuple[Wire, str, str, int]] = field(default_factory=Counter)
    sent_to: Counter[tuple[Wire, str, str]] = field(default_factory=Counter)
    claimed: dict[tuple[Wire, str, str], str] = field(default_factory=dict)
    networks: set[Network] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.heard or self.sent_to or self.claimed)


def hops(hop_limit: int) -> int | None:
    """How many routers a packet has crossed, by the nearest usual initial value above; None where that is no answer."""
    crossed = min((initial - hop_limit for initial in _INITIAL_HOP_LIMITS if initial >= hop_limit), default=0)
    return crossed if hop_limit and crossed <= MOST_HOPS else None


def is_virtual_router(mac: str) -> bool:
    """Whether a MAC is one that VRRP or HSRP gives to whoever is the router now."""
    return mac.startswith(_VIRTUAL_ROUTERS)


def read_stations(paths: Sequence[Path]) -> Stations:
    """Everything that the captures' link headers tell; files that share a station of a VLAN share the wire.

    A capture without link-layer addresses (raw IP, loopback) adds nothing. Raises InvalidCapture for what is none.
    """
    seen = [_read(path, number) for number, path in enumerate(paths)]
    return _joined(seen)


def _read(path: Path, number: int) -> Stations:
    found = Stations()
    announced: set[bytes] = set()
    with opened(path, Counter()) as reader:
        while not reader.ended:
            frames = _Frames(reader.read(_STEP_OCTETS))
            for wire, mac, address, hop_limit, count in frames.sources(number):
                found.heard[wire, mac, address, hop_limit] += count
            for wire, mac, address, count in frames.destinations(number):
                found.sent_to[wire, mac, address] += count
            for kind, wire, mac, body in frames.announcements(number):
                key = repr((kind, wire.vlan, mac)).encode() + body
                if key not in announced and len(announced) < _MOST_ANNOUNCEMENTS:
                    announced.add(key)
                    _learn(found, kind, wire, mac, body)
    return found


class _Frames:
    """Frames as columns: MACs, VLAN, ethertype and where the network header lies."""

    def __init__(self, records: Records) -> None:
        self.data: UInt8 = records.data if len(records.data) else np.zeros(1, np.uint8)
        self.end = records.offset + records.captured
        self.at = records.offset.copy()
        self.vlan = np.zeros(len(records), np.int64)
        self.kind = np.zeros(len(records), np.int64)
        self.source = np.zeros((len(records), 6), np.uint8)
        self.target = np.zeros((len(records), 6), np.uint8)
        self._ethernet(np.flatnonzero((records.link_type == _ETHERNET) & (records.captured >= 14)))
        self._cooked(np.flatnonzero((records.link_type == _COOKED) & (records.captured >= 16)), 5, 6, 14, 16)
        self._cooked(np.flatnonzero((records.link_type == _COOKED_2) & (records.captured >= 20)), 11, 12, 0, 20)
        self._tags()
        self.unicast = (self.source[:, 0] & 1 == 0) & self.source.any(axis=1)

    def sources(self, number: int) -> Iterator[tuple[Wire, str, str, int, int]]:
        """Who sent unicast packets, with their hop limit."""
        to_one = self.target[:, 0] & 1 == 0
        for version, ethertype, octets, hop_at, at in ((4, _IPV4, 20, 8, 12), (6, _IPV6, 40, 7, 8)):
            rows = np.flatnonzero((self.kind == ethertype) & (self.at + octets <= self.end) & self.unicast & to_one)
            key = np.concatenate(
                [
                    self.source[rows],
                    self._vlans(rows),
                    self._octets(rows, hop_at, 1),
                    self._octets(rows, at, _SIZE[version]),
                ],
                axis=1,
            )
            for one, count in _counted(key):
                address = _text(one[11:], version)
                if address:
                    yield Wire(number, _number(one[6:10])), _mac(one[:6]), address, one[10], count

    def destinations(self, number: int) -> Iterator[tuple[Wire, str, str, int]]:
        """Which MAC packets for an address were sent to, broadcasts included."""
        for version, ethertype, octets, at in ((4, _IPV4, 20, 16), (6, _IPV6, 40, 24)):
            rows = np.flatnonzero((self.kind == ethertype) & (self.at + octets <= self.end) & self.target.any(axis=1))
            key = np.concatenate([self.target[rows], self._vlans(rows), self._octets(rows, at, _SIZE[version])], axis=1)
            for one, count in _counted(key):
                address = _text(one[10:], version)
                if address:
                    yield Wire(number, _number(one[6:10])), _mac(one[:6]), address, count

    def announcements(self, number: int) -> Iterator[tuple[str, Wire, str, bytes]]:
        """ARP, neighbour discovery and DHCP answers, as (kind, wire, MAC, octets)."""
        at, end = self.at, self.end
        ip4 = (self.kind == _IPV4) & (at + 28 <= end)
        ip6 = (self.kind == _IPV6) & (at + 64 <= end)
        protocol4, protocol6 = self._byte(at + 9), self._byte(at + 6)
        ports = (self._byte(at + 20) << 8) | self._byte(at + 21)
        icmp = self._byte(at + 40)
        chosen = {
            "arp": (self.kind == _ARP) & (at + 28 <= end),
            "nd": ip6 & (protocol6 == 58) & (icmp >= 133) & (icmp <= 136) & (self._byte(at + 7) == 255),
            "dhcp": ip4 & (protocol4 == 17) & (ports == 67) & (self._byte(at) == 0x45) & (at + 268 <= end),
        }
        for kind, where in chosen.items():
            longest = {"arp": 28, "nd": 256, "dhcp": 1500}[kind]
            for row in np.flatnonzero(where & self.unicast).tolist():
                begin = int(at[row])
                body = self.data[begin : min(begin + longest, int(end[row]))].tobytes()
                yield kind, Wire(number, int(self.vlan[row])), _mac(self.source[row].tobytes()), body

    def _ethernet(self, rows: Int64) -> None:
        self.target[rows], self.source[rows] = self._octets(rows, 0, 6), self._octets(rows, 6, 6)
        self.kind[rows] = self._pair(rows, 12)
        self.at[rows] += 14

    def _cooked(self, rows: Int64, length_at: int, address_at: int, kind_at: int, octets: int) -> None:
        """A cooked header has the sender's address alone."""
        known = self._byte(self.at[rows] + length_at) == 6
        self.source[rows] = np.where(known[:, None], self._octets(rows, address_at, 6), 0)
        self.kind[rows] = self._pair(rows, kind_at)
        self.at[rows] += octets

    def _tags(self) -> None:
        for _ in range(_MOST_VLAN_TAGS):
            rows = np.flatnonzero(np.isin(self.kind, _VLAN_TAGS) & (self.at + 4 <= self.end))
            if not len(rows):
                return
            self.vlan[rows] = (self.vlan[rows] << 12) | (self._pair(rows, 0) & 0xFFF)
            self.kind[rows] = self._pair(rows, 2)
            self.at[rows] += 4

    def _byte(self, at: Int64) -> Int64:
        return np.asarray(self.data[np.minimum(at, len(self.data) - 1)], np.int64)

    def _pair(self, rows: Int64, beyond: int) -> Int64:
        at = self.at[rows] + beyond
        return (self._byte(at) << 8) | self._byte(at + 1)

    def _octets(self, rows: Int64, beyond: int, count: int) -> UInt8:
        at = self.at[rows, None] + beyond + np.arange(count)
        octets: UInt8 = self.data[np.minimum(at, len(self.data) - 1)]
        return octets

    def _vlans(self, rows: Int64) -> UInt8:
        return self.vlan[rows].astype(">u4").view(np.uint8).reshape(-1, 4)


_SIZE = {4: 4, 6: 16}


def _counted(key: UInt8) -> Iterator[tuple[bytes, int]]:
    if not len(key):
        return
    rows = np.ascontiguousarray(key).view(np.dtype((np.void, key.shape[1]))).ravel()
    distinct, counts = np.unique(rows, return_counts=True)
    for one, count in zip(distinct, counts.tolist(), strict=True):
        yield one.tobytes(), count


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _mac(octets: bytes) -> str:
    return octets.hex(":")


def _text(octets: bytes, version: int) -> str:
    """An address of one machine as text, or '' for a group, a link's own and none at all; broadcasts stay."""
    if not any(octets):
        return ""
    if version == 4:
        group, own = 224 <= octets[0] < 240, octets[:2] == b"\xa9\xfe"
        return "" if group or own else socket.inet_ntop(socket.AF_INET, octets)
    group, own = octets[0] == 0xFF, octets[0] == 0xFE and octets[1] & 0xC0 == 0x80
    return "" if group or own else socket.inet_ntop(socket.AF_INET6, octets)


def _learn(found: Stations, kind: str, wire: Wire, mac: str, body: bytes) -> None:
    if kind == "arp":
        _learn_arp(found, wire, body)
    elif kind == "nd":
        _learn_neighbour(found, wire, mac, body)
    else:
        _learn_lease(found, wire, body)


def _claim(found: Stations, wire: Wire, mac: str, address: str, how: str) -> None:
    if address and not int(mac[:2], 16) & 1 and mac != _mac(_NO_MAC):
        known = found.claimed.get((wire, mac, address), ASKS)
        found.claimed[wire, mac, address] = how if known == ASKS else known


def _learn_arp(found: Stations, wire: Wire, body: bytes) -> None:
    if body[:6] != b"\0\1\x08\0\6\4":
        return
    answers, sender, address, asked = body[7] == 2, body[8:14], body[14:18], body[24:28]
    # a probe (RFC 5227) names what its sender is about to take, an announcement what it has
    sure = answers or not any(address) or address == asked
    _claim(found, wire, _mac(sender), _text(address if any(address) else asked, 4), "arp" if sure else ASKS)


def _learn_neighbour(found: Stations, wire: Wire, mac: str, body: bytes) -> None:
    sender, kind = body[8:24], body[40]
    _claim(found, wire, mac, _text(sender, 6), ASKS)
    if kind == 136 or (kind == 135 and not any(sender)):
        told = dict(_options(body[64:]))
        _claim(found, wire, _mac(told[2][:6]) if len(told.get(2, b"")) >= 6 else mac, _text(body[48:64], 6), "nd")
    elif kind == 134:
        for option, value in _options(body[56:]):
            if option == 3 and len(value) >= 30 and value[1] & 0x80 and 1 <= value[0] <= 128:
                prefix = ip_interface((value[14:30], value[0])).network
                if not prefix.is_link_local and not prefix.is_multicast:
                    found.networks.add(Network(wire, str(prefix), "", "ra"))


def _options(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 8 <= len(octets) and octets[at + 1]:
        length = octets[at + 1] * 8
        yield octets[at], octets[at + 2 : at + length]
        at += length


def _learn_lease(found: Stations, wire: Wire, body: bytes) -> None:
    message = body[28:]
    if message[0] != 2 or message[2] != 6 or message[236:240] != b"\x63\x82\x53\x63":
        return
    told: dict[int, bytes] = {}
    at = 240
    while at + 2 <= len(message) and message[at] != 255:
        if message[at] == 0:
            at += 1
            continue
        told.setdefault(message[at], message[at + 2 : at + 2 + message[at + 1]])
        at += 2 + message[at + 1]
    address, mask, router = message[16:20], told.get(1, b""), told.get(3, b"")
    if told.get(53) != b"\5" or len(mask) != 4 or not _text(address, 4):
        return
    length = f"{_number(mask):032b}".rstrip("0")
    if "0" in length or not length:
        return
    lease = ip_interface((address, len(length)))
    _claim(found, wire, _mac(message[28:34]), str(lease.ip), "dhcp")
    gateway = _text(router[:4], 4) if len(router) >= 4 else ""
    found.networks.add(
        Network(wire, str(lease.network), gateway if gateway and ip_address(gateway) in lease.network else "", "dhcp")
    )


def _joined(seen: Sequence[Stations]) -> Stations:
    """All captures as one: wires of different files are one where a station of the same VLAN was on both."""
    parent: dict[Wire, Wire] = {}

    def root(wire: Wire) -> Wire:
        while parent.setdefault(wire, wire) != wire:
            wire = parent[wire]
        return wire

    owner: dict[tuple[str, int], Wire] = {}
    for one in seen:
        for wire, mac in _present(one):
            root(wire)
            if not is_virtual_router(mac):
                first = owner.setdefault((mac, wire.vlan), wire)
                low, high = sorted((root(first), root(wire)))
                parent[high] = low
    every = Stations()
    for one in seen:
        for (wire, mac, address, hop_limit), count in one.heard.items():
            every.heard[root(wire), mac, address, hop_limit] += count
        for (wire, mac, address), count in one.sent_to.items():
            every.sent_to[root(wire), mac, address] += count
        for (wire, mac, address), how in one.claimed.items():
            _claim(every, root(wire), mac, address, how)
        every.networks |= {Network(root(n.wire), n.network, n.router, n.how) for n in one.networks}
    return every


def _present(one: Stations) -> Iterable[tuple[Wire, str]]:
    yield from ((wire, mac) for wire, mac, _, _ in one.heard)
    yield from ((wire, mac) for wire, mac, _ in one.claimed)
