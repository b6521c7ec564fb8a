"""Which datagram a fragment belongs to. Knows IP identities and times, nothing of what the datagrams carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.columns import Bool, Int64
from replay.ip_header import IpHeaders
from replay.reasons import Reasons

_REASSEMBLY_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Fragments:
    """What is needed to find a fragment's first one: when it passed and which IP datagram it is of."""

    time_ns: Int64
    ip: IpHeaders


def attributed(fragments: Fragments, reasons: Reasons) -> Int64:
    """The row of each record's first fragment: the record itself, unless it is a later fragment.

    A later fragment belongs to the latest first fragment of the same source, destination, protocol and
    identification before it, else to the next one after it, within 60 s (RFC 8200, 4.5); without one it is
    counted as `orphan_fragment`.
    """
    ip = fragments.ip
    first = np.arange(len(fragments.time_ns))
    rows = np.flatnonzero(reasons.good() & ((ip.fragment_octets > 0) | ip.more))
    if not len(rows):
        return first
    key = np.concatenate(
        (
            ip.source[rows],
            ip.destination[rows],
            ip.protocol[rows, None],
            ip.version[rows, None],
            ip.identification[rows].astype(">u4").view(np.uint8).reshape(-1, 4),
        ),
        axis=1,
    )
    _, group = np.unique(key, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    rows, group = rows[order], group[order]
    leads = ip.fragment_octets[rows] == 0
    place = np.arange(len(rows))
    before = np.maximum.accumulate(np.where(leads, place, -1))
    after = np.minimum.accumulate(np.where(leads, place, len(rows))[::-1])[::-1]
    usable_before = _same(before, group, place) & _near(before, rows, fragments.time_ns)
    usable_after = _same(after, group, place) & _near(after, rows, fragments.time_ns)
    chosen = np.where(usable_before, before, np.where(usable_after, after, place))
    reasons.fail_rows(rows[~leads & ~usable_before & ~usable_after], "orphan_fragment")
    first[rows] = rows[chosen]
    return first


def _same(other: Int64, group: Int64, place: Int64) -> Bool:
    inside = (other >= 0) & (other < len(group))
    same: Bool = inside & (group[np.where(inside, other, place)] == group)
    return same


def _near(other: Int64, rows: Int64, time_ns: Int64) -> Bool:
    inside = np.clip(other, 0, len(rows) - 1)
    near: Bool = np.abs(time_ns[rows[inside]] - time_ns[rows]) <= _REASSEMBLY_NS
    return near
