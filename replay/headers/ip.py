"""IPv4 and IPv6 headers at given positions, vectorised. Knows nothing of links above or of transports below."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from replay.columns import Bool, Int64, UInt8
from replay.headers.link import IPV4, IPV6
from replay.headers.octets import Octets
from replay.headers.reasons import Reasons

_IPV4_OCTETS, _IPV6_OCTETS = 20, 40
_MOST_OCTETS = 1 << 24
_FRAGMENT, _AUTHENTICATION, _NO_NEXT = 44, 51, 59
# hop-by-hop, routing, destination options, mobility, HIP, shim6: length in units of eight octets beyond the first eight
_OPTIONS = (0, 43, 60, 135, 139, 140)
_MOST_EXTENSIONS = 16
_EXTENSION = np.zeros(256, np.bool_)
_EXTENSION[[*_OPTIONS, _FRAGMENT, _AUTHENTICATION]] = True


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

    def put(self, rows: Int64, others: IpHeaders) -> None:
        """Replace the rows by the headers that were found for them alone."""
        for column in fields(self):
            getattr(self, column.name)[rows] = getattr(others, column.name)


def ip_headers(
    octets: Octets, at: Int64, end: Int64, wire_end: Int64, kind: UInt8, reasons: Reasons, quoted: bool = False
) -> IpHeaders:
    """Decode the IP headers at the given positions, where IPv4, IPv6 or either (NIBBLE) was promised.

    A length of 0 is taken from the wire: segmentation offload leaves it 0 in super-frames. A quoted header
    (inside an ICMP error) may claim more than is there and is not held to its length.
    """
    words = octets.words(at, 5)
    first, second, third = (words[:, place].astype(np.uint32) for place in range(3))
    version = (first >> 28).astype(np.uint8)
    six = version == 6
    reasons.fail(at >= end, "truncated_ip_header")
    reasons.fail((version != 4) & ~six, "bad_ip_version")
    reasons.fail(((kind == IPV4) | (kind == IPV6)) & (kind != version), "bad_ip_version")
    reasons.fail(~six & (at + _IPV4_OCTETS > end), "truncated_ip_header")

    header = ((first >> 22) & 0x3C).astype(np.int64)
    reasons.fail(~six & (header < _IPV4_OCTETS), "bad_ip_header")
    total = (first & 0xFFFF).astype(np.int64)
    from_wire = total == 0
    length = np.where(from_wire, wire_end - at, total) if from_wire.any() else total
    headers = IpHeaders(
        version=version,
        protocol=((third >> 16) & 0xFF).astype(np.uint8),
        source=_mapped(words[:, 3]),
        destination=_mapped(words[:, 4]),
        hop_limit=(third >> 24).astype(np.uint8),
        octets=length,
        transport_at=at + header,
        transport_octets=length - header,
        identification=(second >> 16).astype(np.int64),
        fragment_octets=((second & 0x1FFF) << 3).astype(np.int64),
        more=(second & 0x2000) != 0,
        from_wire=from_wire,
    )
    if six.any():
        _ipv6(octets, np.flatnonzero(six & reasons.good()), at, end, wire_end, headers, reasons)
    if not quoted:
        reasons.fail(headers.octets > _MOST_OCTETS, "bad_ip_length")
        reasons.fail(headers.transport_octets < 0, "bad_ip_length")
    return headers


def _mapped(address: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> UInt8:
    """IPv4 addresses in the 16 octets of ::ffff:a.b.c.d."""
    mapped = np.zeros((len(address), 4), ">u4")
    mapped[:, 2] = 0xFFFF
    mapped[:, 3] = address
    return mapped.view(np.uint8)


def _ipv6(
    octets: Octets, rows: Int64, at: Int64, end: Int64, wire_end: Int64, headers: IpHeaders, reasons: Reasons
) -> None:
    begin, end = at[rows], end[rows]
    reasons.fail_rows(rows[begin + _IPV6_OCTETS > end], "truncated_ip_header")
    words = octets.words(begin, 10)
    second = words[:, 1].astype(np.uint32)
    claimed, following = (second >> 16).astype(np.int64), ((second >> 8) & 0xFF).astype(np.uint8)
    from_wire = (claimed == 0) & (following != _NO_NEXT)
    length = np.where(from_wire, wire_end[rows] - begin, claimed + _IPV6_OCTETS)
    headers.source[rows] = np.ascontiguousarray(words[:, 2:6]).view(np.uint8)
    headers.destination[rows] = np.ascontiguousarray(words[:, 6:10]).view(np.uint8)
    headers.hop_limit[rows] = second & 0xFF
    headers.from_wire[rows], headers.octets[rows] = from_wire, length
    headers.identification[rows], headers.fragment_octets[rows], headers.more[rows] = 0, 0, False
    cursor = begin + _IPV6_OCTETS
    walking = np.flatnonzero(_EXTENSION[following] & reasons.good()[rows])
    for _ in range(_MOST_EXTENSIONS):
        short = cursor[walking] + 8 > end[walking]
        reasons.fail_rows(rows[walking[short]], "truncated_ip_header")
        walking = walking[~short]
        if not len(walking):
            break
        here, kind = cursor[walking], following[walking]
        word = octets.words(here, 2)
        first, identification = word[:, 0].astype(np.uint32), word[:, 1].astype(np.int64)
        size = ((first >> 16) & 0xFF).astype(np.int64)
        fragment = kind == _FRAGMENT
        pieces = rows[walking[fragment]]
        headers.fragment_octets[pieces] = first[fragment] & 0xFFF8
        headers.more[pieces] = (first[fragment] & 1) != 0
        headers.identification[pieces] = identification[fragment]
        following[walking] = first >> 24
        cursor[walking] += np.where(fragment, 8, np.where(kind == _AUTHENTICATION, (size + 2) * 4, (size + 1) * 8))
        walking = walking[_EXTENSION[following[walking]] & (headers.fragment_octets[rows[walking]] == 0)]
    else:
        reasons.fail_rows(rows[walking], "too_many_extension_headers")
    headers.protocol[rows] = following
    headers.transport_at[rows] = cursor
    headers.transport_octets[rows] = length - (cursor - begin)
