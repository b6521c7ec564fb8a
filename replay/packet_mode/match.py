"""The same packet at both ends: what left and what arrived, by the taps' kernel stamps and an invariant hash.

Pure but for reading the taps' files. Routers lower hop limits, translators change addresses, ports, ICMP identifiers
and checksums; what they leave alone is hashed: protocol, length and the first octets behind the IP header without
those fields. Packets that are alike to the octet are told apart by their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from replay.columns import ICMP, ICMPV6, SYN, TCP, UDP, Bool, Int64
from replay.headers.octets import Octets
from replay.packet_mode.frames import DCCP, SCTP, UDPLITE, Frames, read_frames
from replay.packet_mode.plan import NOBODY, PacketPlan, Program

UInt64 = npt.NDArray[np.uint64]

UNSEEN = -1
SNAPLEN = 128
"""What the taps keep of a packet; a program's frames are hashed as far as a tap would have kept them."""

_HASHED_OCTETS = 64
_MULTIPLIERS = np.random.default_rng(0x5EED).integers(1, 1 << 63, 12, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
# (begin, end) of what a translator rewrites in each transport header, counted from its first octet
_REWRITTEN: Mapping[int, tuple[tuple[int, int], ...]] = {
    TCP: ((0, 4), (16, 18)),
    UDP: ((0, 4), (6, 8)),
    UDPLITE: ((0, 4), (6, 8)),
    DCCP: ((0, 4), (6, 8)),
    SCTP: ((0, 4), (8, 12)),
    ICMP: ((2, 6),),
    ICMPV6: ((2, 6),),
}
_SYN_STABLE_OCTETS = 14
_QUOTES_BEGIN = 8
_LINK_SOURCE_AT = 6
_UNREACHABLE = {ICMP: 3, ICMPV6: 1}


@dataclass(frozen=True, slots=True)
class Matched:
    """`passages`: a row a frame of the program, in its order; `unreachable`: what routers said could not be delivered.

    Columns: row (of the plan), flow, direction, octets (of the IP packet), due_ns, sent_ns and arrived_ns (kernel
    stamps, UNSEEN where no tap saw it), node (where it arrived), duplicates. `unreachable` has (source, destination,
    protocol), addresses as 16 octets.
    """

    passages: pd.DataFrame
    unreachable: frozenset[tuple[bytes, bytes, int]]


def matched(plan: PacketPlan, program: Program, taps: Mapping[str, Path]) -> Matched:
    """Find every frame of a program at its sender's tap and at whichever end point it came to."""
    ours = program.frames(SNAPLEN)
    nodes = list(dict.fromkeys((*plan.nodes, *taps)))
    number = {node: index for index, node in enumerate(nodes)}
    left, came, refused = [], [], set()
    for node, path in taps.items():
        seen, _ = read_frames([path])
        own = _sent_by(seen, program.macs.get(node, frozenset()))
        table = _keys(seen, np.full(len(seen), number[node], np.int64))
        left.append(table[own])
        came.append(table[~own])
        refused |= _unreachable(seen, np.flatnonzero(~own))
    sent = _keys(ours, plan.sender[program.row])
    outgoing = pd.concat(left, ignore_index=True) if left else sent.iloc[:0]
    incoming = pd.concat(came, ignore_index=True) if came else sent.iloc[:0]
    stamps = _paired(sent, outgoing, (["node", "hash", "identification", "ends"],))
    passages = pd.DataFrame(
        {
            "row": program.row,
            "flow": plan.flow[program.row],
            "direction": plan.direction[program.row],
            "octets": ours.octets,
            "due_ns": program.due_ns,
            "sent_ns": _looked_up(stamps, outgoing["time_ns"]),
        }
    )
    sent["node"] = plan.receiver[program.row]
    sent["time_ns"] = passages["sent_ns"]
    incoming = incoming.sort_values("time_ns", kind="stable", ignore_index=True)
    pairs = _paired(
        sent,
        incoming,
        (
            ["node", "hash", "identification", "ends"],
            ["node", "hash", "identification"],
            ["node", "hash"],
            ["hash", "identification"],
            ["hash"],
        ),
    )
    passages["arrived_ns"] = _looked_up(pairs, incoming["time_ns"])
    where = _looked_up(pairs, incoming["node"])
    passages["node"] = [nodes[at] if at != UNSEEN else "" for at in where.tolist()]
    passages["duplicates"] = _duplicates(sent, incoming, pairs)
    return Matched(passages, frozenset(refused))


def reordered(passages: pd.DataFrame) -> Bool:
    """Which arrivals came behind one that was sent after them, in their flow and direction (RFC 4737, 3.3)."""
    late = np.zeros(len(passages), np.bool_)
    arrived = np.flatnonzero(passages["arrived_ns"].to_numpy() != UNSEEN)
    flow, direction = passages["flow"].to_numpy(), passages["direction"].to_numpy()
    order = arrived[np.argsort(passages["arrived_ns"].to_numpy()[arrived], kind="stable")]
    highest: dict[tuple[int, int], int] = {}
    for at in order.tolist():
        key = (int(flow[at]), int(direction[at]))
        late[at] = at < highest.get(key, -1)
        highest[key] = max(at, highest.get(key, -1))
    return late


def signatures(table: Frames) -> UInt64:
    """What of each packet no router and no translator changes, hashed to 64 bits."""
    span = np.arange(_HASHED_OCTETS)
    at = table.transport_at[:, None] + span
    kept = np.minimum(table.end - table.transport_at, table.transport_octets)
    octets = np.where(span < kept[:, None], table.data[np.minimum(at, len(table.data) - 1)], 0).astype(np.uint8)
    headed = (table.fragment_octets == 0) & ~table.malformed
    for protocol, places in _REWRITTEN.items():
        mine = np.flatnonzero(headed & (table.protocol == protocol))
        for begin, end in places:
            octets[mine, begin:end] = 0
    syn = np.flatnonzero(headed & (table.protocol == TCP) & (octets[:, 13] & SYN > 0))
    octets[syn, _SYN_STABLE_OCTETS:] = 0
    quoting = np.flatnonzero(headed & _is_error(table.protocol, octets[:, 0]))
    octets[quoting, 2:] = 0
    words = np.ascontiguousarray(octets).view(np.uint64)
    columns = [words[:, place] for place in range(words.shape[1])]
    columns += [table.transport_octets.astype(np.uint64), (table.protocol + 1).astype(np.uint64)]
    columns += [(table.fragment_octets * 2 + table.more).astype(np.uint64)]
    return _mixed(columns)


def _mixed(columns: Sequence[UInt64]) -> UInt64:
    total = np.zeros(len(columns[0]), np.uint64)
    for column, multiplier in zip(columns, _MULTIPLIERS, strict=False):
        spread = (column ^ (column >> np.uint64(31))) * multiplier
        total = (total ^ (total >> np.uint64(29))) * _MULTIPLIERS[0] + spread
    return total ^ (total >> np.uint64(32))


def _is_error(protocol: Int64, kind: npt.NDArray[np.uint8]) -> Bool:
    error: Bool = (protocol == ICMP) & np.isin(kind, (3, 4, 5, 11, 12))
    error |= (protocol == ICMPV6) & (kind >= 1) & (kind <= 4)
    return error


def _sent_by(seen: Frames, macs: frozenset[bytes]) -> Bool:
    """Which frames of a tap left there: those from the node's own MACs."""
    numbers = np.array([int.from_bytes(mac, "big") for mac in macs], np.int64)
    octets, at = Octets(seen.data), seen.link_at + _LINK_SOURCE_AT
    own: Bool = np.isin(octets.u2(at).astype(np.int64) << 32 | octets.u4(at + 2).astype(np.int64), numbers)
    return own


def _keys(seen: Frames, node: Int64) -> pd.DataFrame:
    words = [np.ascontiguousarray(column).view(np.uint64) for column in (seen.source, seen.destination)]
    ends = [word[:, place] for word in words for place in (0, 1)]
    ports = (seen.source_port * 65_536 + seen.destination_port).astype(np.uint64)
    return pd.DataFrame(
        {
            "node": node,
            "time_ns": seen.time_ns,
            "hash": signatures(seen),
            "identification": seen.identification,
            "ends": _mixed([*ends, ports]),
        }
    )


def _paired(sent: pd.DataFrame, seen: pd.DataFrame, passes: tuple[list[str], ...]) -> Int64:
    """For each sent frame the row of `seen` that is the same packet, or UNSEEN: the strictest likeness first.

    Alike frames are paired in their order; nothing arrives before it was sent.
    """
    pairs = np.full(len(sent), UNSEEN, np.int64)
    free = np.ones(len(seen), np.bool_)
    moment, came = sent["time_ns"].to_numpy(), seen["time_ns"].to_numpy()
    for keys in passes:
        one = sent[pairs == UNSEEN]
        if "node" in keys:
            one = one[one["node"] != NOBODY]
        one, other = one[keys].copy(), seen[free][keys].copy()
        if one.empty or other.empty:
            continue
        for table in (one, other):
            table["place"] = table.index
            table["occurrence"] = table.groupby(keys, sort=False).cumcount()
        both = one.merge(other, on=[*keys, "occurrence"], suffixes=("_sent", "_seen"))
        here, there = both["place_sent"].to_numpy(dtype=np.int64), both["place_seen"].to_numpy(dtype=np.int64)
        possible = came[there] >= np.where(_is_stamp(moment[here]), moment[here], 0)
        pairs[here[possible]] = there[possible]
        free[there[possible]] = False
    return pairs


def _is_stamp(moment: Int64) -> Bool:
    """Whether a moment is the kernel's (since 1970), not one of a plan."""
    stamp: Bool = moment > 1 << 60
    return stamp


def _looked_up(pairs: Int64, column: pd.Series[int]) -> Int64:
    values = column.to_numpy(dtype=np.int64)
    if not len(values):
        return np.full(len(pairs), UNSEEN, np.int64)
    return np.where(pairs == UNSEEN, UNSEEN, values[np.maximum(pairs, 0)])


def _duplicates(sent: pd.DataFrame, incoming: pd.DataFrame, pairs: Int64) -> Int64:
    """How many more copies of each matched frame came to where it arrived."""
    counts = np.zeros(len(sent), np.int64)
    matched_rows = np.flatnonzero(pairs != UNSEEN)
    spare = np.ones(len(incoming), np.bool_)
    spare[pairs[matched_rows]] = False
    if not spare.any() or not len(matched_rows):
        return counts
    keys = ["node", "hash", "identification"]
    arrived = incoming.iloc[pairs[matched_rows]][keys].assign(sent=matched_rows).drop_duplicates(keys)
    copies = incoming[spare][keys].merge(arrived, on=keys)
    np.add.at(counts, copies["sent"].to_numpy(dtype=np.int64), 1)
    return counts


def _unreachable(seen: Frames, rows: Int64) -> set[tuple[bytes, bytes, int]]:
    """Source, destination and protocol of the packets that ICMP destination unreachable quotes."""
    found = set()
    kind = Octets(seen.data).u1(seen.transport_at)
    for row in rows[np.isin(seen.protocol[rows], tuple(_UNREACHABLE))].tolist():
        if kind[row] != _UNREACHABLE[int(seen.protocol[row])]:
            continue
        quoted = seen.data[seen.transport_at[row] + _QUOTES_BEGIN : seen.end[row]].tobytes()
        if seen.version[row] == 4 and len(quoted) >= 20:
            mapped = bytes(10) + b"\xff\xff"
            found.add((mapped + quoted[12:16], mapped + quoted[16:20], quoted[9]))
        elif len(quoted) >= 40:
            found.add((quoted[8:24], quoted[24:40], quoted[6]))
    return found
