"""Records to packet columns, a chunk after another: the order of the headers, and what chunks have to know of others.

Every read stays in the buffer and is checked against the captured length, so hostile octets can only end in a reason.
Knows no file format and no flow. References: RFC 791, 8200, 9293, 768, 792, 4443.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from replay.capture.records import Records
from replay.columns import ICMP, ICMPV6, TCP, UDP, Int64, Packets, Quotes, UInt8
from replay.compiled import compiled
from replay.headers.fragments import MOST_HEADS, REASSEMBLY_NS, Heads, attributed, identities
from replay.headers.ip import IpHeaders, ip_headers
from replay.headers.link import NIBBLE, link_kinds, to_network
from replay.headers.octets import Octets
from replay.headers.ordinary import merged, ordinary_packets
from replay.headers.reasons import Reasons
from replay.headers.transport import ICMP_OCTETS, is_echo, transport_headers
from replay.headers.tunnels import Extent, Identity, unwrapped

_ICMP_ERRORS = (3, 4, 5, 11, 12)
_ICMPV6_ERRORS = (1, 2, 3, 4)
_ACK = 0x10


@dataclass(slots=True)
class Decoder:
    """Decodes the chunks of one stream; what is not a TCP, UDP or ICMP packet over IP is counted by reason.

    With `inner`, a tunnel's packet is replaced by the one inside. Ordinary packets are read by compiled code where
    `library` has it, all others here. Between chunks it keeps the latest first fragments
    (MOST_HEADS, 60 s), so that the later ones are told apart by what their first one says.
    """

    inner: bool = False
    skipped: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    library: ctypes.CDLL | None = field(default_factory=compiled)
    _heads: Heads | None = None
    _piecemeal: dict[Identity, None] = field(default_factory=dict)

    def decode(self, records: Records, awaited_from: int) -> tuple[Packets, int]:
        """The packets of time-sorted records up to the first that has to wait for its first fragment.

        Returns them with the number of records they were made from. Records before the row `awaited_from` do not
        wait: they are orphans by now.
        """
        ordinary, rows = None, np.arange(len(records))
        if self.library is not None and not self.inner:
            ordinary, rows = ordinary_packets(self.library, records)
        table = self._headers(records, rows)
        until = _decided(table, int(np.searchsorted(rows, awaited_from)))
        used = len(records) if until == len(rows) else int(rows[until])
        if used < len(records):
            rows = rows[:until]
            table = self._headers(records, rows)
        table.reasons.fail_rows(table.waiting, "orphan_fragment")
        keep = table.reasons.kept()
        is_kept = np.ones(used, np.bool_)
        is_kept[rows] = table.reasons.good()
        kept = np.flatnonzero(is_kept)
        place = np.searchsorted(kept, rows[keep])
        packets = _packets(table, keep, place, self._heads, self.rows)
        self._remember(table, keep, place)
        if ordinary is not None:
            packets = merged(ordinary, rows[keep], packets, kept, place)
        self.skipped.update(table.reasons.counter())
        self.rows += len(packets)
        return packets, used

    def _headers(self, records: Records, rows: Int64) -> _Headers:
        chosen = records if len(rows) == len(records) else records.taken(rows)
        return _Headers(chosen, self.inner, self._heads, self._piecemeal)

    def _remember(self, table: _Headers, keep: Int64, place: Int64) -> None:
        ip, time_ns = table.ip, table.records.time_ns
        first = np.flatnonzero(ip.more[keep] & (ip.fragment_octets[keep] == 0))
        if not len(first):
            return
        rows = keep[first]
        heads = Heads(identities(ip, rows), time_ns[rows], table.transport.taken(rows), self.rows + place[first])
        if self._heads is not None:
            heads = heads.after(self._heads)
        recent = np.flatnonzero(heads.time_ns >= heads.time_ns.max() - REASSEMBLY_NS)
        self._heads = heads.taken(recent[-MOST_HEADS:])


class _Headers:
    """The headers of every record of a table, and which later fragments wait for their first one."""

    def __init__(self, records: Records, inner: bool, heads: Heads | None, piecemeal: dict[Identity, None]) -> None:
        self.records = records
        self.reasons = reasons = Reasons(len(records))
        self.octets = octets = Octets(records.data)
        extent = Extent(records.offset + records.captured, records.offset + records.wire)
        kind = link_kinds(records.link_type, reasons)
        at, kind = to_network(octets, records.offset, extent.end, kind, reasons)
        self.ip: IpHeaders = ip_headers(octets, at, extent.end, extent.wire_end, kind, reasons)
        if inner:
            extent = unwrapped(octets, self.ip, extent, reasons, piecemeal)
        self.end = extent.end
        self.transport, self.payload_octets = transport_headers(octets, self.ip, self.end, reasons)
        self.first, self.waiting = attributed(self.ip, records.time_ns, reasons.good(), heads)


def _decided(table: _Headers, awaited_from: int) -> int:
    """How many records can be handed on: none of them waits for a first fragment, or has it among those that wait."""
    waiting = table.waiting[table.waiting >= awaited_from]
    if not len(waiting):
        return len(table.records)
    until = int(waiting[0])
    rows = np.arange(awaited_from, until)
    first = table.first[rows]
    ahead = (first > rows) & (first < len(table.records))
    rows, first = rows[ahead], first[ahead]
    while len(cut := rows[(rows < until) & (first >= until)]):
        until = int(cut[0])
    return until


def _packets(table: _Headers, keep: Int64, place: Int64, heads: Heads | None, rows_before: int) -> Packets:
    """The kept rows, whose places among the chunk's packets are given."""
    records, ip, transport = table.records, table.ip, table.transport
    count = len(records)
    protocol = ip.protocol[keep]
    fragmented = bool((ip.fragment_octets[keep] > 0).any())
    if not fragmented:
        said, datagram, beyond = transport.taken(keep), place, np.zeros(len(keep), np.int32)
        sequence, tcp_flags, header = said.sequence, said.tcp_flags, said.header_octets
    else:
        first = table.first[keep]
        row_of = np.zeros(count + (len(heads) if heads is not None else 0), np.int64)
        row_of[keep] = place
        known = transport
        if heads is not None:
            row_of[count:] = heads.row - rows_before
            known = transport.followed_by(heads.transport)
        said, datagram = known.taken(first), row_of[first]
        follows = ip.fragment_octets[keep] > 0
        beyond = np.where(follows, ip.fragment_octets[keep] - said.header_octets, 0).astype(np.int32)
        sequence = (said.sequence + np.where(protocol == TCP, beyond, 0)).astype(np.uint32)
        tcp_flags = np.where(follows, said.tcp_flags & _ACK, said.tcp_flags).astype(np.uint8)
        header = transport.header_octets[keep]
    payload_at = ip.transport_at[keep] + header
    payload_octets = table.payload_octets[keep]
    end = table.end[keep]
    return Packets(
        time_ns=records.time_ns[keep],
        protocol=protocol,
        version=ip.version[keep],
        source_address=_rows(ip.source, keep),
        destination_address=_rows(ip.destination, keep),
        source_port=said.source_port,
        destination_port=said.destination_port,
        sequence=sequence,
        acknowledgement=said.acknowledgement,
        tcp_flags=tcp_flags,
        hop_limit=ip.hop_limit[keep],
        payload_octets=payload_octets.astype(np.int32),
        captured_octets=np.clip(end - payload_at, 0, payload_octets).astype(np.int32),
        payload_offset=np.minimum(payload_at, end),
        ip_octets=ip.octets[keep].astype(np.int32),
        icmp_type=said.icmp_type,
        icmp_code=said.icmp_code,
        datagram=datagram,
        fragment_octets=beyond,
        quotes=_quotes(table, keep, place),
        data=records.data,
    )


def _rows(addresses: UInt8, rows: Int64) -> UInt8:
    """Rows of 16 octets, copied as wholes."""
    whole: npt.NDArray[np.void] = addresses.view("V16").ravel()
    return whole[rows].view(np.uint8).reshape(-1, 16)


def _quotes(table: _Headers, keep: Int64, place: Int64) -> Quotes:
    ip, octets, protocol = table.ip, table.octets, table.ip.protocol[keep]
    packet = np.flatnonzero((protocol == ICMP) | (protocol == ICMPV6))
    protocol, kind = protocol[packet], table.transport.icmp_type[keep[packet]]
    error = np.where(protocol == ICMP, np.isin(kind, _ICMP_ERRORS), np.isin(kind, _ICMPV6_ERRORS))
    packet = packet[error & (ip.fragment_octets[keep[packet]] == 0)]
    at, end = ip.transport_at[keep[packet]] + ICMP_OCTETS, table.end[keep[packet]]
    reasons = Reasons(len(packet))
    reasons.fail(at >= end, "truncated_quote")
    quoted = ip_headers(octets, at, end, end, np.full(len(at), NIBBLE, np.uint8), reasons, quoted=True)
    ports_at = quoted.transport_at
    echo = np.isin(quoted.protocol, (ICMP, ICMPV6))
    reasons.fail(ports_at + np.where(echo, 6, 4) > end, "truncated_quote")
    reasons.fail(~np.isin(quoted.protocol, (TCP, UDP, ICMP, ICMPV6)) | (quoted.fragment_octets > 0), "unusable_quote")
    source = octets.u2(np.where(echo, ports_at + 4, ports_at))
    destination = np.where(echo, source, octets.u2(ports_at + 2))
    other = echo & ~is_echo(octets.u1(ports_at), quoted.protocol == ICMPV6)
    source, destination = np.where(other, 0, source), np.where(other, 0, destination)
    kept = reasons.kept()
    return Quotes(
        packet=place[packet[kept]],
        protocol=quoted.protocol[kept],
        version=quoted.version[kept],
        source_address=quoted.source[kept],
        destination_address=quoted.destination[kept],
        source_port=source[kept].astype(np.uint16),
        destination_port=destination[kept].astype(np.uint16),
    )
