"""TCP, UDP and ICMP headers at given positions, vectorised. Knows of IP only where its payload begins and ends."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from replay.columns import (
    ICMP,
    ICMP_ECHO_REPLY,
    ICMP_ECHO_REQUEST,
    ICMPV6,
    ICMPV6_ECHO_REPLY,
    ICMPV6_ECHO_REQUEST,
    TCP,
    UDP,
    Bool,
    Int64,
    UInt8,
    UInt16,
    UInt32,
)
from replay.headers.ip import IpHeaders
from replay.headers.octets import Octets
from replay.headers.reasons import Reasons

ICMP_OCTETS = 8
_TCP_LEAST_OCTETS, _UDP_OCTETS = 14, 8
_ICMPV6_LINK_CONTROL = (130, 131, 132, 133, 134, 135, 136, 137, 143)


@dataclass(slots=True)
class Transport:
    """Transport columns of every record; only those of records without a reason that are no later fragments count."""

    source_port: UInt16
    destination_port: UInt16
    sequence: UInt32
    acknowledgement: UInt32
    tcp_flags: UInt8
    icmp_type: UInt8
    icmp_code: UInt8
    header_octets: Int64

    def taken(self, rows: Int64) -> Transport:
        """The columns of the chosen rows."""
        return Transport(*(getattr(self, column.name)[rows] for column in fields(self)))

    def followed_by(self, others: Transport) -> Transport:
        """The columns with those of others below."""
        return Transport(
            *(np.concatenate((getattr(self, column.name), getattr(others, column.name))) for column in fields(self))
        )


def transport_headers(octets: Octets, ip: IpHeaders, end: Int64, reasons: Reasons) -> tuple[Transport, Int64]:
    """Decode what follows the IP headers, and the octets of payload that the headers' lengths promise.

    ICMPv6 that belongs to a link (neighbour discovery, multicast listeners) is left out as `icmpv6_link_control`.
    """
    protocol = ip.protocol
    tcp, udp, six = protocol == TCP, protocol == UDP, protocol == ICMPV6
    icmp = six | (protocol == ICMP)
    reasons.fail_by_number(reasons.good() & ~(tcp | udp | icmp), "protocol_{}", protocol)
    begins = ip.fragment_octets == 0
    least = tcp * np.int64(_TCP_LEAST_OCTETS - _UDP_OCTETS) + _UDP_OCTETS
    reasons.fail(begins & (ip.transport_at + least > end), "truncated_transport_header")

    words = octets.words(ip.transport_at, 4)
    first, second, third, fourth = (words[:, place].astype(np.uint32) for place in range(4))
    tcp_octets = ((fourth >> 26) & 0x3C).astype(np.int64)
    reasons.fail(begins & tcp & (tcp_octets < 20), "bad_tcp_header")
    header = (tcp * tcp_octets + (udp | icmp) * np.int64(_UDP_OCTETS)) * begins
    found = Transport(
        source_port=(first >> 16).astype(np.uint16),
        destination_port=(first & 0xFFFF).astype(np.uint16),
        sequence=second * tcp,
        acknowledgement=third * tcp,
        tcp_flags=(((fourth >> 16) & 0xFF) * tcp).astype(np.uint8),
        icmp_type=np.zeros(len(end), np.uint8),
        icmp_code=np.zeros(len(end), np.uint8),
        header_octets=header,
    )
    if icmp.any():
        _icmp(np.flatnonzero(icmp & begins), first, second, six, found, reasons)
    payload = ip.transport_octets
    claimed = (second >> 16).astype(np.int64)
    shorter = udp & (claimed >= _UDP_OCTETS) & (claimed < payload) & ~ip.from_wire & ~ip.more & begins
    payload = np.where(shorter, claimed, payload) - header
    reasons.fail(payload < 0, "bad_transport_length")
    return found, payload


def is_echo(kind: UInt8, six: Bool) -> Bool:
    """Which ICMP messages are echo requests and replies."""
    asks = kind == np.where(six, ICMPV6_ECHO_REQUEST, ICMP_ECHO_REQUEST)
    answers = kind == np.where(six, ICMPV6_ECHO_REPLY, ICMP_ECHO_REPLY)
    echo: Bool = asks | answers
    return echo


def _icmp(
    rows: Int64,
    first: npt.NDArray[np.uint32],
    second: npt.NDArray[np.uint32],
    six: Bool,
    found: Transport,
    reasons: Reasons,
) -> None:
    first, second, six = first[rows], second[rows], six[rows]
    kind = (first >> 24).astype(np.uint8)
    echo = is_echo(kind, six)
    found.icmp_type[rows] = kind
    found.icmp_code[rows] = (first >> 16) & 0xFF
    found.source_port[rows] = found.destination_port[rows] = np.where(echo, second >> 16, 0)
    found.sequence[rows] = np.where(echo, second & 0xFFFF, 0)
    reasons.fail_rows(rows[six & np.isin(kind, _ICMPV6_LINK_CONTROL)], "icmpv6_link_control")
