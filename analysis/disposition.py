"""What became of each flow: completed or which error, as captured or not, and which flows changed for certain.

A flow that was the same in every baseline window and different in every treatment window has changed: that is a fact,
not a p-value. May not know KPIs' numbers, tolerances or how a verdict is formed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.kpi import Direction, Kpi, Tolerance

AS_EXPECTED = Kpi(
    "as_expected_ratio",
    "flows that end as captured",
    "ratio",
    Direction.HIGHER,
    tolerance=Tolerance(0.05, 0.05),
    minimum_flows=3,
    essential=True,
)
"""The share of a class's flows that end as they were captured to end; for changes that hit other flows each time."""

NOT_STARTED = "not_started"


@dataclass(frozen=True, slots=True)
class Disposition:
    """How a flow ended in one window."""

    completed: bool
    error: str
    as_expected: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """A flow that ended in one way in every baseline window and in none after; `after` is what it then did most."""

    flow_id: str
    before: Disposition
    after: Disposition

    @property
    def worse(self) -> bool:
        """It ended as captured and does no more."""
        return self.before.as_expected and not self.after.as_expected

    @property
    def better(self) -> bool:
        """It did not end as captured and now does."""
        return self.after.as_expected and not self.before.as_expected


@dataclass(frozen=True, slots=True)
class Dispositions:
    """All flows that did not end alike in every window.

    Changed in every window after; hit in `some` of them only; flaky in the baseline itself; not measured everywhere.
    """

    changed: tuple[Changed, ...]
    some: tuple[str, ...]
    flaky: tuple[str, ...]
    unmeasured: tuple[str, ...]


Endings = Mapping[str, Mapping[int, Disposition]]
"""flow_id → window → how it ended there; a flow that the instrument did not start has no entry for that window."""


def endings(kpis: pd.DataFrame, flows: Iterable[str], windows: Sequence[int]) -> Endings:
    """How every one of these flows ended in each of these windows."""
    chosen = kpis[kpis["window"].isin(list(windows)) & (kpis["error"] != NOT_STARTED)]
    found: dict[str, dict[int, Disposition]] = {flow: {} for flow in flows}
    kinds: dict[tuple[bool, str, bool], Disposition] = {}
    columns = (chosen[name].tolist() for name in ("flow_id", "window", "completed", "error", "as_expected"))
    for flow, window, completed, error, expected in zip(*columns, strict=True):
        if flow in found:
            kind = (bool(completed), str(error), bool(expected))
            found[flow][int(window)] = kinds.setdefault(kind, Disposition(*kind))
    return found


def compared(ends: Endings, baseline: Sequence[int], after: Sequence[int]) -> Dispositions:
    """Sort the flows: changed for certain, flaky, or not measured in every window."""
    changed: list[Changed] = []
    some: list[str] = []
    flaky: list[str] = []
    unmeasured: list[str] = []
    for flow, by_window in ends.items():
        early = [by_window[window] for window in baseline if window in by_window]
        late = [by_window[window] for window in after if window in by_window]
        if len(set(early)) > 1:
            flaky.append(flow)
        elif len(early) < len(baseline) or len(late) < len(after) or not early or not late:
            unmeasured.append(flow)
        elif early[0] not in late:
            changed.append(Changed(flow, early[0], _most_common(late)))
        elif len(set(late)) > 1:
            some.append(flow)
    return Dispositions(tuple(changed), tuple(some), tuple(flaky), tuple(unmeasured))


def expected_ratios(ends: Endings, flows: Sequence[str], windows: Sequence[int]) -> list[float]:
    """Per window, the share of these flows that ended as captured, among those that were measured; NaN if none was."""
    ratios: list[float] = []
    for window in windows:
        seen = [ends[flow][window].as_expected for flow in flows if window in ends.get(flow, {})]
        ratios.append(float(np.mean(seen)) if seen else float("nan"))
    return ratios


def hit_in(
    ends: Endings, flows: Sequence[str], baseline: Sequence[int], after: Sequence[int]
) -> dict[str, Disposition]:
    """The flows that ended as captured in every baseline window and failed to in at least one window after."""
    hit: dict[str, Disposition] = {}
    for flow in flows:
        by_window = ends.get(flow, {})
        early = [by_window[window].as_expected for window in baseline if window in by_window]
        late = [by_window[window] for window in after if window in by_window and not by_window[window].as_expected]
        if early and all(early) and late:
            hit[flow] = _most_common(late)
    return hit


def _most_common(kinds: Sequence[Disposition]) -> Disposition:
    counts = Counter(kinds)
    return max(counts, key=lambda kind: (counts[kind], not kind.as_expected, kind.error))
