"""What the nodes counted, by role: the counters table turned into questions that blame asks.

Knows the table's columns and no meaning of any object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

Key = tuple[str, str, str, str]
"""(node, kind, object, metric)"""


@dataclass(frozen=True, slots=True)
class Tally:
    """One counter or gauge over the windows of a role; `state` is the last window's text."""

    mean: float
    largest: float
    windows: int
    state: str
    smallest: float = 0.0


NOTHING = Tally(0.0, 0.0, 0, "")


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counters before the change and after it; `names` lists the objects by node, kind and metric."""

    before: Mapping[Key, Tally] = field(default_factory=dict)
    after: Mapping[Key, Tally] = field(default_factory=dict)
    names: Mapping[tuple[str, str, str], Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, counters: pd.DataFrame) -> Ledger:
        """From the counters table; without treatment windows the transition speaks for them."""
        roles = set(counters["role"]) if len(counters) else set()
        late = "treatment" if "treatment" in roles else "transition"
        if not roles:
            return cls()
        before, after = _tallies(counters, "baseline"), _tallies(counters, late)
        names: dict[tuple[str, str, str], list[str]] = {}
        for node, kind, name, metric in dict.fromkeys((*before, *after)):
            names.setdefault((node, kind, metric), []).append(name)
        return cls(before, after, names)

    def read(self, node: str, kind: str, name: str, metric: str) -> tuple[Tally, Tally]:
        """One counter before and after; NOTHING where it was not read."""
        key = (node, kind, name, metric)
        return self.before.get(key, NOTHING), self.after.get(key, NOTHING)

    def objects(self, node: str, kind: str, metric: str) -> Iterator[tuple[str, Tally, Tally]]:
        """Every object of a kind on a node, with NOTHING where it was absent."""
        for name in self.names.get((node, kind, metric), ()):
            yield name, *self.read(node, kind, name, metric)


def rose(before: Tally, after: Tally) -> bool:
    """Whether a counter clearly grew: above every baseline window, by one at least, and by a tenth of it.

    What was the same in every window before needs no tenth, if it is above that in every window after.
    """
    steady = before.windows > 1 and before.smallest == before.largest < after.smallest
    least = 0.0 if steady else 0.1 * before.mean
    return after.mean > before.largest and after.mean - before.mean >= max(1.0, least)


def number(value: float) -> str:
    """A count for people: whole when it is, one decimal below a hundred."""
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:,.1f}"


def _tallies(counters: pd.DataFrame, role: str) -> dict[Key, Tally]:
    chosen = counters[counters["role"] == role].sort_values("window", kind="stable")
    values: dict[Key, list[float]] = {}
    states: dict[Key, tuple[int, str]] = {}
    windows = chosen["window"].nunique()
    columns = ("node", "kind", "object", "metric", "window", "value", "state")
    for node, kind, name, metric, window, value, state in zip(*(chosen[c].tolist() for c in columns), strict=True):
        key = (str(node), str(kind), str(name), str(metric))
        values.setdefault(key, []).append(float(value))
        states[key] = (int(window), state if isinstance(state, str) else "")
    last = max((w for w, _ in states.values()), default=0)
    return {
        key: Tally(
            sum(seen) / windows, max(seen), len(seen), states[key][1], min(seen) if len(seen) == windows else 0.0
        )
        for key, seen in values.items()
        if key[1] in COUNTED or states[key][0] == last
    }


COUNTED = frozenset({"interface", "qdisc", "icmp"})
"""Kinds whose objects stay for good; the others are there only if the role's last window still has them."""
