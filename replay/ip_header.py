"""IPv4 and IPv6 headers at given positions, vectorised. Knows nothing of links above or of transports below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.columns import Bool, Int64, UInt8
from replay.reasons import Reasons

_IPV4_OCTETS, _IPV6_OCTETS = 20, 40
_MOST_OCTETS = 1 << 24
_FRAGMENT, _AUTHENTICATION, _NO_NEXT = 44, 51, 59
# hop-by-hop, routing, destination options, mobility, HIP, shim6: length in units of eight octets beyond the first eight
_OPTIONS = (0, 43, 60, 135, 139, 140)
_MOST_EXTENSIONS = 16


def big_endian(data: UInt8, at: Int64, octets: int) -> Int64:
    """Unsigned numbers read at each position; beyond the end the last octet is repeated, for callers to discard."""
    last = len(data) - 1
    number = data[np.minimum(at, last)].astype(np.int64)
    for further in range(1, octets):
        number = (number << 8) | data[np.minimum(at + further, last)]
    return number


@dataclass(slots=True)
class IpHeaders:
    """IP columns; `octets` is the IP length, `transport_octets` what of it follows the headers, fragments included."""

    version: UInt8
    protocol: UInt8
    source: UInt8
    destination: UInt8
    hop_limit: UInt8
    octets: Int64
    transport_at: Int64
    transport_octets: Int64
    identification: Int64
    fragment_octets: Int64
    more: Bool
    from_wire: Bool


def ip_headers(
    data: UInt8, at: Int64, end: Int64, wire_end: Int64, version: UInt8, reasons: Reasons, quoted: bool = False
) -> IpHeaders:
    """Decode the IP headers at the given positions.

    A length of 0 is taken from the wire: segmentation offload leaves it 0 in super-frames. A quoted header
    (inside an ICMP error) may claim more than is there and is not held to its length.
    """
    count = len(at)
    headers = IpHeaders(
        version=version,
        protocol=np.zeros(count, np.uint8),
        source=np.zeros((count, 16), np.uint8),
        destination=np.zeros((count, 16), np.uint8),
        hop_limit=np.zeros(count, np.uint8),
        octets=np.zeros(count, np.int64),
        transport_at=at.copy(),
        transport_octets=np.zeros(count, np.int64),
        identification=np.zeros(count, np.int64),
        fragment_octets=np.zeros(count, np.int64),
        more=np.zeros(count, np.bool_),
        from_wire=np.zeros(count, np.bool_),
    )
    reasons.fail((version != 4) & (version != 6), "bad_ip_version")
    _ipv4(data, at, end, wire_end, headers, reasons)
    _ipv6(data, at, end, wire_end, headers, reasons)
    if not quoted:
        reasons.fail(headers.octets > _MOST_OCTETS, "bad_ip_length")
        reasons.fail(headers.transport_octets < 0, "bad_ip_length")
    return headers


def _addresses(data: UInt8, at: Int64, octets: int) -> UInt8:
    addresses: UInt8 = data[np.minimum(at[:, None] + np.arange(octets), len(data) - 1)]
    return addresses


def _ipv4(data: UInt8, at: Int64, end: Int64, wire_end: Int64, headers: IpHeaders, reasons: Reasons) -> None:
    rows = np.flatnonzero(reasons.good() & (headers.version == 4))
    at = at[rows]
    header = (big_endian(data, at, 1) & 0x0F) * 4
    reasons.fail_rows(rows[at + _IPV4_OCTETS > end[rows]], "truncated_ip_header")
    reasons.fail_rows(rows[header < _IPV4_OCTETS], "bad_ip_header")
    total = big_endian(data, at + 2, 2)
    fragment = big_endian(data, at + 6, 2)
    headers.from_wire[rows] = total == 0
    headers.octets[rows] = np.where(total == 0, wire_end[rows] - at, total)
    headers.identification[rows] = big_endian(data, at + 4, 2)
    headers.fragment_octets[rows] = (fragment & 0x1FFF) * 8
    headers.more[rows] = (fragment & 0x2000) != 0
    headers.hop_limit[rows] = big_endian(data, at + 8, 1)
    headers.protocol[rows] = big_endian(data, at + 9, 1)
    for column, address_at in ((headers.source, at + 12), (headers.destination, at + 16)):
        column[rows, 10:12] = 0xFF
        column[rows, 12:16] = _addresses(data, address_at, 4)
    headers.transport_at[rows] = at + header
    headers.transport_octets[rows] = headers.octets[rows] - header


def _ipv6(data: UInt8, at: Int64, end: Int64, wire_end: Int64, headers: IpHeaders, reasons: Reasons) -> None:
    rows = np.flatnonzero(reasons.good() & (headers.version == 6))
    begin, end = at[rows], end[rows]
    reasons.fail_rows(rows[begin + _IPV6_OCTETS > end], "truncated_ip_header")
    claimed = big_endian(data, begin + 4, 2)
    following = big_endian(data, begin + 6, 1)
    headers.from_wire[rows] = (claimed == 0) & (following != _NO_NEXT)
    octets = np.where(headers.from_wire[rows], wire_end[rows] - begin, claimed + _IPV6_OCTETS)
    headers.octets[rows] = octets
    headers.hop_limit[rows] = big_endian(data, begin + 7, 1)
    headers.source[rows] = _addresses(data, begin + 8, 16)
    headers.destination[rows] = _addresses(data, begin + 24, 16)
    cursor = begin + _IPV6_OCTETS
    walking = reasons.good()[rows]
    for _ in range(_MOST_EXTENSIONS):
        extension = walking & np.isin(following, (*_OPTIONS, _FRAGMENT, _AUTHENTICATION))
        short = extension & (cursor + 8 > end)
        reasons.fail_rows(rows[short], "truncated_ip_header")
        mine = np.flatnonzero(extension & ~short)
        if not len(mine):
            break
        here, kind = cursor[mine], following[mine]
        length = big_endian(data, here + 1, 1)
        field = big_endian(data, here + 2, 2)
        fragment = kind == _FRAGMENT
        pieces = rows[mine[fragment]]
        headers.fragment_octets[pieces] = field[fragment] & 0xFFF8
        headers.more[pieces] = (field[fragment] & 1) != 0
        headers.identification[pieces] = big_endian(data, here[fragment] + 4, 4)
        following[mine] = big_endian(data, here, 1)
        cursor[mine] += np.where(fragment, 8, np.where(kind == _AUTHENTICATION, (length + 2) * 4, (length + 1) * 8))
        walking = extension & ~short & (headers.fragment_octets[rows] == 0)
    else:
        left = walking & np.isin(following, (*_OPTIONS, _FRAGMENT, _AUTHENTICATION))
        reasons.fail_rows(rows[left], "too_many_extension_headers")
    headers.protocol[rows] = following
    headers.transport_at[rows] = cursor
    headers.transport_octets[rows] = octets - (cursor - begin)
