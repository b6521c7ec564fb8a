"""What every capture point saw, as plain sightings: which packet, where, when, coming or going.

Pure but for reading captures.  It knows no flow and no journey.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from replay.columns import ICMP, ICMPV6, TCP
from replay.errors import InvalidCapture
from replay.packet_mode.frames import NO_IP, Frames, read_frames
from replay.packet_mode.match import signatures
from testbed.trace.journey import Tuple
from topologies.model import Topology

ERRORS = {ICMP: frozenset({3, 5, 11, 12}), ICMPV6: frozenset({1, 2, 3, 4})}
_QUOTED_AT = 8
_TCP = struct.Struct(">HHIIBB")
_TCP_OCTETS_AT = 12

Place = tuple[str, str]
"""(node, interface), by production's names."""


class Error(NamedTuple):
    """An ICMP error: type, code, its fourth word (an MTU, where it is one), and the packet that it quotes."""

    kind: int
    code: int
    value: int
    quoted: Tuple


class Sighting(NamedTuple):
    """One packet at one interface; `sequence` and `flags` are TCP's, `data` the stream octets it takes (SYN, FIN too).

    `mark` is the same for the same packet wherever it was seen, whatever a translator did.
    """

    node: str
    interface: str
    out: bool
    time_ns: int
    mark: int
    packet: Tuple
    octets: int
    hop_limit: int
    flags: int
    sequence: int
    data: int
    error: Error | None


@dataclass(frozen=True, slots=True)
class Wiring:
    """Which MAC each interface has and what it is cabled to."""

    macs: Mapping[Place, bytes]
    peers: Mapping[Place, Place]
    bridges: frozenset[str]

    @classmethod
    def of(cls, topology: Topology, macs: Mapping[Place, bytes]) -> Wiring:
        """From a topology and the MACs its interfaces really have."""
        peers: dict[Place, Place] = {}
        for link in topology.links:
            a, b = (link.a.node, link.a.interface), (link.b.node, link.b.interface)
            peers[a], peers[b] = b, a
        plain = {n.name for n in topology.nodes if not any(i.addresses for i in n.interfaces)}
        return cls(macs, peers, frozenset(plain))


def read_sightings(captures: Mapping[Place, Path], wiring: Wiring) -> list[Sighting]:
    """Every IP packet of all captures in order of time; frames that a switch flooded to others are left out."""
    found = []
    for place, path in captures.items():
        try:
            table, _ = read_frames([path])
        except InvalidCapture:
            continue  # nothing passed here
        found += _of_place(place, table, wiring)
    found.sort(key=lambda one: one.time_ns)
    return found


def _of_place(place: Place, table: Frames, wiring: Wiring) -> list[Sighting]:
    marks = signatures(table).tolist() if len(table) else []
    found = []
    for row, mark in enumerate(marks):
        if int(table.protocol[row]) == NO_IP or int(table.version[row]) not in (4, 6):
            continue
        link_at = int(table.link_at[row])
        to_mac, from_mac = (table.data[at : at + 6].tobytes() for at in (link_at, link_at + 6))
        out = _goes_out(place, from_mac, to_mac, wiring)
        if out is None:
            continue
        found.append(_sighting(place, table, row, mark, out))
    return found


def _goes_out(place: Place, from_mac: bytes, to_mac: bytes, wiring: Wiring) -> bool | None:
    """Whether a frame leaves at a place; None for one that is meant for somebody else."""
    peer = wiring.peers.get(place, ("", ""))
    to_everybody = bool(to_mac[0] & 1)
    if place[0] not in wiring.bridges:
        if from_mac == wiring.macs.get(place):
            return True
        return False if to_everybody or to_mac == wiring.macs.get(place) else None
    if peer[0] in wiring.bridges:
        # between two switches only the order of time tells, which the hops are in anyway
        return from_mac != wiring.macs.get(peer)
    if from_mac == wiring.macs.get(peer):
        return False
    return True if to_everybody or to_mac == wiring.macs.get(peer) else None


def _sighting(place: Place, table: Frames, row: int, mark: int, out: bool) -> Sighting:
    protocol, version = int(table.protocol[row]), int(table.version[row])
    packet = Tuple(
        protocol,
        _text(table.source[row].tobytes(), version),
        int(table.source_port[row]),
        _text(table.destination[row].tobytes(), version),
        int(table.destination_port[row]),
    )
    at, end, length = int(table.transport_at[row]), int(table.end[row]), int(table.transport_octets[row])
    flags = sequence = data = 0
    first = int(table.fragment_octets[row]) == 0
    if protocol == TCP and first and end - at >= _TCP_OCTETS_AT + 2:
        _, _, sequence, _, offset, flags = _TCP.unpack(table.data[at : at + _TCP.size].tobytes())
        data = max(length - (offset >> 4) * 4, 0) + (flags >> 1 & 1) + (flags & 1)
    error = _error(protocol, table.data[at:end].tobytes()) if protocol in ERRORS and first else None
    return Sighting(
        *place,
        out,
        int(table.time_ns[row]),
        mark,
        packet,
        int(table.octets[row]),
        int(table.hop_limit[row]),
        flags,
        sequence,
        data,
        error,
    )


def _error(protocol: int, message: bytes) -> Error | None:
    """An ICMP error and what it quotes; None for any other message, and for one cut too short to tell."""
    if len(message) < _QUOTED_AT or message[0] not in ERRORS[protocol]:
        return None
    quoted = quoted_packet(message[_QUOTED_AT:])
    if quoted is None:
        return None
    value = int.from_bytes(message[4:8], "big") if protocol == ICMPV6 else int.from_bytes(message[6:8], "big")
    return Error(message[0], message[1], value, quoted)


def quoted_packet(octets: bytes) -> Tuple | None:
    """The packet whose head an ICMP error quotes; None where too little of it is there."""
    version = octets[0] >> 4 if octets else 0
    if version == 4 and len(octets) >= 20:
        protocol, at = octets[9], (octets[0] & 15) * 4
        ends = socket.inet_ntop(socket.AF_INET, octets[12:16]), socket.inet_ntop(socket.AF_INET, octets[16:20])
    elif version == 6 and len(octets) >= 40:
        protocol, at = octets[6], 40
        ends = socket.inet_ntop(socket.AF_INET6, octets[8:24]), socket.inet_ntop(socket.AF_INET6, octets[24:40])
    else:
        return None
    ports = struct.unpack_from(">HH", octets, at) if at >= 20 and len(octets) >= at + 4 else (0, 0)
    return Tuple(protocol, ends[0], ports[0], ends[1], ports[1])


def _text(address: bytes, version: int) -> str:
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)
