"""How the network and the other end met each flow, and how it ended. Knows flags and ICMP errors, no payload."""

from __future__ import annotations

from collections import Counter

import numpy as np

from replay.biflow import ENDED_BY_ACTIVE, ENDED_BY_IDLE, ENDED_BY_SYN, Biflows, Timeouts, endpoint_words
from replay.columns import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, Bool, Int64, Packets

_FRAGMENTATION_NEEDED = 4
_UNREACHABLE, _UNREACHABLE_V6 = 3, 1
_CLOSES = np.array(["none", "fin_forward", "fin_reverse", "rst_forward", "rst_reverse"], dtype=object)
_OUTCOMES = np.array(["unanswered", "denied", "reset", "accepted"], dtype=object)


class FlagsByFlow:
    """Which flows have at least one packet of a kind."""

    def __init__(self, packets: Packets, flows: Biflows) -> None:
        rows = flows.packet
        self.flags = packets.tcp_flags[rows]
        self.is_tcp = packets.protocol[rows] == TCP
        self.reverse = flows.direction == 1
        self._flow, self._count = flows.flow, len(flows)

    def any(self, where: Bool) -> Bool:
        """The flows with at least one packet of the mask."""
        seen: Bool = np.bincount(self._flow[where], minlength=self._count) > 0
        return seen

    def has(self, mask: int, value: int) -> Bool:
        """The TCP packets whose flags under the mask are the value."""
        having: Bool = self.is_tcp & ((self.flags & mask) == value)
        return having


def outcomes(packets: Packets, flows: Biflows, skipped: Counter[str]) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """accepted, reset, denied or unanswered, for every flow.

    TCP is accepted when the SYN was answered or anything was acknowledged after it, reset when a RST was the
    answer; a RST that ends a flow joined in mid-stream is no answer to a SYN unless its sequence number is 0
    (RFC 9293, 3.10.7.1). Denied is an ICMP destination unreachable that quotes the initiator's packet, and no
    answer. Other protocols: any answer accepts.
    """
    by = FlagsByFlow(packets, flows)
    shaken = by.has(SYN | ACK, SYN | ACK) & by.reverse
    established = by.has(SYN | RST | ACK, ACK)
    refused = by.has(RST, RST) & by.reverse
    answers_syn = packets.sequence[flows.packet] == 0
    joined = ~by.any(by.has(SYN, SYN))[flows.flow] & refused & ~answers_syn
    answered = by.any(shaken | established | joined | (~by.is_tcp & by.reverse))
    reset = by.any(refused)
    rank = np.where(_denied(packets, flows, skipped), 1, 0)
    rank = np.where(reset, 2, rank)
    rank = np.where(answered, 3, rank)
    return _OUTCOMES[rank]


def closes(packets: Packets, flows: Biflows) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Who closed each TCP flow first and how: fin_forward, fin_reverse, rst_forward, rst_reverse or none."""
    rows = flows.packet
    flags = np.where(packets.protocol[rows] == TCP, packets.tcp_flags[rows], 0)
    place = np.flatnonzero(flags & (FIN | RST))
    flow, first = np.unique(flows.flow[place], return_index=True)
    place = place[first]
    number = np.zeros(len(flows), np.int64)
    number[flow] = 1 + flows.direction[place] + np.where(flags[place] & RST, 2, 0)
    return _CLOSES[number]


def end_reasons(packets: Packets, flows: Biflows, timeouts: Timeouts) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Why each record ended (RFC 5102 flowEndReason): idle, active, end_of_flow or forced (the capture ended first)."""
    reasons = np.full(len(flows), "forced", dtype=object)
    if not len(flows):
        return reasons
    by = FlagsByFlow(packets, flows)
    finished = by.any(by.has(RST, RST)) | (
        by.any(by.has(FIN, FIN) & by.reverse) & by.any(by.has(FIN, FIN) & ~by.reverse)
    )
    if timeouts.idle_ns is not None:
        last_ns = packets.time_ns[flows.packet[flows.start[1:] - 1]]
        reasons[packets.time_ns[-1] - last_ns > timeouts.idle_ns] = "idle"
    for kind, reason in ((ENDED_BY_IDLE, "idle"), (ENDED_BY_ACTIVE, "active"), (ENDED_BY_SYN, "end_of_flow")):
        reasons[flows.cut_by == kind] = reason
    reasons[finished] = "end_of_flow"
    return reasons


def _denied(packets: Packets, flows: Biflows, skipped: Counter[str]) -> Bool:
    denied = np.zeros(len(flows), np.bool_)
    quotes = packets.quotes
    if not len(quotes):
        return denied
    flow, forward = _quoted_flows(packets, flows)
    if (flow < 0).any():
        skipped["icmp_error_without_flow"] += int((flow < 0).sum())
    kind, code, protocol = (
        column[quotes.packet] for column in (packets.icmp_type, packets.icmp_code, packets.protocol)
    )
    refuses = (protocol == ICMP) & (kind == _UNREACHABLE) & (code != _FRAGMENTATION_NEEDED)
    refuses |= (protocol == ICMPV6) & (kind == _UNREACHABLE_V6)
    denied[flow[refuses & forward & (flow >= 0)]] = True
    return denied


def _quoted_flows(packets: Packets, flows: Biflows) -> tuple[Int64, Bool]:
    """The flow that each ICMP error speaks of (-1: none), and whether the quoted packet went forward."""
    quotes = packets.quotes
    wanted, wanted_greater = endpoint_words(
        quotes.source_address, quotes.destination_address, quotes.source_port, quotes.destination_port,
        quotes.protocol, quotes.version,
    )  # fmt: skip
    place = flows.start[:-1]
    row = flows.packet[place]
    words, greater = endpoint_words(
        packets.source_address[row], packets.destination_address[row], packets.source_port[row],
        packets.destination_port[row], packets.protocol[row], packets.version[row],
    )  # fmt: skip
    asked = {key.tobytes() for key in wanted}
    candidates: dict[bytes, list[int]] = {}
    for number, key in enumerate(words):
        if (known := key.tobytes()) in asked:
            candidates.setdefault(known, []).append(number)
    started_ns = packets.time_ns[row]
    flow = np.full(len(quotes), -1, np.int64)
    for number, key in enumerate(wanted):
        at_ns = packets.time_ns[quotes.packet[number]]
        same = candidates.get(key.tobytes(), [])
        flow[number] = max((one for one in same if started_ns[one] <= at_ns), default=same[0] if same else -1)
    forward_greater = greater ^ (flows.direction[place] == 1)
    return flow, (flow >= 0) & (forward_greater[np.maximum(flow, 0)] == wanted_greater) if len(flows) else flow >= 0
