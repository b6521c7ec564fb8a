"""Protocol names and ICMP types as the flow table has them. Knows no record format."""

from __future__ import annotations

from replay.columns import (
    ICMP,
    ICMP_ECHO_REPLY,
    ICMP_ECHO_REQUEST,
    ICMPV6,
    ICMPV6_ECHO_REPLY,
    ICMPV6_ECHO_REQUEST,
    TCP,
    UDP,
)
from replay.records.fields import DamagedRecord, text, whole
from replay.records.piece import Initiator

PROTOCOL_NUMBERS = {
    "icmp": ICMP, "igmp": 2, "ipip": 4, "tcp": TCP, "udp": UDP, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51,
    "icmp6": ICMPV6, "icmpv6": ICMPV6, "ipv6-icmp": ICMPV6, "ospf": 89, "pim": 103, "vrrp": 112, "sctp": 132,
    "udplite": 136,
}  # fmt: skip
PROTOCOL_NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6", 47: "gre", 50: "esp", 132: "sctp"}
_LINK_CONTROL = frozenset((*range(130, 138), 143))
_ERRORS = {ICMP: frozenset((3, 4, 5, 11, 12)), ICMPV6: frozenset(range(128))}
_ASKS = {(ICMP, ICMP_ECHO_REQUEST), (ICMPV6, ICMPV6_ECHO_REQUEST)}
_ANSWERS = {(ICMP, ICMP_ECHO_REPLY), (ICMPV6, ICMPV6_ECHO_REPLY)}


def protocol_number(written: object) -> int:
    """The protocol's number from its number or its name; raises DamagedRecord for a name nobody registered."""
    if isinstance(written, str) and not written.isdigit():
        name = text(written).lower()
        if name not in PROTOCOL_NUMBERS:
            raise DamagedRecord("unknown_protocol")
        return PROTOCOL_NUMBERS[name]
    return whole(written, 255)


def icmp_initiator(protocol: int, kind: int) -> Initiator:
    """Who asks, from the ICMP type; raises DamagedRecord for an error or a link's own, which are no flows."""
    if kind in _ERRORS.get(protocol, ()):
        raise DamagedRecord("icmp_error")
    if protocol == ICMPV6 and kind in _LINK_CONTROL:
        raise DamagedRecord("icmpv6_link_control")
    if (protocol, kind) in _ASKS:
        return Initiator.SOURCE
    return Initiator.DESTINATION if (protocol, kind) in _ANSWERS else Initiator.UNKNOWN
