"""A demand matrix as offered load: a capture with one UDP flow from host to host for every demand.

    request    a datagram from the demand's source; their IP octets over ten seconds are the demand, scaled
    response   a short datagram back, so that the flow has a round trip

The capture looks as if taken at the targets. This file may not know which format the demands were read from.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from topologies.imported import Imported, Note
from topologies.routed import Routed

TOTAL_BPS = 4_000_000
SECONDS = 10
NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
RESPONSE_NS = 1_000_000
TARGET_PORT = 5001
FIRST_SOURCE_PORT = 20_000
SOURCE_PORTS = 40_000
GOLDEN = 2_654_435_769
"""2**32 over the golden ratio: its multiples lie evenly on a circle, so that flows never send in step (Knuth 6.4)."""

HEADER_OCTETS = 28
"""IPv4 without options, and UDP."""

LARGEST_DATAGRAM = 1_228
SMALLEST_DATAGRAM = 60
FEWEST_DATAGRAMS = 2
RESPONSE_PAYLOAD = b"\x06" * 32
CAPTURE = "demands.pcap"
LINKTYPE_RAW = 101
NANOSECOND_MAGIC = 0xA1B23C4D

Datagram = tuple[int, bytes]
"""Time in ns and the IP packet."""


def with_offered_load(routed: Routed, path: Path, total_bps: int = TOTAL_BPS) -> Imported:
    """The lab with its demands as traffic/demands.pcap, and a note of the scale; without demands, a note of that."""
    demands = {pair: d for pair, d in routed.demands.items() if pair[0] in routed.hosts and pair[1] in routed.hosts}
    if not demands:
        note = Note(path, 1, "no demands", "no traffic is written; give captures of your own")
        return replace(routed.lab, notes=(*routed.lab.notes, note))
    octets = scaled_octets(demands, total_bps)
    factor = total_bps / sum(demands.values())
    what = f"{len(demands)} demands of {sum(demands.values()):g} in all"
    offered_bps = sum(octets.values()) * 8 / SECONDS
    why = f"scaled by {factor:g} bit/s each unit to {total_bps / 1e6:g} Mbit/s for {SECONDS} s; "
    why += f"with whole datagrams, {offered_bps / 1e6:.3f} Mbit/s of requests"
    packets = sorted(
        packet
        for k, (a, b) in enumerate(octets)
        for packet in _flow(k, routed.hosts[a][1], routed.hosts[b][1], octets[a, b])
    )
    return replace(
        routed.lab,
        notes=(*routed.lab.notes, Note(path, 1, what, why)),
        captures={**routed.lab.captures, CAPTURE: pcap(packets)},
    )


def scaled_octets(demands: Mapping[tuple[int, int], float], total_bps: int) -> dict[tuple[int, int], int]:
    """IP octets of requests for each demand, in proportion; no flow has less than two of the smallest datagrams."""
    total = sum(demands.values())
    least = FEWEST_DATAGRAMS * SMALLEST_DATAGRAM
    return {pair: max(round(total_bps * SECONDS / 8 * (d / total)), least) for pair, d in demands.items()}


def _flow(k: int, source: IPv4Address, target: IPv4Address, octets: int) -> Iterator[Datagram]:
    """Evenly spaced requests of exactly `octets`, and their responses; each flow begins at a time of its own."""
    count = max(FEWEST_DATAGRAMS, -(-octets // LARGEST_DATAGRAM))
    gap_ns = SECONDS * NS // count
    phase_ns = gap_ns * (k * GOLDEN % 2**32) >> 32
    port = FIRST_SOURCE_PORT + k % SOURCE_PORTS
    for n in range(count):
        size = octets * (n + 1) // count - octets * n // count
        at_ns = START_NS + phase_ns + n * gap_ns
        payload = (k * GOLDEN % 2**32).to_bytes(4, "big") + bytes(size - HEADER_OCTETS - 4)
        yield at_ns, udp_packet(source, target, port, TARGET_PORT, payload)
        yield at_ns + RESPONSE_NS, udp_packet(target, source, TARGET_PORT, port, RESPONSE_PAYLOAD)


def udp_packet(source: IPv4Address, target: IPv4Address, source_port: int, target_port: int, payload: bytes) -> bytes:
    """An IPv4 packet with one UDP datagram and both checksums (RFC 791, RFC 768)."""
    length = 8 + len(payload)
    pseudo = source.packed + target.packed + struct.pack("!BBH", 0, 17, length)
    head = struct.pack("!HHHH", source_port, target_port, length, 0)
    udp = struct.pack("!HHHH", source_port, target_port, length, _checksum(pseudo + head + payload) or 0xFFFF)
    fields = (0x45, 0, 20 + length, 0, 0x4000, 64, 17)
    ip = struct.pack("!BBHHHBBH", *fields, 0) + source.packed + target.packed
    return struct.pack("!BBHHHBBH", *fields, _checksum(ip)) + source.packed + target.packed + udp + payload


def pcap(packets: Iterable[Datagram]) -> bytes:
    """A capture file of IP packets with times in nanoseconds, little-endian."""
    parts = [struct.pack("<IHHiIII", NANOSECOND_MAGIC, 2, 4, 0, 0, 65_535, LINKTYPE_RAW)]
    for time_ns, packet in packets:
        parts += [struct.pack("<IIII", time_ns // NS, time_ns % NS, len(packet), len(packet)), packet]
    return b"".join(parts)


def _checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071): a sum of 16-bit words is the number modulo 65535."""
    number = int.from_bytes(octets + b"\0" * (len(octets) % 2), "big")
    folded = number % 0xFFFF
    return 0xFFFF - (folded if folded or not number else 0xFFFF)
