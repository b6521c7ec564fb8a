"""What the delay line's owner says to its process, and what that answers.  Values only: no socket, no time."""

from __future__ import annotations

from dataclasses import dataclass

from topologies.model import Impairment

BUCKET_NS = 1_000
"""How finely the excess is kept."""


@dataclass(frozen=True, slots=True)
class Attach:
    """A new direction: frames that come from the interface `index` of the line's namespace."""

    index: int
    node: str
    interface: str
    impairment: Impairment
    seed: int


@dataclass(frozen=True, slots=True)
class Change:
    """New settings of a direction."""

    index: int
    impairment: Impairment


@dataclass(frozen=True, slots=True)
class Drain:
    """Answer when nothing of this direction is on the way."""

    index: int


@dataclass(frozen=True, slots=True)
class Detach:
    """Forget a direction."""

    index: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Close everything and end."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell every direction's counters since the last report."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Begin every sequence of chance anew."""


@dataclass(frozen=True, slots=True)
class Counted:
    """One direction since the last report; `excess_ns` maps a bucket of BUCKET_NS to how many frames were so late."""

    index: int
    frames: int
    lost: int
    queue_dropped: int
    refused: int
    excess: dict[int, int]
    worst_ns: int


@dataclass(frozen=True, slots=True)
class Told:
    """All directions, and the frames that the line itself failed to read."""

    counted: tuple[Counted, ...]
    overflowed: int
