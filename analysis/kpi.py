"""The KPIs that are judged: their units, directions and tolerances.

May not know tables, windows or verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

MS = 1_000_000


class Direction(StrEnum):
    """Which way is better."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a KPI may move for the worse: beyond it means more than `relative` of the baseline AND more than
    `absolute`, which is in the KPI's own unit (ns, bit/s, ratio, count).

    Both are needed: 50 % of 80 µs is nothing, 5 ms of 10 s is nothing (Diffy's rule). ValueError when negative.
    """

    relative: float
    absolute: float

    def __post_init__(self) -> None:
        if not (self.relative >= 0 and self.absolute >= 0):
            raise ValueError(f"found tolerance {self.relative}, {self.absolute}, expected numbers of 0 or more")

    def threshold(self, baseline: float) -> float:
        """The smallest move away from `baseline`, in the KPI's unit, that is beyond this tolerance."""
        return max(self.absolute, self.relative * abs(baseline))

    def widened(self, other: Tolerance) -> Tolerance:
        """The wider of two tolerances, part by part."""
        return Tolerance(max(self.relative, other.relative), max(self.absolute, other.absolute))


class Tolerances(Mapping[str, Tolerance]):
    """Tolerances by KPI, and beside them, by (class, KPI), those of classes that are held to a bound of their own."""

    __slots__ = ("_by_kpi", "by_class")

    def __init__(
        self, by_kpi: Mapping[str, Tolerance], by_class: Mapping[tuple[str, str], Tolerance] = MappingProxyType({})
    ) -> None:
        self._by_kpi, self.by_class = dict(by_kpi), dict(by_class)

    def __getitem__(self, kpi: str) -> Tolerance:
        return self._by_kpi[kpi]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_kpi)

    def __len__(self) -> int:
        return len(self._by_kpi)


def own_bounds(tolerances: Mapping[str, Tolerance], kpi: str) -> dict[str, Tolerance]:
    """By class, the bounds that hold for this KPI in the place of its tolerance; mostly none."""
    if not isinstance(tolerances, Tolerances):
        return {}
    return {name: bound for (name, of), bound in tolerances.by_class.items() if of == kpi}


@dataclass(frozen=True, slots=True)
class Kpi:
    """A metric of a flow.

    `tolerance` holds for the medians of classes and of the network. `tail` holds for the slowest tenth of a class
    and `flow` for a single flow: both are stricter, because a tenth or one of hundreds of flows moves by itself;
    None means that it is not judged there. `essential`: a critical class must be decidable on it.
    """

    name: str
    label: str
    unit: str
    direction: Direction
    tolerance: Tolerance
    tail: Tolerance | None = None
    flow: Tolerance | None = None
    minimum_flows: int = 5
    essential: bool = False

    def worsening(self, value: float, baseline: float) -> float:
        """How much worse `value` is than `baseline`, in the KPI's unit; negative when better, 0 when equal."""
        if value == baseline:
            return 0.0
        return value - baseline if self.direction is Direction.LOWER else baseline - value


def _delay(name: str, label: str, absolute_ms: float, *, tail: bool = False, essential: bool = False) -> Kpi:
    return Kpi(
        name,
        label,
        "ns",
        Direction.LOWER,
        tolerance=Tolerance(0.5, absolute_ms * MS),
        tail=Tolerance(1.0, 20 * MS) if tail else None,
        flow=Tolerance(1.0, 20 * MS),
        essential=essential,
    )


KPIS: Mapping[str, Kpi] = MappingProxyType(
    {
        kpi.name: kpi
        for kpi in (
            _delay("connect_ns", "connect time", 5, tail=True, essential=True),
            Kpi("first_response_ns", "first response time", "ns", Direction.LOWER, Tolerance(0.5, 5 * MS)),
            _delay("response_ns", "response time", 5, tail=True, essential=True),
            _delay("one_way_delay_forward_ns", "one-way delay forward", 3),
            _delay("one_way_delay_reverse_ns", "one-way delay reverse", 3),
            Kpi("pdv_ns", "packet delay variation", "ns", Direction.LOWER, Tolerance(1.0, 10 * MS)),
            Kpi("loss_ratio", "loss", "ratio", Direction.LOWER, Tolerance(0.5, 0.01), flow=Tolerance(1.0, 0.05)),
            Kpi("retransmits", "retransmits", "count", Direction.LOWER, Tolerance(1.0, 1.0)),
            Kpi("delivered_octets", "delivered octets", "octets", Direction.HIGHER, Tolerance(0.1, 200.0)),
            Kpi(
                "goodput_bps",
                "goodput",
                "bps",
                Direction.HIGHER,
                Tolerance(0.3, 50_000.0),
                flow=Tolerance(0.5, 100_000.0),
            ),
            Kpi("duration_ns", "duration", "ns", Direction.LOWER, Tolerance(0.5, 100 * MS)),
        )
    }
)
"""The judged KPIs by column name. Delays are kernel times; the floors lie above what a loaded 2-core machine adds."""
