"""Where the IP header of every record begins, by link type: Ethernet with VLAN tags, Linux cooked, raw IP, loopback."""

from __future__ import annotations

import numpy as np

from replay.columns import Int64, UInt8
from replay.container import Records
from replay.ip_header import big_endian
from replay.reasons import Reasons

_NULL, _ETHERNET, _RAW, _LOOP, _COOKED, _IPV4, _IPV6, _COOKED_2 = 0, 1, 101, 108, 113, 228, 229, 276
_RAW_TYPES = (_RAW, 12, 14, _IPV4, _IPV6)
# link type -> octets of the header, where its ethertype lies
_ETHERTYPE_HEADERS = {_ETHERNET: (14, 12), _COOKED: (16, 14), _COOKED_2: (20, 0)}
_VLAN_TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
_MOST_VLAN_TAGS = 8
_ETHERTYPE_IPV4, _ETHERTYPE_IPV6, _ETHERTYPE_ARP = 0x0800, 0x86DD, 0x0806
_SUPPORTED = (*_RAW_TYPES, _NULL, _LOOP, *_ETHERTYPE_HEADERS)


def network_headers(data: UInt8, records: Records, reasons: Reasons) -> tuple[Int64, UInt8]:
    """The position of each record's IP header and the IP version that the link layer promises."""
    end = records.offset + records.captured
    at = records.offset.copy()
    ethertype = np.zeros(len(records), np.int64)
    reasons.fail_by_number(~np.isin(records.link_type, _SUPPORTED), "link_type_{}", records.link_type)
    for link_type, (octets, type_at) in _ETHERTYPE_HEADERS.items():
        rows = np.flatnonzero(records.link_type == link_type)
        ethertype[rows] = big_endian(data, at[rows] + type_at, 2)
        at[rows] += octets
    at[np.isin(records.link_type, (_NULL, _LOOP))] += 4
    reasons.fail(at > end, "truncated_link_header")
    for _ in range(_MOST_VLAN_TAGS):
        tagged = np.flatnonzero(np.isin(ethertype, _VLAN_TAGS))
        if not len(tagged):
            break
        ethertype[tagged] = big_endian(data, at[tagged] + 2, 2)
        at[tagged] += 4
    reasons.fail(at > end, "truncated_link_header")

    typed = np.isin(records.link_type, tuple(_ETHERTYPE_HEADERS))
    reasons.fail(typed & (ethertype == _ETHERTYPE_ARP), "arp")
    reasons.fail(typed & (ethertype != _ETHERTYPE_IPV4) & (ethertype != _ETHERTYPE_IPV6), "not_ip")
    reasons.fail(at >= end, "truncated_ip_header")
    version = (big_endian(data, at, 1) >> 4).astype(np.uint8)
    reasons.fail((version != 4) & (version != 6), "bad_ip_version")
    reasons.fail(typed & ((ethertype == _ETHERTYPE_IPV4) != (version == 4)), "bad_ip_version")
    return at, version
