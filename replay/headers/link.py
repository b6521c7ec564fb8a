"""From the first octet of a record, or of what a tunnel carries, to its IP header: the layers between, by kind.

Ethernet, VLAN tags, LLC and SNAP, MPLS label stacks, PPPoE and PPP, Linux cooked, Cisco HDLC, loopback and raw IP.
Knows nothing of IP itself. References: LINKTYPE registry of tcpdump.org, IEEE 802 numbers, RFC 3032, 4385, 2516, 1661.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from replay.columns import Int64, UInt8, UInt16
from replay.headers.octets import Octets
from replay.headers.reasons import Reasons

# what lies at a position; those up to NIBBLE are ends, the others lead on
NOT_IP, ARP, IPV4, IPV6, NIBBLE = 0, 1, 4, 6, 7
ETHERNET, VLAN, LLC, MPLS, PPPOE, PPP = 16, 17, 18, 19, 20, 21
_UNSUPPORTED, _COOKED, _COOKED_2, _LOOPBACK, _CISCO = 24, 25, 26, 27, 28
_MOST_LAYERS = 24
_LEAST_ETHERTYPE = 0x600

_ETHERTYPES = {
    0x0800: IPV4, 0x86DD: IPV6, 0x0806: ARP, 0x8100: VLAN, 0x88A8: VLAN, 0x9100: VLAN, 0x9200: VLAN, 0x9300: VLAN,
    0x8847: MPLS, 0x8848: MPLS, 0x8864: PPPOE, 0x880B: PPP, 0x6558: ETHERNET,
}  # fmt: skip
_PPP_PROTOCOLS = {0x0021: IPV4, 0x0057: IPV6, 0x0281: MPLS, 0x0283: MPLS}
_LINK_TYPES = {
    0: _LOOPBACK, 108: _LOOPBACK, 1: ETHERNET, 9: PPP, 50: PPP, 51: PPPOE, 104: _CISCO, 113: _COOKED, 276: _COOKED_2,
    12: NIBBLE, 14: NIBBLE, 101: NIBBLE, 228: IPV4, 229: IPV6, 219: MPLS,
}  # fmt: skip


def _table(kinds: dict[int, int], short: int) -> UInt8:
    table = np.full(1 << 16, NOT_IP, np.uint8)
    table[:_LEAST_ETHERTYPE] = short
    table[list(kinds)] = list(kinds.values())
    return table


_BY_ETHERTYPE = _table(_ETHERTYPES, LLC)
_BY_PPP = _table(_PPP_PROTOCOLS, NOT_IP)
_SNAP_ORGANISATIONS = (0x000000, 0x0000F8)

Step = tuple[Int64, UInt8]


def link_kinds(link_type: Int64, reasons: Reasons) -> UInt8:
    """What each record begins with by its link type; unsupported ones are failed by number."""
    kinds = np.full(len(link_type), _UNSUPPORTED, np.uint8)
    alike = len(link_type) > 0 and bool((link_type == link_type[0]).all())
    for value in link_type[:1].tolist() if alike else np.unique(link_type).tolist():
        kinds[link_type == value] = _LINK_TYPES.get(value, _UNSUPPORTED)
    reasons.fail_by_number(kinds == _UNSUPPORTED, "link_type_{}", link_type)
    return kinds


def to_network(octets: Octets, at: Int64, end: Int64, kind: UInt8, reasons: Reasons) -> tuple[Int64, UInt8]:
    """Follow every row to its IP header: its position, and IPV4, IPV6 or NIBBLE as the layer above it promises."""
    at, kind = at.copy(), kind.copy()
    leads = np.flatnonzero((kind >= ETHERNET) & (kind != _UNSUPPORTED))
    for _ in range(_MOST_LAYERS):
        if not len(leads):
            break
        chosen = slice(None) if len(leads) == len(kind) else leads
        here = kind[chosen]
        for one in np.flatnonzero(np.bincount(here)).tolist():
            rows = chosen if (here == one).all() else leads[here == one]
            at[rows], kind[rows] = _LAYERS[one](octets, at[rows])
        beyond = leads[at[chosen] > end[chosen]]
        reasons.fail_rows(beyond, "truncated_link_header")
        kind[beyond] = NOT_IP
        leads = leads[kind[chosen] >= ETHERNET]
    reasons.fail_rows(leads, "too_many_layers")
    reasons.fail(kind == ARP, "arp")
    reasons.fail(kind == NOT_IP, "not_ip")
    return at, kind


def ethertype_kinds(ethertype: UInt16) -> UInt8:
    """The kind of what follows an ethertype; numbers below 0x600 are lengths, and LLC follows."""
    kinds: UInt8 = _BY_ETHERTYPE[ethertype]
    return kinds


def _after_ethertype(type_at: int, header_octets: int) -> Callable[[Octets, Int64], Step]:
    def step(octets: Octets, at: Int64) -> Step:
        return at + header_octets, ethertype_kinds(octets.u2(at + type_at))

    return step


def _llc(octets: Octets, at: Int64) -> Step:
    """802.2: SNAP leads on to an ethertype; the old service point 6 is IP itself."""
    points, organisation = octets.u2(at), octets.u4(at + 2) & 0xFFFFFF
    snap = (points == 0xAAAA) & np.isin(organisation, _SNAP_ORGANISATIONS)
    kind = np.where(snap, _BY_ETHERTYPE[octets.u2(at + 6)], np.where(points == 0x0606, IPV4, NOT_IP)).astype(np.uint8)
    kind[snap & (kind == LLC)] = NOT_IP
    return at + np.where(snap, 8, 3), kind


def _mpls(octets: Octets, at: Int64) -> Step:
    """One label; below the last, a first nibble of 0 is a pseudowire's control word before Ethernet (RFC 4385)."""
    last = (octets.u1(at + 2) & 1) == 1
    nibble = octets.u1(at + 4) >> 4
    pseudowire = last & (nibble == 0)
    kind = np.where(last, np.where(pseudowire, ETHERNET, NIBBLE), MPLS).astype(np.uint8)
    return at + np.where(pseudowire, 8, 4), kind


def _pppoe(octets: Octets, at: Int64) -> Step:
    session = octets.u2(at) == 0x1100
    return at + 6, np.where(session, PPP, NOT_IP).astype(np.uint8)


def _ppp(octets: Octets, at: Int64) -> Step:
    """Address and control may stand before the protocol, which is one octet when that one is odd (RFC 1661, 6.5)."""
    at = at + np.where(octets.u2(at) == 0xFF03, 2, 0)
    first = octets.u1(at)
    short = (first & 1) == 1
    return at + np.where(short, 1, 2), _BY_PPP[np.where(short, first, octets.u2(at))]


def _loopback(_: Octets, at: Int64) -> Step:
    """Four octets of an address family, whose numbers and order differ by system: the IP header itself tells."""
    return at + 4, np.full(len(at), NIBBLE, np.uint8)


_LAYERS: dict[int, Callable[[Octets, Int64], Step]] = {
    ETHERNET: _after_ethertype(12, 14),
    VLAN: _after_ethertype(2, 4),
    LLC: _llc,
    MPLS: _mpls,
    PPPOE: _pppoe,
    PPP: _ppp,
    _COOKED: _after_ethertype(14, 16),
    _COOKED_2: _after_ethertype(0, 20),
    _CISCO: _after_ethertype(2, 4),
    _LOOPBACK: _loopback,
}
