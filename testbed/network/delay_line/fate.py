"""What becomes of each frame of one direction: when it leaves, how often, with which bit turned, or never.

Pure: it knows no socket and no clock; arrivals are told to it.  Each kind of chance has a sequence of its own that
comes from the seed, so the n-th frame meets the same fate in every run and no setting disturbs another's.

    arrival ── loss ── duplication ── queue at the rate ── delay ± PDV, or at once (reordering) ── departure
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from testbed.network.qdisc import TokenBucket
from topologies.model import Impairment

UNTURNED = -1
"""Instead of the number of a bit, where none is turned."""

Copy = tuple[int, int]
"""When it is due in ns of the arrivals' clock, and which bit of the frame is turned."""

NEVER: tuple[Copy, ...] = ()
KINDS = ("loss", "duplicate", "reorder", "corrupt", "pdv")


def chance(seed: int, node: str, interface: str, kind: str) -> random.Random:
    """The sequence of one kind of chance in one direction: the same in every process and on every machine."""
    text = "\0".join((str(seed), node, interface, kind)).encode()
    return random.Random(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big"))


def takes_super_frames(impairment: Impairment) -> bool:
    """Whether several segments may pass as one, because all would meet the same fate."""
    return impairment == Impairment(delay_ns=impairment.delay_ns, pdv_ns=impairment.pdv_ns)


@dataclass(frozen=True, slots=True)
class Losses:
    """Frames that did not leave, by the link's own doing: by chance, or because the queue was full."""

    by_chance: int = 0
    by_queue: int = 0


class Fate:
    """One direction of a link: `meet` tells a frame's copies, `change` alters the settings in place.

    A queue is an exact model: departure = max(arrival, last departure) + bits / rate; a frame that finds no room is
    dropped.  With a constant delay frames stay in order even where the delay was just made shorter.
    """

    def __init__(self, node: str, interface: str, impairment: Impairment, seed: int) -> None:
        self._where = (node, interface)
        self._seed = seed
        self._last_departure_ns = 0
        self._latest_ns = 0
        self._floor_ns = 0
        self._lost = self._dropped = 0
        self.restart()
        self.change(impairment)

    def restart(self) -> None:
        """Begin the sequences of chance anew."""
        chances = [chance(self._seed, *self._where, kind) for kind in KINDS]
        self._loses, self._doubles, self._hurries, self._corrupts, self._varies = (c.random for c in chances)
        self._picks = chances[KINDS.index("corrupt")].randrange

    def counted(self) -> Losses:
        """The losses since this was last asked."""
        losses = Losses(self._lost, self._dropped)
        self._lost = self._dropped = 0
        return losses

    def change(self, impairment: Impairment) -> None:
        """New settings for the frames that arrive from now on; those on the way keep their due time."""
        self.impairment = impairment
        self._ns_per_octet = 8e9 / impairment.rate_bps if impairment.rate_bps else 0.0
        self._room_ns = TokenBucket.of(impairment).limit_octets * self._ns_per_octet
        # a frame's fate is asked for a hundred thousand times a second
        self._delay_ns, self._pdv_ns = impairment.delay_ns, impairment.pdv_ns
        self._loss, self._duplicate = impairment.loss_ratio, impairment.duplicate_ratio
        self._reorder, self._corrupt = impairment.reorder_ratio, impairment.corrupt_ratio
        self._only_delays = impairment == Impairment(delay_ns=impairment.delay_ns)
        self._floor_ns = self._latest_ns

    def hasten(self, limit_ns: int) -> None:
        """What is on the way leaves by then, so later frames need not wait longer."""
        self._floor_ns, self._latest_ns = min(self._floor_ns, limit_ns), min(self._latest_ns, limit_ns)
        self._last_departure_ns = min(self._last_departure_ns, limit_ns)

    @property
    def least_delay_ns(self) -> int:
        """No frame is due sooner than this after its arrival."""
        impairment = self.impairment
        return 0 if impairment.reorder_ratio else max(0, impairment.delay_ns - impairment.pdv_ns)

    def meet(self, arrived_ns: int, octets: int) -> tuple[Copy, ...]:
        """The copies of a frame, none when it is lost."""
        if self._only_delays:
            due_ns = arrived_ns + self._delay_ns
            self._latest_ns = due_ns = self._floor_ns if due_ns < self._floor_ns else due_ns
            return ((due_ns, UNTURNED),)
        copies = 1
        if self._loss and self._loses() < self._loss:
            self._lost += 1
            copies = 0
        if self._duplicate and self._doubles() < self._duplicate:
            copies += 1
        if copies == 1:
            return self._copy(arrived_ns, octets)
        return self._copy(arrived_ns, octets) + self._copy(arrived_ns, octets) if copies else NEVER

    def _copy(self, arrived_ns: int, octets: int) -> tuple[Copy, ...]:
        due_ns = arrived_ns
        if self._ns_per_octet:
            begins_ns = max(arrived_ns, self._last_departure_ns)
            taken_ns = octets * self._ns_per_octet
            if begins_ns - arrived_ns + taken_ns > self._room_ns:
                self._dropped += 1
                return NEVER
            due_ns = self._last_departure_ns = round(begins_ns + taken_ns)
        bit = self._picks(8 * octets) if self._corrupt and self._corrupts() < self._corrupt else UNTURNED
        if self._reorder and self._hurries() < self._reorder:
            return ((due_ns, bit),)
        due_ns += self._delay_ns
        if self._pdv_ns:
            due_ns += round((2 * self._varies() - 1) * self._pdv_ns)
            earliest_ns = arrived_ns
        else:
            earliest_ns = self._floor_ns
        due_ns = earliest_ns if due_ns < earliest_ns else due_ns
        self._latest_ns = self._latest_ns if due_ns < self._latest_ns else due_ns
        return ((due_ns, bit),)
