"""What a bench came to: figures of ours, and references measured in the same run.

It measures nothing.  A ratio above 1 means that we are better than the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reference:
    """Someone else's figure for the same work; `ratio` above 1 means that ours is better."""

    value: float
    unit: str
    ratio: float


@dataclass(frozen=True, slots=True)
class BenchResult:
    """A bench by name, its figures (units in their names) and its references."""

    bench: str
    figures: Mapping[str, float]
    references: Mapping[str, Reference] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """The shape of `testbed bench NAME --json`."""
        return {
            "bench": self.bench,
            "figures": dict(self.figures),
            "references": {
                name: {"value": r.value, "unit": r.unit, "ratio": r.ratio} for name, r in self.references.items()
            },
        }
