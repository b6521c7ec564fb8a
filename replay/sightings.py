"""When a tap first saw an octet of a stream pass: the kernel's stamps, looked up by stream offset.

Knows nothing of the player. First sight means first transmission at the sender's tap and first
arrival at the receiver's. A datagram's offset is its ordinal among its flow's in that direction.
"""

from collections.abc import Sequence
from ipaddress import ip_address

import numpy as np
import numpy.typing as npt
import pandas as pd

Int64 = npt.NDArray[np.int64]
Endpoint = tuple[str, int]
_OFFSET_BITS = 40
_SYN = 0x02
_ACK = 0x10
_TCP = 6
UNSEEN = -1


class Sightings:
    """One tap's metered packets, ready to be asked."""

    def __init__(self, flows: pd.DataFrame, segments: pd.DataFrame) -> None:
        self._by_tuple: dict[tuple[int, Endpoint, Endpoint], list[tuple[int, int]]] = {}
        codes = {flow_id: code for code, flow_id in enumerate(flows["flow_id"].tolist())}
        columns = ("protocol", "source_address", "source_port", "destination_address", "destination_port", "start_ns")
        rows = zip(*(flows[name].tolist() for name in columns), strict=True)
        for code, (protocol, source, source_port, target, target_port, start) in enumerate(rows):
            key = (int(protocol), endpoint(source, source_port), endpoint(target, target_port))
            self._by_tuple.setdefault(key, []).append((int(start), code))
        code_of = segments["flow_id"].map(codes).to_numpy(dtype=np.int64)
        self._side = code_of * 2 + segments["direction"].to_numpy(dtype=np.int64)
        self._time = segments["time_ns"].to_numpy(dtype=np.int64)
        self._octets = segments["octets"].to_numpy(dtype=np.int64)
        self._again = segments["retransmission"].to_numpy(dtype=bool)
        self._flags = segments["tcp_flags"].to_numpy(dtype=np.int64)
        offset = segments["stream_offset"].to_numpy(dtype=np.int64)
        protocol_of = flows["protocol"].to_numpy(dtype=np.int64)
        self._index(offset, protocol_of[code_of] != _TCP if len(flows) else self._again)
        self._sides = 2 * len(flows)

    def _index(self, offset: Int64, datagram: npt.NDArray[np.bool_]) -> None:
        data = np.flatnonzero(((self._octets > 0) | datagram) & ~self._again)
        data = data[np.lexsort((self._time[data], self._side[data]))]
        side, is_datagram = self._side[data], datagram[data]
        begins = np.searchsorted(side, side, "left")
        start = np.where(is_datagram, np.arange(len(data)) - begins, np.maximum(offset[data], 0))
        length = np.where(is_datagram, 1, self._octets[data])
        key = (side << _OFFSET_BITS) + start
        order = np.lexsort((self._time[data], key))
        key, first = np.unique(key[order], return_index=True)
        self._key = key
        self._end = key + length[order][first]
        self._seen = self._time[data][order][first]

    def find(self, protocol: int, source: Endpoint, target: Endpoint, at_ns: int, *, accepted: bool) -> int:
        """The side number of source → target (its reverse is that number ^ 1), or UNSEEN.

        A five-tuple may come twice in a window: the flow is the first that began after a client's
        attempt, or the last that began before a server accepted it.
        """
        for flip, key in enumerate(((protocol, source, target), (protocol, target, source))):
            found = self._by_tuple.get(key)
            if not found:
                continue
            if accepted:
                code = max((f for f in found if f[0] <= at_ns), default=min(found))[1]
            else:
                code = min((f for f in found if f[0] >= at_ns), default=max(found))[1]
            return 2 * code + flip
        return UNSEEN

    def first_seen(self, side: Int64, offset: Int64) -> Int64:
        """When the octet at `offset` of each `side` first passed; UNSEEN where it never did."""
        if not len(self._key):
            return np.full(len(side), UNSEEN, dtype=np.int64)
        wanted = (side << _OFFSET_BITS) + offset
        at = np.searchsorted(self._key, wanted, "right") - 1
        good = (side >= 0) & (offset >= 0) & (at >= 0)
        at = np.maximum(at, 0)
        good &= (self._key[at] <= wanted) & (wanted < self._end[at])
        return np.where(good, self._seen[at], UNSEEN)

    def all_seen(self, side: Int64, start: Int64, end: Int64) -> Int64:
        """When the last of the octets [start, end) first passed; UNSEEN where the final one did not.

        That is not when the final octet did: a lost one before it may have come later.
        """
        final = self.first_seen(side, end - 1)
        good = np.flatnonzero(final != UNSEEN)
        if not len(good):
            return final
        begin = np.searchsorted(self._key, (side[good] << _OFFSET_BITS) + start[good], "right") - 1
        until = np.searchsorted(self._key, (side[good] << _OFFSET_BITS) + end[good] - 1, "right")
        begin = np.clip(begin, 0, until - 1)
        order = np.argsort(begin, kind="stable")
        edges = np.column_stack([begin[order], until[order]]).ravel()
        latest = np.maximum.reduceat(np.append(self._seen, UNSEEN), edges)[::2]
        final[good[order]] = latest
        return final

    def first_packet(self, side: Int64, *, flags: int, without: int = 0) -> Int64:
        """When a packet with these TCP flags first passed on each side; UNSEEN where none did."""
        fits = (self._flags & flags == flags) & (self._flags & without == 0)
        first = np.full(self._sides + 1, np.iinfo(np.int64).max, dtype=np.int64)
        np.minimum.at(first, self._side[fits], self._time[fits])
        first[first == np.iinfo(np.int64).max] = UNSEEN
        return self._pick(first, side, UNSEEN)

    def syn(self, side: Int64) -> Int64:
        """When each side's first SYN without ACK passed."""
        return self.first_packet(side, flags=_SYN, without=_ACK)

    def syn_ack(self, side: Int64) -> Int64:
        """When each side's first SYN with ACK passed."""
        return self.first_packet(side, flags=_SYN | _ACK)

    def retransmits(self, side: Int64) -> Int64:
        """Packets sent again (SYNs too), octets sent again, octets sent: a row for each side."""
        size = self._sides + 1
        syn = (self._flags & _SYN != 0) & (self._octets == 0)
        syns = np.bincount(self._side[syn], minlength=size)
        again = np.bincount(self._side[self._again & ~syn], minlength=size)
        octets_again = np.bincount(self._side[self._again], weights=self._octets[self._again], minlength=size)
        octets = np.bincount(self._side, weights=self._octets, minlength=size)
        counts = again + np.maximum(syns - 1, 0)
        columns = (counts, octets_again, octets)
        return np.column_stack([self._pick(column.astype(np.int64), side, 0) for column in columns])

    def _pick(self, values: Int64, side: Int64, absent: int) -> Int64:
        return np.where(side >= 0, values[np.maximum(side, 0)], absent)


def endpoint(address: str, port: int) -> Endpoint:
    """Address and port in the one spelling that this room compares."""
    return (str(ip_address(address)) if ":" in address else address), int(port)


def by_node(
    taps: dict[str, Sightings], nodes: Sequence[str], side: Int64, start: Int64, end: Int64
) -> tuple[Int64, Int64]:
    """`first_seen` and `all_seen` of octet ranges that belong to different nodes' taps."""
    first = np.full(len(side), UNSEEN, dtype=np.int64)
    last = first.copy()
    of = np.asarray(nodes, dtype=object)
    for node, tap in taps.items():
        rows = np.flatnonzero(of == node)
        first[rows] = tap.first_seen(side[rows], start[rows])
        last[rows] = tap.all_seen(side[rows], start[rows], end[rows])
    return first, last
