"""Small captures for packet mode, built header by header, so that what is sent is known to the octet."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

EPOCH_NS = 1_700_000_000_000_000_000
GRE, ESP, AH, SCTP, OSPF = 47, 50, 51, 132, 89
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


def ip4(
    source: str, target: str, protocol: int, payload: bytes, *, hops: int = 61, ident: int = 0, flags: int = 0
) -> bytes:
    """An IPv4 packet whose header checksum was left to the card."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, 0, hops, protocol, 0) + ends + payload


def ip6(source: str, target: str, protocol: int, payload: bytes, *, hops: int = 61) -> bytes:
    """An IPv6 packet."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    return struct.pack("!IHBB", 0x6000_0000, len(payload), protocol, hops) + ends + payload


def tcp(ports: tuple[int, int], sequence: int, acknowledgement: int, flags: int, payload: bytes = b"") -> bytes:
    """A TCP segment without a right checksum."""
    return struct.pack("!HHIIBBHHH", *ports, sequence, acknowledgement, 0x50, flags, 65_000, 0xBAD, 0) + payload


def udp(ports: tuple[int, int], payload: bytes) -> bytes:
    """A UDP datagram without a right checksum."""
    return struct.pack("!HHHH", *ports, 8 + len(payload), 0xBAD) + payload


def echo(kind: int, number: int) -> bytes:
    """An echo request or answer without a right checksum."""
    return struct.pack("!BBHHH", kind, 0, 0xBAD, 77, number) + b"ping"


def gre(number: int, octets: int = 40) -> bytes:
    """A GRE packet with a sequence number (RFC 2890)."""
    return struct.pack("!HHI", 0x1000, 0x0800, number) + bytes(octets)


def esp(number: int, octets: int = 40) -> bytes:
    """An ESP packet."""
    return struct.pack("!II", 0xC0FFEE, number) + bytes(octets)


def capture(path: Path, packets: Iterable[tuple[int, bytes]], *, kept: int = 262_144) -> Path:
    """Write (microseconds, IP packet) as an Ethernet capture in nanoseconds, cut at `kept` octets."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, kept, 1))
        for at_us, packet in packets:
            kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
            frame = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + kind + packet
            at_ns = EPOCH_NS + at_us * 1_000
            file.write(struct.pack("<IIII", *divmod(at_ns, 10**9), min(len(frame), kept), len(frame)) + frame[:kept])
    return path


def conversation(client: str, server: str, ports: tuple[int, int], data: Sequence[bytes]) -> list[bytes]:
    """A TCP flow: handshake, each message of the client acknowledged, an orderly close."""
    there, back = ports, (ports[1], ports[0])
    seq, ack = 1_000, 9_000
    packets = [
        ip4(client, server, TCP, tcp(there, seq, 0, 0x02)),
        ip4(server, client, TCP, tcp(back, ack, seq + 1, 0x12)),
        ip4(client, server, TCP, tcp(there, seq + 1, ack + 1, 0x10)),
    ]
    seq, ack = seq + 1, ack + 1
    for message in data:
        packets.append(ip4(client, server, TCP, tcp(there, seq, ack, 0x18, message)))
        seq += len(message)
        packets.append(ip4(server, client, TCP, tcp(back, ack, seq, 0x10)))
    return [
        *packets,
        ip4(client, server, TCP, tcp(there, seq, ack, 0x11)),
        ip4(server, client, TCP, tcp(back, ack, seq + 1, 0x11)),
        ip4(client, server, TCP, tcp(there, seq + 1, ack + 1, 0x10)),
    ]
