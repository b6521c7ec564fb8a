"""Layer 0: whether the arms were measured alike. If not, what differs may be the instrument, and nothing is judged.

May not know KPIs or verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.disposition import NOT_STARTED
from analysis.pairs.design import Arm, Layout
from analysis.words import plural

Record = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Beyond these the arms were not measured alike.

    `alpha` is that of each check, `sent_ratio` the least share of the offered load. `lateness_us` and
    `pressure_percent` are what one arm may have more of than the other whatever the test says: how late the player was,
    and how much of the time tasks waited for a CPU. A machine that is as busy in both arms adds noise, which the judge
    of KPIs knows; what it made the player do is in each window's own validity. `loss_alpha` is that of windows lost in
    one arm: what does not count is then missing evidence, so it is wide.
    """

    alpha: float = 0.01
    loss_alpha: float = 0.05
    sent_ratio: float = 0.99
    lateness_us: float = 1_000.0
    pressure_percent: float = 20.0


def complaints(
    kpis: pd.DataFrame, layout: Layout, instruments: Sequence[Record], bounds: Bounds | None = None
) -> tuple[str, ...]:
    """Every reason why A and B (and A') were not measured alike, as sentences; none when they were.

    An instrument record may have `offered`, `sent`, `lateness_p99_us`, `capture_drops`, `cpu_pressure_percent` and
    `daemons_alive`; what it does not have is not checked here.
    """
    limits = bounds or Bounds()
    records = {int(str(record["window"])): record for record in instruments}
    used = {slot: records[window] for slot, window in layout.windows.items()}
    found = [
        _offered(used, limits),
        _attempts(kpis, layout, limits),
        _later(used, layout, limits),
        _busier(used, layout, limits),
        _dropped(used),
        _dead(used),
        *lost_in_one_arm(layout, limits),
    ]
    return tuple(complaint for complaint in found if complaint)


def lost_in_one_arm(layout: Layout, bounds: Bounds | None = None) -> tuple[str, ...]:
    """Whether windows with the change did not count more, or less, often than those without; why the first did not.

    Windows are left out by what the instrument says, and pairs are then played again. That favours no arm as long as
    it hits both alike; where it does not, it may be the change's own doing, and what is left is a chosen part.
    """
    lost = [one for one in layout.excluded if one.arm is Arm.CHANGED]
    others = [one for one in layout.excluded if one.arm is not Arm.CHANGED]
    kept = len(layout.all_of(Arm.CHANGED))
    kept_others = len(layout.all_of(Arm.AS_IS)) + len(layout.all_of(Arm.CONTROL))
    all_lost, played = len(lost) + len(others), len(lost) + kept
    if not all_lost or not played or not len(others) + kept_others:
        return ()
    share = played / (played + len(others) + kept_others)
    if float(stats.binomtest(len(lost), all_lost, share).pvalue) >= (bounds or Bounds()).loss_alpha:
        return ()
    which = lost if len(lost) > share * all_lost else others
    return (
        f"windows were lost unevenly: {len(lost)} of {played} with the change, {len(others)} of "
        f"{len(others) + kept_others} without it ({which[0].reason}); the change itself may be what loads the shadow",
    )


def _offered(used: Mapping[tuple[Arm, int], Record], limits: Bounds) -> str:
    shares = {}
    for arm in Arm:
        offered = sum(_number(record, "offered", 0.0) for (own, _), record in used.items() if own is arm)
        sent = sum(_number(record, "sent", 0.0) for (own, _), record in used.items() if own is arm)
        if offered:
            shares[arm] = sent / offered
    low = [arm for arm, share in shares.items() if share < limits.sent_ratio]
    if low:
        return f"only {shares[low[0]]:.1%} of the offered load was sent in arm {low[0].value}"
    return ""


def _attempts(kpis: pd.DataFrame, layout: Layout, limits: Bounds) -> str:
    """Every flow is to be attempted as often in A as in B and A': the sample ratio check of controlled experiments."""
    started = kpis[kpis["error"] != NOT_STARTED]
    counts = started.groupby("window").size()
    for other, pairs in ((Arm.CHANGED, layout.pairs), (Arm.CONTROL, layout.controls)):
        totals = [int(counts.reindex(list(layout.of(arm, pairs)), fill_value=0).sum()) for arm in (Arm.AS_IS, other)]
        if sum(totals) == 0 or totals[0] == totals[1]:
            continue
        if float(stats.chisquare(totals).pvalue) < limits.alpha or min(totals) == 0:
            return f"flows were not attempted equally often: {totals[0]} times in arm A, {totals[1]} in {other.value}"
    return ""


def _later(used: Mapping[tuple[Arm, int], Record], layout: Layout, limits: Bounds) -> str:
    """The player of one arm later than the other's, pair by pair: a change that burns this machine's CPU."""
    gap = _gap(used, layout, "lateness_p99_us", limits.lateness_us, limits)
    return f"the player was {gap / 1_000:+.1f} ms later in arm B than in arm A" if gap else ""


def _busier(used: Mapping[tuple[Arm, int], Record], layout: Layout, limits: Bounds) -> str:
    """The machine busier in one arm than in the other, pair by pair, though the player may have kept its times."""
    gap = _gap(used, layout, "cpu_pressure_percent", limits.pressure_percent, limits)
    return f"tasks waited for a CPU {gap:+.0f} % of the time in arm B compared with arm A" if gap else ""


def _gap(used: Mapping[tuple[Arm, int], Record], layout: Layout, name: str, least: float, limits: Bounds) -> float:
    """How much more arm B has of this than arm A, in the median pair; 0 when chance or `least` explains it."""
    pairs = layout.pairs
    told = [[_number(used[arm, pair], name) for pair in pairs] for arm in (Arm.AS_IS, Arm.CHANGED)]
    gap = np.array(told[1]) - np.array(told[0])
    gap = gap[np.isfinite(gap)]
    if len(gap) < 2 or not gap.any() or abs(float(np.median(gap))) < least:
        return 0.0
    test = stats.permutation_test((gap,), np.mean, permutation_type="samples", n_resamples=4096, rng=0)
    return float(np.median(gap)) if float(test.pvalue) < max(limits.alpha, 2 * 0.5 ** len(gap)) * 1.001 else 0.0


def _dropped(used: Mapping[tuple[Arm, int], Record]) -> str:
    over = [slot for slot, record in used.items() if _number(record, "capture_drops", 0.0) > 0]
    return f"the taps dropped packets in {plural(len(over), 'window')}" if over else ""


def _dead(used: Mapping[tuple[Arm, int], Record]) -> str:
    dead = [arm for (arm, _), record in used.items() if record.get("daemons_alive") is False and arm is not Arm.CHANGED]
    return f"a daemon was not alive in {plural(len(dead), 'window')} without the change" if dead else ""


def _number(record: Record, name: str, default: float = math.nan) -> float:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default
