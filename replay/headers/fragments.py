"""Which datagram a fragment belongs to, across chunks. Knows IP identities and times, not what datagrams carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.columns import Bool, Int64, UInt8
from replay.headers.ip import IpHeaders
from replay.headers.transport import Transport

REASSEMBLY_NS = 60_000_000_000
MOST_HEADS = 1 << 14


@dataclass(frozen=True, slots=True)
class Heads:
    """First fragments of chunks before: identity, time, transport header, and the row each has in the whole stream."""

    key: UInt8
    time_ns: Int64
    transport: Transport
    row: Int64

    def __len__(self) -> int:
        return len(self.row)

    def after(self, others: Heads) -> Heads:
        """These below others."""
        return Heads(
            np.concatenate((others.key, self.key)),
            np.concatenate((others.time_ns, self.time_ns)),
            others.transport.followed_by(self.transport),
            np.concatenate((others.row, self.row)),
        )

    def taken(self, rows: Int64) -> Heads:
        """The chosen rows."""
        return Heads(self.key[rows], self.time_ns[rows], self.transport.taken(rows), self.row[rows])


def identities(ip: IpHeaders, rows: Int64) -> UInt8:
    """What the fragments of one datagram have in common, in 38 octets a row (RFC 791, 3.2; RFC 8200, 4.5)."""
    return np.concatenate(
        (
            ip.source[rows],
            ip.destination[rows],
            ip.protocol[rows, None],
            ip.version[rows, None],
            ip.identification[rows].astype(">u4").view(np.uint8).reshape(-1, 4),
        ),
        axis=1,
    )


def attributed(ip: IpHeaders, time_ns: Int64, good: Bool, heads: Heads | None) -> tuple[Int64, Int64]:
    """The row of every record's first fragment, and the later fragments that have none so far.

    A record is its own first fragment unless it is a later one. That belongs to the latest first fragment of the
    same identity before it, else to the next one after it, within 60 s. A row beyond the table's end is that of a
    head: `len(time_ns)` stands for heads' row 0.
    """
    count = len(time_ns)
    first = np.arange(count)
    rows = np.flatnonzero(good & ((ip.fragment_octets > 0) | ip.more))
    if not len(rows):
        return first, rows
    key, times, leads = identities(ip, rows), time_ns[rows], ip.fragment_octets[rows] == 0
    if heads is not None and len(heads):
        key = np.concatenate((heads.key, key))
        times = np.concatenate((heads.time_ns, times))
        leads = np.concatenate((np.ones(len(heads), np.bool_), leads))
        rows = np.concatenate((count + np.arange(len(heads)), rows))
    group = np.unique(key.view(f"V{key.shape[1]}").ravel(), return_inverse=True)[1].reshape(-1)
    order = np.argsort(group, kind="stable")
    rows, group, leads, times = rows[order], group[order], leads[order], times[order]
    place = np.arange(len(rows))
    before = np.maximum.accumulate(np.where(leads, place, -1))
    after = np.minimum.accumulate(np.where(leads, place, len(rows))[::-1])[::-1]
    usable_before = _same(before, group, place) & _near(before, times)
    usable_after = _same(after, group, place) & _near(after, times)
    chosen = np.where(usable_before, before, np.where(usable_after, after, place))
    here = rows < count
    first[rows[here]] = rows[chosen][here]
    return first, np.sort(rows[~leads & ~usable_before & ~usable_after])


def _same(other: Int64, group: Int64, place: Int64) -> Bool:
    inside = (other >= 0) & (other < len(group))
    same: Bool = inside & (group[np.where(inside, other, place)] == group)
    return same


def _near(other: Int64, times: Int64) -> Bool:
    inside = np.clip(other, 0, len(times) - 1)
    near: Bool = np.abs(times[inside] - times) <= REASSEMBLY_NS
    return near
