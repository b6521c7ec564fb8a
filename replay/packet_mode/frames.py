"""Every record of a capture, a tap or a program of ours as header columns, whatever protocol it carries.

Knows no flow. The ordinary decoder leaves out what is not TCP, UDP or ICMP; here that is what matters most, so packets
with impossible lengths are kept too, marked malformed, as long as their addresses can be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from replay.capture.reader import opened
from replay.capture.records import SLACK_OCTETS, Records
from replay.columns import ICMP, ICMPV6, TCP, UDP, Bool, Int64, UInt8
from replay.errors import InvalidCapture
from replay.headers.ip import ip_headers
from replay.headers.link import link_kinds, to_network
from replay.headers.octets import Octets
from replay.headers.reasons import Reasons

SCTP, DCCP, UDPLITE = 132, 33, 136
WITH_PORTS = (TCP, UDP, SCTP, DCCP, UDPLITE)
NO_IP = -1
"""The protocol of a frame that carries no IP packet."""

_ETHERNET = 1
_STEP_OCTETS = 64 << 20
_POSITIONS = ("link_at", "at", "end", "transport_at")
_ADDRESS_OCTETS = 12
_IPV4_OCTETS, _IPV6_OCTETS = 20, 40
_LEAST_OCTETS = {TCP: 20, UDP: 8, SCTP: 12, DCCP: 12, UDPLITE: 8, ICMP: 8, ICMPV6: 4}
_ECHO = {ICMP: (8, 0), ICMPV6: (128, 129)}


@dataclass(frozen=True, slots=True)
class Frames:
    """Columns of equal length over `data`; all positions are indices into it.

    `at` is the IP header (for a frame without one, its ethertype), `end` where the captured octets end, `octets` the
    length by the IP header. Addresses are 16 octets, IPv4 as ::ffff:a.b.c.d. Ports are 0 where a protocol has none;
    ICMP echo has its identifier in both.
    """

    data: UInt8
    time_ns: Int64
    link_at: Int64
    at: Int64
    end: Int64
    octets: Int64
    version: Int64
    protocol: Int64
    source: UInt8
    destination: UInt8
    hop_limit: Int64
    transport_at: Int64
    transport_octets: Int64
    identification: Int64
    fragment_octets: Int64
    more: Bool
    source_port: Int64
    destination_port: Int64
    malformed: Bool

    def __len__(self) -> int:
        return len(self.time_ns)

    def taken(self, rows: Int64) -> Frames:
        """The chosen rows in the chosen order, over the same data."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "data"}
        return Frames(self.data, **{name: column[rows] for name, column in columns.items()})

    def packet(self, row: int) -> bytes:
        """A row's captured octets from its IP header (or ethertype) on."""
        return self.data[self.at[row] : self.end[row]].tobytes()


def read_frames(paths: Sequence[Path], keep: Callable[[Frames], Bool] | None = None) -> tuple[Frames, Counter[str]]:
    """Read captures into one table sorted by time, with the number of records left out by reason.

    With `keep` only what it chooses stays in memory, block by block. Raises InvalidCapture when a file is none.
    """
    if not paths:
        raise InvalidCapture(Path(), "no file", "at least one capture")
    skipped: Counter[str] = Counter()
    tables = []
    for path in paths:
        with opened(Path(path), skipped) as reader:
            while not reader.ended:
                table, unreadable = frames(reader.read(_STEP_OCTETS))
                skipped.update(unreadable)
                tables.append(table if keep is None else _alone(table.taken(np.flatnonzero(keep(table)))))
    table = _joined(tables)
    return table.taken(np.argsort(table.time_ns, kind="stable")), skipped


def frames(records: Records) -> tuple[Frames, Counter[str]]:
    """The header columns of records in their order, and how many have no readable address, by reason."""
    octets, end = Octets(records.data), records.offset + records.captured
    wire_end = records.offset + records.wire
    reasons = Reasons(len(records))
    at, kind = to_network(octets, records.offset, end, link_kinds(records.link_type, reasons), reasons)
    promised = reasons.good()
    headers = ip_headers(octets, at, end, wire_end, kind, reasons)
    version = headers.version.astype(np.int64)
    fixed = np.where(version == 4, _IPV4_OCTETS, _IPV6_OCTETS)
    readable = promised & np.isin(version, (4, 6)) & (at + fixed <= end)
    no_ip = ~readable & _without_ip(octets, records, end)
    malformed = readable & ~reasons.good()
    protocol = np.where(readable, headers.protocol.astype(np.int64), NO_IP)
    at = np.where(no_ip, records.offset + _ADDRESS_OCTETS, at)
    length = np.where(no_ip, wire_end - at, np.where(malformed, end - at, headers.octets))
    transport_at = np.where(no_ip, at, np.clip(headers.transport_at, at, np.maximum(end, at)))
    transport_octets = np.where(no_ip, wire_end - at, np.maximum(headers.transport_octets, 0))
    whole = readable & (headers.fragment_octets == 0) & ~malformed
    source_port, destination_port = _ports(octets, protocol, transport_at, end, whole)
    malformed |= _bad_transport(octets, protocol, transport_at, transport_octets, end, whole & ~headers.more)
    table = Frames(
        data=records.data,
        time_ns=records.time_ns,
        link_at=records.offset,
        at=at,
        end=end,
        octets=length,
        version=np.where(readable, version, 0),
        protocol=protocol,
        source=headers.source,
        destination=headers.destination,
        hop_limit=headers.hop_limit.astype(np.int64),
        transport_at=transport_at,
        transport_octets=transport_octets,
        identification=headers.identification.astype(np.int64),
        fragment_octets=headers.fragment_octets.astype(np.int64),
        more=headers.more,
        source_port=source_port,
        destination_port=destination_port,
        malformed=malformed,
    )
    usable = readable | no_ip
    unreadable: Counter[str] = Counter({"no_readable_address": int((~usable).sum())} if (~usable).any() else {})
    return table.taken(np.flatnonzero(usable)), unreadable


def _without_ip(octets: Octets, records: Records, end: Int64) -> Bool:
    """Ethernet frames whose type, behind any VLAN tag, is not IP: ARP, LLDP, spanning tree and the like."""
    at = records.offset + _ADDRESS_OCTETS
    ethernet: Bool = (records.link_type == _ETHERNET) & (at + 2 <= end)
    kind = octets.u2(at)
    for tag in range(1, 3):
        tagged = np.isin(kind, (0x8100, 0x88A8)) & (at + 4 * tag + 2 <= end)
        kind = np.where(tagged, octets.u2(at + 4 * tag), kind)
    without: Bool = ethernet & ~np.isin(kind, (0x0800, 0x86DD))
    return without


def _ports(octets: Octets, protocol: Int64, at: Int64, end: Int64, whole: Bool) -> tuple[Int64, Int64]:
    with_ports = whole & np.isin(protocol, WITH_PORTS) & (at + 4 <= end)
    source = np.where(with_ports, octets.u2(at), 0).astype(np.int64)
    destination = np.where(with_ports, octets.u2(at + 2), 0).astype(np.int64)
    identifier = octets.u2(at + 4).astype(np.int64)
    for number, kinds in _ECHO.items():
        echo = whole & (protocol == number) & (at + 6 <= end) & np.isin(octets.u1(at), kinds)
        source, destination = np.where(echo, identifier, source), np.where(echo, identifier, destination)
    return source, destination


def _bad_transport(octets: Octets, protocol: Int64, at: Int64, length: Int64, end: Int64, whole: Bool) -> Bool:
    """Headers that no stack would have sent: too short for their protocol, or TCP flags that exclude each other."""
    bad = np.zeros(len(protocol), np.bool_)
    for number, least in _LEAST_OCTETS.items():
        bad |= whole & (protocol == number) & (length < least)
    tcp = whole & (protocol == TCP) & (at + 14 <= end)
    header = (octets.u1(at + 12) >> 4).astype(np.int64) * 4
    flags = octets.u1(at + 13)
    bad |= tcp & ((header < _LEAST_OCTETS[TCP]) | (header > length))
    bad |= tcp & (((flags & 0x03) == 0x03) | ((flags & 0x06) == 0x06) | ((flags & 0x3F) == 0))
    udp = whole & (protocol == UDP) & (at + 6 <= end)
    said = octets.u2(at + 4)
    bad |= udp & (said > 0) & ((said < _LEAST_OCTETS[UDP]) | (said > length))
    return bad


def _alone(table: Frames) -> Frames:
    """The same rows over a copy of their own octets only."""
    length = table.end - table.link_at
    begin = np.cumsum(length) - length
    moved = table.link_at - begin
    data = table.data[np.repeat(moved, length) + np.arange(int(length.sum()))]
    places = {name: getattr(table, name) - moved for name in _POSITIONS}
    return replace(table, data=np.append(data, np.zeros(SLACK_OCTETS, np.uint8)), **places)


def _joined(tables: Sequence[Frames]) -> Frames:
    """One table of all rows in the order of the tables."""
    if len(tables) == 1:
        return tables[0]
    begins = np.cumsum([0] + [len(table.data) for table in tables[:-1]])
    columns = {}
    for name in (f.name for f in fields(Frames)):
        parts = [getattr(table, name) for table in tables]
        if name in _POSITIONS:
            parts = [part + begin for part, begin in zip(parts, begins, strict=True)]
        columns[name] = np.concatenate(parts)
    return Frames(**columns)
