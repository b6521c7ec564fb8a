"""What tunnels carry: VXLAN, GENEVE, GTP-U, GRE with ERSPAN, IP in IP. Knows where their headers end, not what follows.

References: RFC 7348 (VXLAN), 8926 (GENEVE), 2784, 2890 and 2637 (GRE), 2003 and 2473 (IP in IP),
3GPP TS 29.281 (GTP-U),
draft-foschiano-erspan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.columns import UDP, Bool, Int64, UInt8
from replay.headers.ip import IpHeaders, ip_headers
from replay.headers.link import ETHERNET, IPV4, IPV6, LLC, NIBBLE, NOT_IP, ethertype_kinds, to_network
from replay.headers.octets import Octets
from replay.headers.reasons import Reasons

MOST_DEPTH = 8
MOST_PIECEMEAL = 1 << 12
_IPV4_IN_IP, _IPV6_IN_IP, _GRE = 4, 41, 47
_VXLAN_PORTS, _GENEVE_PORT, _GTP_PORT = (4789, 8472), 6081, 2152
_GTP_PACKET, _MOST_GTP_EXTENSIONS = 0x30FF, 8
_ERSPAN, _ERSPAN_3 = 0x88BE, 0x22EB
_UDP_OCTETS, _TUNNEL_OCTETS = 8, 8


Identity = tuple[bytes, bytes, int]


@dataclass(frozen=True, slots=True)
class Extent:
    """Where each record's captured octets and its octets on the wire end."""

    end: Int64
    wire_end: Int64


def unwrapped(
    octets: Octets, ip: IpHeaders, extent: Extent, reasons: Reasons, piecemeal: dict[Identity, None]
) -> Extent:
    """Replace the headers of every tunnel packet by those of the packet inside, up to MOST_DEPTH tunnels deep.

    What is inside ends where the outer packet does. Later fragments of an outer packet carry no header of an inner
    one, whose length counts their octets already: they are left out as `tunnel_fragment`. `piecemeal` remembers,
    from chunk to chunk, the latest outer UDP packets that came in pieces.
    """
    extent = Extent(extent.end.copy(), extent.wire_end.copy())
    rows = np.arange(len(extent.end))
    for _ in range(MOST_DEPTH):
        rows = rows[_carries(octets, ip, extent, rows, reasons, piecemeal)]
        if not len(rows):
            break
        at, kind, header_end = _inside(octets, ip, rows)
        outer_end = ip.transport_at[rows] + ip.transport_octets[rows]
        extent.end[rows] = np.minimum(extent.end[rows], outer_end)
        extent.wire_end[rows] = outer_end
        inner = Reasons(len(rows))
        inner.fail(header_end > extent.end[rows], "truncated_tunnel_header")
        at, kind = to_network(octets, at, extent.end[rows], kind, inner)
        ip.put(rows, ip_headers(octets, at, extent.end[rows], extent.wire_end[rows], kind, inner))
        reasons.adopt(rows, inner)
    else:
        reasons.fail_rows(rows[_carries(octets, ip, extent, rows, reasons, piecemeal)], "too_many_tunnels")
    return extent


def _carries(
    octets: Octets,
    ip: IpHeaders,
    extent: Extent,
    rows: Int64,
    reasons: Reasons,
    piecemeal: dict[Identity, None],
) -> Bool:
    """Which of the rows are tunnels with a header; fragments that follow one are failed."""
    protocol, good = ip.protocol[rows], reasons.good()[rows]
    by_ip = np.isin(protocol, (_IPV4_IN_IP, _IPV6_IN_IP, _GRE))
    later = ip.fragment_octets[rows] > 0
    reasons.fail_rows(rows[good & by_ip & later], "tunnel_fragment")
    carries: Bool = good & by_ip & ~later
    udp = np.flatnonzero(good & ~later & (protocol == UDP))
    at, end = ip.transport_at[rows[udp]], extent.end[rows[udp]]
    port, begin = octets.u2(at + 2), octets.u1(at + _UDP_OCTETS)
    vxlan = np.isin(port, _VXLAN_PORTS) & ((begin & 0x08) != 0)
    geneve = (port == _GENEVE_PORT) & ((begin & 0xC0) == 0)
    gtp = (port == _GTP_PORT) & ((octets.u2(at + _UDP_OCTETS) & 0xF0FF) == _GTP_PACKET)
    tunnel = (vxlan | geneve | gtp) & (at + _UDP_OCTETS + _TUNNEL_OCTETS <= end)
    carries[udp[tunnel]] = True
    for row in rows[udp[tunnel]][ip.more[rows[udp[tunnel]]]].tolist():
        piecemeal[_identity(ip, row)] = None
    while len(piecemeal) > MOST_PIECEMEAL:
        del piecemeal[next(iter(piecemeal))]
    pieces = rows[good & later & (protocol == UDP)].tolist() if piecemeal else []
    reasons.fail_rows(np.array([row for row in pieces if _identity(ip, row) in piecemeal], np.int64), "tunnel_fragment")
    return carries


def _identity(ip: IpHeaders, row: int) -> Identity:
    return ip.source[row].tobytes(), ip.destination[row].tobytes(), int(ip.identification[row])


def _inside(octets: Octets, ip: IpHeaders, rows: Int64) -> tuple[Int64, UInt8, Int64]:
    """Where the inner packet of each row begins, with what, and where the tunnel's own header ends."""
    at, protocol = ip.transport_at[rows].copy(), ip.protocol[rows]
    kind = np.where(protocol == _IPV4_IN_IP, IPV4, IPV6).astype(np.uint8)
    header_end = at.copy()
    for mine, step in ((protocol == _GRE, _gre), (protocol == UDP, _over_udp)):
        chosen = np.flatnonzero(mine)
        if len(chosen):
            at[chosen], kind[chosen] = step(octets, at[chosen])
            header_end[chosen] = at[chosen]
    return at, kind, header_end


def _gre(octets: Octets, at: Int64) -> tuple[Int64, UInt8]:
    flags, ethertype = octets.u2(at), octets.u2(at + 2)
    version = flags & 7
    has_checksum, has_key, has_sequence = ((flags & bit) != 0 for bit in (0x8000, 0x2000, 0x1000))
    has_acknowledgement = (version == 1) & ((flags & 0x0080) != 0)
    words = 1 + has_checksum + has_key + has_sequence + has_acknowledgement.astype(np.int64)
    begin = at + words * 4
    kind = ethertype_kinds(ethertype)
    erspan = ethertype == _ERSPAN
    begin += np.where(erspan & has_sequence, 8, 0)
    third = np.flatnonzero(ethertype == _ERSPAN_3)
    begin[third] += 12 + 8 * (octets.u1(begin[third] + 11) & 1).astype(np.int64)
    kind[erspan] = ETHERNET
    kind[third] = ETHERNET
    kind[(kind == LLC) | (version > 1) | ((flags & 0x4000) != 0)] = NOT_IP
    return begin, kind


def _over_udp(octets: Octets, at: Int64) -> tuple[Int64, UInt8]:
    port, begin = octets.u2(at + 2), at + _UDP_OCTETS
    geneve = port == _GENEVE_PORT
    options = (octets.u1(begin) & 0x3F).astype(np.int64) * 4
    kind = np.where(geneve, ethertype_kinds(octets.u2(begin + 2)), ETHERNET).astype(np.uint8)
    kind[geneve & (kind == LLC)] = NOT_IP
    end = begin + _TUNNEL_OCTETS + np.where(geneve, options, 0)
    gtp = np.flatnonzero(port == _GTP_PORT)
    end[gtp], kind[gtp] = _gtp_end(octets, begin[gtp]), NIBBLE
    return end, kind


def _gtp_end(octets: Octets, at: Int64) -> Int64:
    """The optional word is there when any of three flags is set; extension headers follow when its last octet says."""
    flags = octets.u1(at)
    end = at + _TUNNEL_OCTETS + np.where((flags & 0x07) != 0, 4, 0)
    extended = np.flatnonzero((flags & 0x04) != 0)
    for _ in range(_MOST_GTP_EXTENSIONS):
        extended = extended[octets.u1(end[extended] - 1) != 0]
        if not len(extended):
            break
        end[extended] += np.maximum(octets.u1(end[extended]).astype(np.int64), 1) * 4
    return end
