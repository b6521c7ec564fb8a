"""Records to packet columns: link, IP and transport headers, vectorised. Knows no file format and no flow.

Every read is clamped to the data and checked against the captured length, so hostile octets can only end in a reason.
References: RFC 791, 8200, 9293, 768, 792, 4443; LINKTYPE registry of tcpdump.org.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

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
    Packets,
    Quotes,
    UInt8,
)
from replay.container import Records
from replay.fragments import Fragments, attributed
from replay.ip_header import IpHeaders, big_endian, ip_headers
from replay.link_header import network_headers
from replay.reasons import Reasons

_ICMP_ERRORS = (3, 4, 5, 11, 12)
_ICMPV6_ERRORS = (1, 2, 3, 4)
_ICMPV6_LINK_CONTROL = (130, 131, 132, 133, 134, 135, 136, 137, 143)
_TCP_LEAST_OCTETS, _UDP_OCTETS, _ICMP_OCTETS = 14, 8, 8


def decode(records: Records) -> tuple[Packets, Counter[str]]:
    """Decode time-sorted records; what is not a TCP, UDP or ICMP packet over IP is counted by reason.

    ICMPv6 that belongs to a link (neighbour discovery, multicast listeners) is left out as `icmpv6_link_control`.
    """
    reasons = Reasons(len(records))
    data = records.data if len(records.data) else np.zeros(1, np.uint8)
    end = records.offset + records.captured
    at, version = network_headers(data, records, reasons)
    ip = ip_headers(data, at, end, records.offset + records.wire, version, reasons)
    transport = _Transport(data, ip, end, reasons)
    first = attributed(Fragments(records.time_ns, ip), reasons)
    keep = reasons.kept()
    return _packets(data, records, ip, transport, first, keep), reasons.counter()


class _Transport:
    """The transport columns of every record; only those of records without a reason mean anything."""

    def __init__(self, data: UInt8, ip: IpHeaders, end: Int64, reasons: Reasons) -> None:
        count = len(end)
        self.source_port = np.zeros(count, np.uint16)
        self.destination_port = np.zeros(count, np.uint16)
        self.sequence = np.zeros(count, np.uint32)
        self.acknowledgement = np.zeros(count, np.uint32)
        self.tcp_flags = np.zeros(count, np.uint8)
        self.icmp_type = np.zeros(count, np.uint8)
        self.icmp_code = np.zeros(count, np.uint8)
        self.header_octets = np.zeros(count, np.int64)
        self.payload_octets = ip.transport_octets.copy()
        self._data, self._ip, self._end, self._reasons = data, ip, end, reasons
        begins = reasons.good() & (ip.fragment_octets == 0)
        known = np.isin(ip.protocol, (TCP, UDP, ICMP, ICMPV6))
        reasons.fail_by_number(reasons.good() & ~known, "protocol_{}", ip.protocol)
        self._tcp(np.flatnonzero(begins & (ip.protocol == TCP)))
        self._udp(np.flatnonzero(begins & (ip.protocol == UDP)))
        self._icmp(np.flatnonzero(begins & ((ip.protocol == ICMP) | (ip.protocol == ICMPV6))))
        self.payload_octets -= self.header_octets
        reasons.fail(reasons.good() & (self.payload_octets < 0), "bad_transport_length")

    def _present(self, rows: Int64, octets: int) -> Int64:
        short = self._ip.transport_at[rows] + octets > self._end[rows]
        self._reasons.fail_rows(rows[short], "truncated_transport_header")
        return rows[~short]

    def _ports(self, rows: Int64) -> Int64:
        at = self._ip.transport_at[rows]
        self.source_port[rows] = big_endian(self._data, at, 2)
        self.destination_port[rows] = big_endian(self._data, at + 2, 2)
        return at

    def _tcp(self, rows: Int64) -> None:
        rows = self._present(rows, _TCP_LEAST_OCTETS)
        at = self._ports(rows)
        self.sequence[rows] = big_endian(self._data, at + 4, 4)
        self.acknowledgement[rows] = big_endian(self._data, at + 8, 4)
        header = (big_endian(self._data, at + 12, 1) >> 4) * 4
        self.tcp_flags[rows] = big_endian(self._data, at + 13, 1)
        self.header_octets[rows] = header
        self._reasons.fail_rows(rows[header < 20], "bad_tcp_header")

    def _udp(self, rows: Int64) -> None:
        rows = self._present(rows, _UDP_OCTETS)
        at = self._ports(rows)
        self.header_octets[rows] = _UDP_OCTETS
        claimed = big_endian(self._data, at + 4, 2)
        ip_says = self.payload_octets[rows]
        shorter = (claimed >= _UDP_OCTETS) & (claimed < ip_says) & ~self._ip.from_wire[rows] & ~self._ip.more[rows]
        self.payload_octets[rows] = np.where(shorter, claimed, ip_says)

    def _icmp(self, rows: Int64) -> None:
        rows = self._present(rows, _ICMP_OCTETS)
        at = self._ip.transport_at[rows]
        kind = big_endian(self._data, at, 1)
        self.icmp_type[rows] = kind
        self.icmp_code[rows] = big_endian(self._data, at + 1, 1)
        self.header_octets[rows] = _ICMP_OCTETS
        six = self._ip.protocol[rows] == ICMPV6
        echo = _is_echo(kind, six)
        identifier = np.where(echo, big_endian(self._data, at + 4, 2), 0)
        self.source_port[rows] = identifier
        self.destination_port[rows] = identifier
        self.sequence[rows] = np.where(echo, big_endian(self._data, at + 6, 2), 0)
        self._reasons.fail_rows(rows[six & np.isin(kind, _ICMPV6_LINK_CONTROL)], "icmpv6_link_control")


def _is_echo(kind: Int64, six: Bool) -> Bool:
    asks = kind == np.where(six, ICMPV6_ECHO_REQUEST, ICMP_ECHO_REQUEST)
    answers = kind == np.where(six, ICMPV6_ECHO_REPLY, ICMP_ECHO_REPLY)
    echo: Bool = asks | answers
    return echo


def _packets(data: UInt8, records: Records, ip: IpHeaders, transport: _Transport, first: Int64, keep: Int64) -> Packets:
    payload_at = ip.transport_at[keep] + transport.header_octets[keep]
    payload_octets = transport.payload_octets[keep]
    end = records.offset[keep] + records.captured[keep]
    captured = np.clip(end - payload_at, 0, payload_octets)
    follows = ip.fragment_octets[keep] > 0
    head = first[keep]
    beyond = np.where(follows, ip.fragment_octets[keep] - transport.header_octets[head], 0)
    row_of = np.zeros(len(records), np.int64)
    row_of[keep] = np.arange(len(keep))
    protocol = ip.protocol[keep]
    return Packets(
        time_ns=records.time_ns[keep],
        protocol=protocol,
        version=ip.version[keep],
        source_address=ip.source[keep],
        destination_address=ip.destination[keep],
        source_port=transport.source_port[head],
        destination_port=transport.destination_port[head],
        sequence=(transport.sequence[head].astype(np.int64) + np.where(protocol == TCP, beyond, 0)).astype(np.uint32),
        acknowledgement=transport.acknowledgement[head],
        tcp_flags=np.where(follows, transport.tcp_flags[head] & 0x10, transport.tcp_flags[head]).astype(np.uint8),
        hop_limit=ip.hop_limit[keep],
        payload_octets=payload_octets.astype(np.int32),
        captured_octets=captured.astype(np.int32),
        payload_offset=np.minimum(payload_at, end),
        ip_octets=ip.octets[keep].astype(np.int32),
        icmp_type=transport.icmp_type[head],
        icmp_code=transport.icmp_code[head],
        datagram=row_of[head],
        fragment_octets=beyond.astype(np.int32),
        quotes=_quotes(data, ip, transport, end, keep),
        data=data,
    )


def _quotes(data: UInt8, ip: IpHeaders, transport: _Transport, end: Int64, keep: Int64) -> Quotes:
    kind = transport.icmp_type[keep]
    whole = ip.fragment_octets[keep] == 0
    error = np.where(
        ip.protocol[keep] == ICMP,
        np.isin(kind, _ICMP_ERRORS),
        (ip.protocol[keep] == ICMPV6) & np.isin(kind, _ICMPV6_ERRORS),
    )
    packet = np.flatnonzero(error & whole)
    at, end = ip.transport_at[keep[packet]] + _ICMP_OCTETS, end[packet]
    reasons = Reasons(len(packet))
    reasons.fail(at >= end, "truncated_quote")
    version = (big_endian(data, at, 1) >> 4).astype(np.uint8)
    quoted = ip_headers(data, at, end, end, version, reasons, quoted=True)
    ports_at = quoted.transport_at
    echo = np.isin(quoted.protocol, (ICMP, ICMPV6))
    reasons.fail(ports_at + np.where(echo, 6, 4) > end, "truncated_quote")
    reasons.fail(~np.isin(quoted.protocol, (TCP, UDP, ICMP, ICMPV6)) | (quoted.fragment_octets > 0), "unusable_quote")
    source = big_endian(data, np.where(echo, ports_at + 4, ports_at), 2)
    destination = np.where(echo, source, big_endian(data, ports_at + 2, 2))
    is_echo = _is_echo(big_endian(data, ports_at, 1), quoted.protocol == ICMPV6)
    source, destination = np.where(echo & ~is_echo, 0, source), np.where(echo & ~is_echo, 0, destination)
    kept = reasons.kept()
    return Quotes(
        packet=packet[kept],
        protocol=quoted.protocol[kept],
        version=quoted.version[kept],
        source_address=quoted.source[kept],
        destination_address=quoted.destination[kept],
        source_port=source[kept].astype(np.uint16),
        destination_port=destination[kept].astype(np.uint16),
    )
