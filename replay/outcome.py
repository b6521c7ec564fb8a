"""How the network and the other end met each flow, and how it ended. Knows what was seen of a flow, no packet."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from replay.biflow import ACTIVE, IDLE, NEW_SYN
from replay.columns import FIN, RST, SYN, TCP, Bool
from replay.flow_table import ESTABLISHED, RST_NUMBERED, SYN_ACK, TRUNCATED, Ended

Numbers = npt.NDArray[np.integer[Any]]
Texts = pd.api.extensions.ExtensionArray
_CLOSES = pd.array(["none", "fin_forward", "fin_reverse", "rst_forward", "rst_reverse"], dtype="str")
_OUTCOMES = pd.array(["unanswered", "denied", "reset", "accepted"], dtype="str")
_REASONS = pd.array(["forced", "idle", "active", "end_of_flow"], dtype="str")
_GRADES = pd.array(["payload", "sizes"], dtype="str")


def turned(ended: Ended, name: str) -> tuple[Numbers, Numbers]:
    """A column that is kept by end, as that of the initiator and that of the responder."""
    both, forward = ended.records[name], ended.records["forward"].astype(np.intp)
    place = np.arange(len(both))
    return both[place, forward], both[place, 1 - forward]


def outcomes(ended: Ended) -> Texts:
    """accepted, reset, denied or unanswered, for every flow.

    TCP is accepted when the SYN was answered or anything was acknowledged after it, reset when a RST was the
    answer; a RST that ends a flow joined in mid-stream is no answer to a SYN unless its sequence number is 0
    (RFC 9293, 3.10.7.1). Denied is an ICMP destination unreachable that quotes the initiator's packet, and no
    answer. Other protocols: any answer accepts.
    """
    forward, reverse = turned(ended, "facts")
    is_tcp = ended.ends.protocol == TCP
    either = forward | reverse
    joined = _has(reverse, RST_NUMBERED) & ~_has(either, SYN)
    answered = _has(reverse, SYN_ACK) | _has(either, ESTABLISHED) | joined
    answered |= ~is_tcp & (turned(ended, "packets")[1] > 0)
    denied = (ended.records["denied"] >> ended.records["forward"]) & 1
    rank = np.where(denied == 1, 1, 0)
    rank = np.where(_has(reverse, RST), 2, rank)
    rank = np.where(answered, 3, rank)
    return _OUTCOMES.take(rank)


def closes(ended: Ended) -> Texts:
    """Who closed each TCP flow first and how: fin_forward, fin_reverse, rst_forward, rst_reverse or none."""
    kept = ended.records["close"].astype(np.int64)
    by_greater = (kept - 1) & 1
    number = 1 + (by_greater ^ ended.records["forward"]) + np.where(kept > 2, 2, 0)
    return _CLOSES.take(np.where(kept == 0, 0, number))


def end_reasons(ended: Ended) -> Texts:
    """Why each record ended (RFC 5102 flowEndReason): idle, active, end_of_flow or forced (the stream ended first)."""
    cut_by = ended.records["cut_by"]
    forward, reverse = turned(ended, "facts")
    over = _has(forward | reverse, RST) | (_has(forward, FIN) & _has(reverse, FIN))
    number = np.zeros(len(ended), np.int64)
    for kind, reason in ((IDLE, 1), (ACTIVE, 2), (NEW_SYN, 3)):
        number[cut_by == kind] = reason
    return _REASONS.take(np.where(over, 3, number))


def grades(ended: Ended) -> Texts:
    """payload when every byte from the start is at hand; sizes when some were not captured or the start was missed."""
    forward, reverse = turned(ended, "facts")
    missed_start = (ended.ends.protocol == TCP) & ~_has(forward | reverse, SYN)
    incomplete = _has(forward | reverse, TRUNCATED) | ended.torn.any(axis=1)
    return _GRADES.take((missed_start | incomplete).astype(np.int64))


def _has(facts: Numbers, fact: int) -> Bool:
    having: Bool = (facts & np.uint16(fact)) != 0
    return having
