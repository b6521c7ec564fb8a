"""The exchange that every contender plays: so many flows a second, each of four requests and four responses.

Pure.  It knows no contender and no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EXCHANGES = 4
SPREAD = 2_654_435_761
_SPREAD_BITS = 32
PORTS_AN_ADDRESS = 50_000
STRETCH_NS = 50_000_000
"""How much longer than planned a step may take in all."""

SETTLED = 0.2
"""The share of the lateness samples, from the start, in which a contender may still warm up."""


@dataclass(frozen=True, slots=True)
class Load:
    """One step of the bench: flows at a pace, each side thinking `think_ns` on average before it speaks.

    The first request of a flow leaves as soon as it is connected; the client closes after the last response. Moments
    are irregular, as captured ones are, but the same in every run: round ones would suit some clocks by chance.
    """

    flows_per_s: float
    seconds: float
    think_ns: int = 5_000_000
    request_octets: int = 300
    response_octets: int = 1_200
    source: str = "198.51.100.1"
    target: str = "10.9.0.2"
    port: int = 8_080
    first_port: int = 1_100

    @property
    def flows(self) -> int:
        """How many flows there are in all."""
        return max(1, int(self.flows_per_s * self.seconds))

    def due_ns(self, number: int) -> int:
        """When a flow's SYN is due, after the step's start."""
        return int((number + (number * SPREAD % (1 << _SPREAD_BITS)) / (1 << _SPREAD_BITS)) * 1e9 / self.flows_per_s)

    @property
    def planned_ns(self) -> int:
        """When the last flow ends if nothing takes any time but thinking, after the step's start."""
        turns = range(1, 2 * EXCHANGES)
        last = range(max(0, self.flows - int(self.flows_per_s * 2e-9 * len(turns) * self.think_ns) - 1), self.flows)
        return max(self.due_ns(number) + sum(self.think_of(number, turn) for turn in turns) for number in last)

    def think_of(self, number: int, turn: int) -> int:
        """How long a side thinks before its message number `turn` of a flow: half to one and a half times the mean."""
        place = (number * 2 * EXCHANGES + turn) * SPREAD % (1 << _SPREAD_BITS)
        return self.think_ns // 2 + (place * self.think_ns >> _SPREAD_BITS)

    def source_of(self, number: int) -> tuple[str, int]:
        """The client's address and port of a flow."""
        network, _, last = self.source.rpartition(".")
        return f"{network}.{int(last) + number // PORTS_AN_ADDRESS}", self.first_port + number % PORTS_AN_ADDRESS


@dataclass(frozen=True, slots=True)
class Played:
    """What a contender made of a load: lateness of every scheduled event (ns), and flows that came to their end.

    `ended_ns` is when the last one did, after the step's start: who notices late what arrived is late nowhere, but
    its whole schedule stretches.
    """

    lateness_ns: npt.NDArray[np.int64]
    completed: int
    ended_ns: int

    @property
    def p99_us(self) -> float:
        """The 99th percentile of the lateness once warm, in µs; an event that was early counts as on time."""
        settled = self.lateness_ns[int(len(self.lateness_ns) * SETTLED) :]
        return float(np.percentile(np.maximum(settled, 0), 99)) / 1_000 if len(settled) else float("inf")

    def on_time(self, load: Load, bound_us: float) -> bool:
        """Whether every flow was played, in the time that it was to take, and p99 stayed within the bound."""
        stretched_ns = self.ended_ns - load.planned_ns
        return self.completed >= load.flows and self.p99_us <= bound_us and stretched_ns <= STRETCH_NS
