"""What may change and how, and which findings are put up with until when: frozen values, read from expect.yaml.

May not know how they are written in a file, nor what was seen of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum

from analysis.kpi import Tolerance
from topologies.model import IpAddress, IpNetwork


class Fate(StrEnum):
    """What becomes of a flow or an access; `denied` is every way of not being let through."""

    PERMITTED = "permitted"
    DENIED = "denied"
    RESET = "reset"
    TIMED_OUT = "timed out"

    def covers(self, disposition: str) -> bool:
        """Whether a disposition, in the words of the flow table's outcomes, is this."""
        return disposition in _MEANT[self]


_MEANT: Mapping[Fate, frozenset[str]] = {
    Fate.PERMITTED: frozenset({"accepted"}),
    Fate.DENIED: frozenset({"denied", "reset", "unanswered"}),
    Fate.RESET: frozenset({"reset"}),
    Fate.TIMED_OUT: frozenset({"unanswered"}),
}


@dataclass(frozen=True, slots=True)
class Service:
    """IANA protocol numbers and destination ports, (first, last); None means all ports."""

    protocols: tuple[int, ...]
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Which flows and accesses are meant: all that fulfil every given condition; None is no condition.

    `ends` are networks of which one holds either end (a tag's, once nodes are known); `label` is a glob that ignores
    case; `classes` are the policy's.
    """

    services: tuple[Service, ...] | None = None
    source: tuple[IpNetwork, ...] | None = None
    destination: tuple[IpNetwork, ...] | None = None
    classes: tuple[str, ...] | None = None
    priorities: tuple[str, ...] | None = None
    ends: tuple[IpNetwork, ...] | None = None
    label: str | None = None
    application: str | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """One declared change; `demanded` says that it must be seen, else it only may be.

    `becomes` is (before, after), before None where any will do.  `nodes` are the lab's own names: flows pass all of
    `via` and none of `not_via`, and end at one of `backend`, or at the owner of `translated_to`.  `bounds` has by KPI
    how far it may worsen, in the place of the policy's tolerance.
    """

    name: str
    demanded: bool
    match: Match
    line: int
    text: str
    becomes: tuple[Fate | None, Fate] | None = None
    via: tuple[str, ...] = ()
    not_via: tuple[str, ...] = ()
    backend: tuple[str, ...] = ()
    translated_to: IpAddress | None = None
    bounds: Mapping[str, Tolerance] = field(default_factory=dict, hash=False)

    def explains(self, before: str, after: str) -> bool:
        """Whether this move between dispositions is the declared one."""
        if self.becomes is None or before == after:
            return False
        was, now = self.becomes
        return (was is None or was.covers(before)) and now.covers(after)


@dataclass(frozen=True, slots=True)
class Waiver:
    """Findings that do not gate until the day `expires` is over; every given pattern (a glob) has to fit."""

    name: str
    owner: str
    reason: str
    expires: date
    line: int
    patterns: Mapping[str, str] = field(default_factory=dict, hash=False)

    def is_expired(self, today: date) -> bool:
        """Whether its last day is over."""
        return today > self.expires


@dataclass(frozen=True, slots=True)
class Expectations:
    """A whole file; `file` is how it is named to people, relative to the lab where it lies in it.

    `today` is the day on which the run is judged, and stays that day when it is judged again.
    """

    file: str = ""
    today: date = date.min
    intents: tuple[Intent, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is declared and nothing put up with."""
        return not (self.intents or self.waivers)

    def without_intents(self) -> Expectations:
        """What outlives the change that it was written for: the waivers."""
        return replace(self, intents=())


NONE = Expectations()
