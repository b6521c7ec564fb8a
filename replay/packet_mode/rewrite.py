"""A captured IP packet made fit to leave a sender again: hop limit, length, checksums, segments. Pure, no link layer.

Knows one packet at a time. Captures hold what a tap saw: a hop limit that routers have lowered, checksums that a card
was to fill in, super-frames larger than any wire takes, octets that a snaplen cut off.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from replay.columns import ICMP, ICMPV6, TCP, UDP
from replay.packet_mode.checksums import crc32c, internet_checksum, updated
from replay.packet_mode.frames import DCCP, SCTP

INITIAL_HOP_LIMITS = (64, 128, 255)
_CHECKSUM_AT = {TCP: 16, UDP: 6, DCCP: 6, ICMP: 2, ICMPV6: 2}
_PSEUDO_HEADED = (TCP, UDP, DCCP, ICMPV6)
_DONT_FRAGMENT, _MORE_FRAGMENTS = 0x4000, 0x2000
_FIN_PSH, _CWR = 0x09, 0x80


class Checksums(Enum):
    """What becomes of checksums: made right, or kept exactly as right or wrong as they were captured."""

    RIGHT = "right"
    CAPTURED = "captured"


@dataclass(frozen=True, slots=True)
class Shape:
    """Where the parts of an IP packet lie: its header's and all headers' length, its transport, whether a fragment."""

    version: int
    header_octets: int
    protocol: int
    fragment: bool


class DoesNotFit(Exception):
    """Raised for a packet larger than the MTU that no sender could have divided."""


def initial_hop_limit(hop_limit: int) -> int:
    """The value that a sender's stack most likely began with; 255 stays the proof of a neighbour (RFC 5082)."""
    return next(initial for initial in INITIAL_HOP_LIMITS if hop_limit <= initial)


def whole(packet: bytes, octets: int) -> bytes:
    """The packet in its full length: what a snaplen cut off becomes zeros, a link's padding goes."""
    return packet[:octets] if len(packet) >= octets else packet + bytes(octets - len(packet))


def with_hop_limit(packet: bytes, version: int, hop_limit: int) -> bytes:
    """The packet with this hop limit; a right header checksum stays right, a wrong one stays wrong."""
    if version == 6:
        return packet[:7] + bytes((hop_limit,)) + packet[8:]
    before, checksum = struct.unpack_from("!HH", packet, 8)
    after = (hop_limit << 8) | (before & 0xFF)
    return packet[:8] + struct.pack("!HH", after, updated(checksum, before, after)) + packet[12:]


def with_right_checksums(packet: bytes, shape: Shape) -> bytes:
    """The packet with the header's and the transport's checksum as its sender's card would have filled them in.

    A fragment keeps its transport's, which covers more than is here; UDP over IPv4 without one keeps none.
    """
    if shape.version == 4:
        packet = _with_header_checksum(packet)
    at = shape.header_octets
    if shape.fragment or len(packet) < at + 8:
        return packet
    if shape.protocol == SCTP and len(packet) >= at + 12:
        blank = packet[at : at + 8] + bytes(4) + packet[at + 12 :]
        return packet[: at + 8] + struct.pack("<I", crc32c(blank)) + packet[at + 12 :]
    place = _CHECKSUM_AT.get(shape.protocol)
    if place is None or len(packet) < at + place + 2:
        return packet
    if shape.protocol == UDP and shape.version == 4 and packet[at + 6 : at + 8] == b"\0\0":
        return packet
    blank = packet[at : at + place] + b"\0\0" + packet[at + place + 2 :]
    covered = blank
    if shape.protocol in _PSEUDO_HEADED:
        addresses = packet[12:20] if shape.version == 4 else packet[8:40]
        covered = addresses + struct.pack("!IHBB", len(blank), 0, 0, shape.protocol) + blank
    checksum = internet_checksum(covered)
    if shape.protocol == UDP and not checksum:
        checksum = 0xFFFF
    return packet[:at] + blank[:place] + struct.pack("!H", checksum) + blank[place + 2 :]


def divided(packet: bytes, shape: Shape, mtu_octets: int) -> list[bytes]:
    """The packets that carry this one over a link of that MTU, before checksums are made right.

    TCP is cut as a card with segmentation offload does, IPv4 without "don't fragment" as a sending host does (RFC
    791); raises DoesNotFit for the rest.
    """
    if len(packet) <= mtu_octets:
        return [packet]
    if shape.protocol == TCP and not shape.fragment:
        return _segments(packet, shape, mtu_octets)
    if shape.version == 4 and not struct.unpack_from("!H", packet, 6)[0] & _DONT_FRAGMENT:
        return _fragments(packet, shape, mtu_octets)
    raise DoesNotFit(f"{len(packet)} octets over an MTU of {mtu_octets}")


def _segments(packet: bytes, shape: Shape, mtu_octets: int) -> list[bytes]:
    at = shape.header_octets
    payload_at = at + (packet[at + 12] >> 4) * 4
    room = mtu_octets - payload_at
    if room <= 0 or payload_at < at + 20:
        raise DoesNotFit(f"{payload_at} octets of headers over an MTU of {mtu_octets}")
    headers, payload = bytearray(packet[:payload_at]), packet[payload_at:]
    sequence = struct.unpack_from("!I", headers, at + 4)[0]
    flags, identification = headers[at + 13], struct.unpack_from("!H", headers, 4)[0]
    pieces = []
    for number, begin in enumerate(range(0, len(payload), room)):
        piece = payload[begin : begin + room]
        last = begin + room >= len(payload)
        own = bytearray(headers)
        struct.pack_into("!I", own, at + 4, (sequence + begin) & 0xFFFFFFFF)
        own[at + 13] = (flags if last else flags & ~_FIN_PSH) & (0xFF if not number else ~_CWR)
        _set_length(own, shape.version, payload_at + len(piece))
        if shape.version == 4:
            struct.pack_into("!H", own, 4, (identification + number) & 0xFFFF)
        pieces.append(bytes(own) + piece)
    return pieces


def _fragments(packet: bytes, shape: Shape, mtu_octets: int) -> list[bytes]:
    header_octets = shape.header_octets
    room = (mtu_octets - header_octets) // 8 * 8
    if room <= 0:
        raise DoesNotFit(f"a header of {header_octets} octets over an MTU of {mtu_octets}")
    header, payload = packet[:header_octets], packet[header_octets:]
    field = struct.unpack_from("!H", packet, 6)[0]
    pieces = []
    for begin in range(0, len(payload), room):
        piece = payload[begin : begin + room]
        own = bytearray(header)
        more = _MORE_FRAGMENTS if begin + room < len(payload) else field & _MORE_FRAGMENTS
        struct.pack_into("!H", own, 6, (field & 0x1FFF) + begin // 8 | more)
        _set_length(own, 4, header_octets + len(piece))
        pieces.append(_with_header_checksum(bytes(own) + piece))
    return pieces


def _set_length(headers: bytearray, version: int, octets: int) -> None:
    if version == 4:
        struct.pack_into("!H", headers, 2, octets)
    else:
        struct.pack_into("!H", headers, 4, octets - 40)


def _with_header_checksum(packet: bytes) -> bytes:
    octets = (packet[0] & 0x0F) * 4
    blank = packet[:10] + b"\0\0" + packet[12:octets]
    return packet[:10] + struct.pack("!H", internet_checksum(blank)) + packet[12:]
