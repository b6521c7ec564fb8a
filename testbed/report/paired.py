"""What the page shows of a run in pairs: the effects that matter, the pairs as they were played, and what is triage.

May not know HTML or how pairs are judged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from analysis.disposition import AS_EXPECTED
from analysis.kpi import KPIS
from analysis.words import in_short, kpi_label, percent, quantity
from testbed.advice import telling
from testbed.report.effect_rows import ANSWERS, EffectRow, effect_row, gravest_first, used
from testbed.verdict_file import EffectEntry, FindingEntry, PairedEntry, SmallestEntry, VerdictFile, number

Named = Callable[[str], str]
FIRST, GROUPS, FLOWS, SUSPECTS, FLAKY, SMALLEST = 10, 250, 250, 150, 20, 150


@dataclass(frozen=True, slots=True)
class Capped:
    """Rows to show, and how many more there are."""

    rows: tuple[EffectRow, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Played:
    """One window of a pair; `lost` says why it does not count, "" when it does."""

    window: int
    arm: str
    lost: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair in the order in which its windows were played; `number` counts from 1."""

    number: int
    windows: tuple[Played, ...]
    counts: bool


@dataclass(frozen=True, slots=True)
class SmallestRow:
    """What this run could have found of one KPI of one subject."""

    kpi: str
    subject: str
    baseline: str
    limit: str
    found: str


@dataclass(frozen=True, slots=True)
class SuspectRow:
    """A flow to look at first: by which KPIs with the smallest q-value, and whether its KPIs together moved oddly."""

    flow: str
    kpis: str
    q_value: str
    odd: str


@dataclass(frozen=True, slots=True)
class PairedPage:
    """Everything that only a run in pairs has; `leading` says what the first rows were chosen by."""

    entry: PairedEntry
    leading: str
    worse: bool
    first: tuple[EffectRow, ...]
    groups: Capped
    flows: Capped
    counts: tuple[tuple[str, int], ...]
    pairs: tuple[Pair, ...]
    lost: tuple[tuple[str, str], ...]
    smallest: tuple[SmallestRow, ...]
    smallest_left_out: int
    reach: str
    suspects: tuple[SuspectRow, ...]
    suspects_left_out: int
    flaky: tuple[str, ...]
    flaky_left_out: int


def paired_page(verdict: VerdictFile, named: Named) -> PairedPage | None:
    """The part of the page; None for a run without pairs. `named` says who a flow is."""
    entry = verdict.paired
    if entry is None:
        return None
    groups = gravest_first(one for one in entry.effects if one.scope != "flow")
    single = gravest_first(one for one in entry.effects if one.scope == "flow")
    leading, first = _first(verdict, groups)
    suspects = _suspects(entry, named)
    flaky = sorted({flow for finding in verdict.findings if is_flaky(finding) for flow in finding.flows})
    told = sorted(entry.smallest, key=_smallest_order)
    return PairedPage(
        entry=entry,
        leading=leading,
        worse=any(one.answer == "inferior" for one in first),
        first=tuple(effect_row(one, named) for one in first),
        groups=_capped(groups, GROUPS, named),
        flows=_capped(single, FLOWS, named),
        counts=_counts(groups),
        pairs=_pairs(verdict, entry),
        lost=tuple((f"window {one.window}, {_arm(one.arm)} of pair {one.pair + 1}", one.reason) for one in entry.lost),
        smallest=tuple(_smallest(one) for one in told[:SMALLEST]),
        smallest_left_out=max(len(told) - SMALLEST, 0),
        reach=reach(entry),
        suspects=tuple(suspects[:SUSPECTS]),
        suspects_left_out=max(len(suspects) - SUSPECTS, 0),
        flaky=tuple(named(flow) for flow in flaky[:FLAKY]),
        flaky_left_out=max(len(flaky) - FLAKY, 0),
    )


def certain(findings: Iterable[FindingEntry]) -> tuple[FindingEntry, ...]:
    """The findings that are no KPI's: endings that changed, silence, what could not be compared."""
    return tuple(one for one in findings if one.verdict != "INFO" and one.interval_low is None)


def is_triage(finding: FindingEntry) -> bool:
    """Whether a finding is only a suspicion: those alone carry a q-value."""
    return finding.verdict == "INFO" and finding.q_value is not None


def is_flaky(finding: FindingEntry) -> bool:
    """Whether a finding names flows that ended now so, now otherwise, without any change."""
    told = finding.verdict == "INFO" and finding.kpi == "disposition" and finding.scope == "network"
    return told and finding.before is None and finding.q_value is None


def headline(verdict: VerdictFile) -> str:
    """The reason in plain words: who moved and how far; averages, interval and limit stand in the table below."""
    return in_short(verdict.reason)


def reach(entry: PairedEntry) -> str:
    """ "response time 4.3 ms → 9.1 ms (http), …": per essential KPI the class where a worsening must be largest."""
    worst: dict[str, SmallestEntry] = {}
    for one in sorted(entry.smallest, key=lambda one: (one.unit == "ratio", one.kpi, one.subject)):
        if one.scope == "class" and not one.tail and _essential(one.kpi):
            known = worst.setdefault(one.kpi, one)
            worst[one.kpi] = one if _beyond(one) > _beyond(known) else known
    return ", ".join(_reach(one) for one in worst.values())


def _beyond(one: SmallestEntry) -> float:
    """How many times what is allowed must be used up before it is found."""
    baseline, limit, found = (number(value) for value in (one.baseline, one.limit, one.smallest_found))
    return (found - baseline) / (limit - baseline) if limit != baseline else 0.0


def _reach(one: SmallestEntry) -> str:
    label, found = kpi_label(one.kpi), number(one.smallest_found)
    if math.isinf(found):
        return f"{label} nothing, with so few pairs ({one.subject})"
    return f"{label} {quantity(number(one.baseline), one.unit)} → {quantity(found, one.unit)} ({one.subject})"


def _first(verdict: VerdictFile, groups: Sequence[EffectEntry]) -> tuple[str, Sequence[EffectEntry]]:
    """What the first screen shows: what findings tell of, else each class's nearest to its limit."""
    told = gravest_first(telling(verdict))
    if told:
        worse, open_ones = (any(one.answer == answer for one in told) for answer in ("inferior", "undecided"))
        parts = ["worse than allowed"] * worse + ["not decided"] * open_ones
        more = f" The {FIRST} gravest of {len(told)}." if len(told) > FIRST else ""
        blind = (
            " A and B were not measured alike, so it decides nothing."
            if verdict.paired and verdict.paired.invalid
            else ""
        )
        return f"What is {' or '.join(parts)}.{more}{blind}", told[:FIRST]
    most: dict[str, EffectEntry] = {}
    for one in groups:
        if one.subject not in most or used(one) > used(most[one.subject]):
            most[one.subject] = one
    rows = sorted(most.values(), key=lambda one: -used(one))
    return "Nothing is worse than allowed; of every class the KPI that used most of what is allowed.", rows[:FIRST]


def _counts(effects: Sequence[EffectEntry]) -> tuple[tuple[str, int], ...]:
    counted = Counter(ANSWERS[one.answer] for one in effects)
    return tuple((word, counted[word]) for word in ANSWERS.values())


def _capped(effects: Sequence[EffectEntry], most: int, named: Named) -> Capped:
    return Capped(tuple(effect_row(one, named) for one in effects[:most]), max(len(effects) - most, 0))


def _pairs(verdict: VerdictFile, entry: PairedEntry) -> tuple[Pair, ...]:
    reasons = {one.window: one.reason for one in entry.lost}
    found: dict[int, list[Played]] = {}
    for window in sorted(verdict.windows, key=lambda one: one.window):
        if window.arm is not None and window.pair is not None:
            lost = reasons.get(window.window, "")
            found.setdefault(window.pair, []).append(Played(window.window, _arm(window.arm), lost))
    return tuple(
        Pair(number_ + 1, tuple(played), not any(one.lost and one.arm != "A′" for one in played))
        for number_, played in sorted(found.items())
    )


def _arm(arm: str) -> str:
    return arm.replace("'", "′")


def _essential(kpi: str) -> bool:
    return kpi == AS_EXPECTED.name or (kpi in KPIS and KPIS[kpi].essential)


def _smallest_order(one: SmallestEntry) -> tuple[bool, bool, str, bool, str]:
    return (not _essential(one.kpi), one.tail, one.kpi, one.scope == "network", one.subject)


def _smallest(one: SmallestEntry) -> SmallestRow:
    baseline, found = number(one.baseline), number(one.smallest_found)
    if math.isinf(found):
        said = "nothing, with so few pairs"
    else:
        share = percent(baseline, found, number(one.smallest_effect_percent))
        said = f"{quantity(found, one.unit)} ({share})" if share else quantity(found, one.unit)
    subject = "the whole network" if one.scope == "network" else one.subject
    label = kpi_label(one.kpi, tail=one.tail)
    return SmallestRow(label, subject, quantity(baseline, one.unit), quantity(number(one.limit), one.unit), said)


def _suspects(entry: PairedEntry, named: Named) -> list[SuspectRow]:
    by_flow: dict[str, list[tuple[float, str]]] = {}
    for one in entry.suspects:
        by_flow.setdefault(one.flow_id, []).append((number(one.q_value), one.kpi))
    odd = {one.flow_id: number(one.p_value) for one in entry.odd}
    flows = sorted({*by_flow, *odd}, key=lambda flow: (min(by_flow.get(flow, [(2.0, "")])), odd.get(flow, 2.0), flow))
    rows = []
    for flow in flows:
        moved = sorted(by_flow.get(flow, ()))
        kpis = ", ".join(kpi_label(kpi) for _, kpi in moved)
        chance = f"p = {odd[flow]:.2g}" if flow in odd else ""
        rows.append(SuspectRow(named(flow), kpis or "-", f"{moved[0][0]:.2g}" if moved else "-", chance))
    return rows
