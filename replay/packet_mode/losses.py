"""Why packets did not arrive: what the network lost told apart from what the method itself loses.

Pure. The method loses what it could not send, and what a stateful device drops because packets alone, without stacks
behind them, go on after a loss as if nothing had happened.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
import pandas as pd

from replay.columns import ACK, FIN, RST, SYN, TCP, Bool, UInt8
from replay.packet_mode.match import SNAPLEN, UNSEEN
from replay.packet_mode.plan import Program
from replay.packet_mode.sender import FATES, REFUSED, SENT

ARRIVED = "arrived"
LOST = "lost on the way"
FIRST_QUEUE = "dropped by the queue of the first link"
FIRST_LINK = "lost before the sending tap"
TAP_DROPPED = "the sending tap dropped packets"
NO_HANDSHAKE = "out of state: no handshake in the capture"
LOST_HANDSHAKE = "out of state: the handshake did not pass"
AFTER_RESET = "out of state: a reset had passed"
ACKNOWLEDGES_LOST = "out of state: acknowledges what was lost"
NOT_OPENED = "out of state: nothing of its flow had passed the other way"

BY_NETWORK = frozenset({LOST, FIRST_QUEUE, FIRST_LINK})
"""Reasons that are the network's; all others but ARRIVED are the method's own."""

_HALF = 1 << 31


def reasons(passages: pd.DataFrame, program: Program, fate: UInt8, tap_drops: Mapping[str, int]) -> pd.Series[str]:
    """One reason a frame, ARRIVED for those that did.

    `tap_drops`: packets that each node's tap found no room for; where there are none, what the kernel took and the
    sender's tap never saw was lost by the sender's own link (a queue that loses on purpose does it before the tap).
    """
    arrived = passages["arrived_ns"].to_numpy() != UNSEEN
    tapped = passages["sent_ns"].to_numpy() != UNSEEN
    senders = np.array([program.ports[port][0] for port in program.port.tolist()], dtype=object)
    dropping = np.isin(senders, [node for node, drops in tap_drops.items() if drops])
    told = np.full(len(passages), LOST, dtype=object)
    told[~tapped & dropping] = TAP_DROPPED
    told[~tapped & ~dropping] = FIRST_LINK
    for number, words in enumerate(FATES):
        if number != SENT:
            told[fate == number] = FIRST_QUEUE if number == REFUSED else words
    told[arrived] = ARRIVED
    _without_state(passages, program, told, arrived)
    return pd.Series(told, index=passages.index, dtype="str")


def _without_state(passages: pd.DataFrame, program: Program, told: np.ndarray, arrived: Bool) -> None:
    """Give losses that follow from earlier ones in their flow the reason why no stateful device let them pass."""
    lost = np.flatnonzero(np.isin(told.astype(str), (LOST,)))
    if not len(lost):
        return
    flow = passages["flow"].to_numpy()
    direction = passages["direction"].to_numpy()
    headers = _Headers(program)
    for number in np.unique(flow[lost]).tolist():
        rows = np.flatnonzero(flow == number)
        if headers.is_tcp(int(rows[0])):
            _tcp(rows.tolist(), direction, headers, told, arrived)
            continue
        opened = [False, False]
        for row in rows.tolist():
            way = int(direction[row])
            if told[row] == LOST and way == 1 and not opened[0]:
                told[row] = NOT_OPENED
            opened[way] |= bool(arrived[row])


def _tcp(rows: list[int], direction: np.ndarray, headers: _Headers, told: np.ndarray, arrived: Bool) -> None:
    """Follow one TCP flow as a stateful device would (RFC 9293; what conntrack calls INVALID)."""
    begun, shaken, reset = False, [False, False], False
    passed: list[int | None] = [None, None]
    for row in rows:
        way = int(direction[row])
        segment = headers.segment(row)
        if segment is None:
            continue
        sequence, acknowledgement, flags, octets = segment
        begun |= bool(flags & SYN)
        if told[row] == LOST and not (flags & SYN and not flags & ACK):
            other = passed[1 - way]
            if not begun:
                told[row] = NO_HANDSHAKE
            elif reset:
                told[row] = AFTER_RESET
            elif not shaken[1 - way]:
                told[row] = LOST_HANDSHAKE
            elif flags & ACK and (other is None or 0 < (acknowledgement - other) & 0xFFFFFFFF < _HALF):
                told[row] = ACKNOWLEDGES_LOST
        if not arrived[row]:
            continue
        shaken[way] |= bool(flags & SYN)
        reset |= bool(flags & RST)
        end = (sequence + octets + bool(flags & SYN) + bool(flags & FIN)) & 0xFFFFFFFF
        known = passed[way]
        if known is None or (end - known) & 0xFFFFFFFF < _HALF:
            passed[way] = end


class _Headers:
    """TCP headers of a program's frames."""

    def __init__(self, program: Program) -> None:
        self._frames = program.frames(SNAPLEN)

    def is_tcp(self, row: int) -> bool:
        return bool(self._frames.protocol[row] == TCP)

    def segment(self, row: int) -> tuple[int, int, int, int] | None:
        """Sequence and acknowledgement number, flags and payload octets; None for a later fragment or a stump."""
        table = self._frames
        at = int(table.transport_at[row])
        if table.fragment_octets[row] or at + 14 > table.end[row]:
            return None
        header = table.data[at : at + 14].tobytes()
        sequence, acknowledgement, offset, flags = struct.unpack_from("!IIBB", header, 4)
        return sequence, acknowledgement, flags, max(int(table.transport_octets[row]) - (offset >> 4) * 4, 0)
