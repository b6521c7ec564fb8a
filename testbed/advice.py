"""What to do after a verdict that decides nothing: more pairs and how many, a quieter machine, or which margin.

May not know how a run is made or judged: it reads the verdict document only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

from analysis.pairs.design import FLOOR
from analysis.words import kpi_label, plural, quantity
from testbed.verdict_file import EffectEntry, FindingEntry, PairedEntry, VerdictFile, number

MOST_PAIRS = 50
"""As many as `--pairs` takes."""
_TOLD = 3
_QUIETER = "Try again on a quieter machine, with fewer flows (--max-flows) or a slower replay (--speed)"


def next_steps(verdict: VerdictFile) -> tuple[str, ...]:
    """What a person can do so that the next run decides, the most useful first; nothing after PASS or FAIL."""
    if verdict.verdict != "INCONCLUSIVE":
        return ()
    return tuple(_steps(verdict))


def telling(verdict: VerdictFile) -> tuple[EffectEntry, ...]:
    """The effects that a FAIL or WARN finding tells of, in the findings' order; of several flows the worst one's."""
    if verdict.paired is None:
        return ()
    effects = verdict.paired.effects
    found = [next((one for one in effects if _same(finding, one)), None) for finding in verdict.findings]
    return tuple(dict.fromkeys(one for one in found if one is not None))


def doubts(verdict: VerdictFile) -> tuple[EffectEntry, ...]:
    """The undecided effects that keep a run from passing."""
    return tuple(one for one in telling(verdict) if one.answer == "undecided")


def pairs_needed(effect: EffectEntry, paired: PairedEntry) -> int | None:
    """About how many pairs would decide this effect if it is as large as it was seen; None when no number would.

    A mean's error shrinks with the square root of the number of pairs. What must shrink to the distance between the
    estimate and the limit is the interval that was seen, and beyond the limit also the foreseen reach of the test.
    """
    baseline, limit = number(effect.baseline), number(effect.limit)
    at = _scale(effect.unit, abs(limit - baseline))
    estimate, goal, low, high = (
        at(number(value)) for value in (effect.estimate, effect.limit, effect.interval_low, effect.interval_high)
    )
    distance = abs(goal - estimate)
    seen = high - estimate if goal > estimate else estimate - low
    if not (math.isfinite(distance) and distance > 0 and math.isfinite(seen)):
        return None
    needed = paired.pairs * (seen / distance) ** 2
    worse = (number(effect.estimate) - limit) * (limit - baseline) > 0
    foreseen = at(_foreseen(effect, paired))
    if worse and math.isfinite(foreseen):
        needed = max(needed, paired.asked * ((foreseen - goal) / distance) ** 2)
    return max(math.ceil(min(needed, 1e6)), paired.pairs + 1, FLOOR)


def _scale(unit: str, allowed: float) -> Callable[[float], float]:
    """About the scale of the test: the logarithm of value and absolute tolerance, which is at most what is allowed."""
    if unit == "ratio" or not (math.isfinite(allowed) and allowed > 0):
        return lambda value: value
    return lambda value: math.log(max(value, 0.0) + allowed) if math.isfinite(value) else value


def _steps(verdict: VerdictFile) -> Iterator[str]:
    paired = verdict.paired
    if not (verdict.rollback.done or verdict.rollback.restored):
        yield "Give the change a way back that works: the shadow could not be put back, so no pair could follow"
        return
    for one in verdict.expectations:
        if one.state == "not_tested":
            place = f"{one.file}:{one.line}"
            yield f"Nothing tested {one.name}: capture traffic that uses it, or allow it without demanding it ({place})"
    if paired is None:
        yield from _in_a_row(verdict)
        return
    if not paired.pairs and not paired.lost and paired.budget_s is not None:
        yield f"Give it more time than --budget {paired.budget_s:.0f}, or shorter windows (--window)"
        return
    if paired.lost:
        reason, _ = Counter(one.reason for one in paired.lost).most_common(1)[0]
        count = plural(len(paired.lost), "window")
        yield f"{count} did not count ({reason}). {_QUIETER}"
    elif paired.invalid:
        yield f"A and B were not measured alike, which more pairs do not mend. {_QUIETER}"
    if paired.pairs < FLOOR:
        if not paired.lost:
            yield f"Play at least {FLOOR} pairs (--pairs, --budget)"
        return
    yield from _doubtful(verdict, paired)
    others = [finding for finding in verdict.findings if finding.verdict == "WARN" and not _tested(finding)]
    for other in others[:_TOLD]:
        yield f"Look into this: {other.effect}"


def _in_a_row(verdict: VerdictFile) -> Iterator[str]:
    if verdict.windows and not verdict.instrument.valid:
        yield f"The instrument was not accurate enough ({verdict.instrument.reason}). {_QUIETER}"
    yield "Judge by pairs of windows, which tells noise from an effect: --pairs 8"


def _doubtful(verdict: VerdictFile, paired: PairedEntry) -> Iterator[str]:
    open_ones = doubts(verdict)
    needed = {index: pairs_needed(one, paired) for index, one in enumerate(open_ones)}
    possible = [count for count in needed.values() if count is not None and count <= MOST_PAIRS]
    if possible:
        enough = max(possible)
        settled = "it" if len(open_ones) == 1 else plural(len(possible), "doubt")
        seconds = verdict.timings.replay_s
        took = f", about {seconds / paired.pairs * enough:.0f} s of replay" if seconds and paired.pairs else ""
        yield f"Play more pairs: by this run's noise about {enough} would settle {settled} (--pairs {enough}{took})"
    for index, one in list(enumerate(open_ones))[:_TOLD]:
        count = needed[index]
        if count is not None and count <= MOST_PAIRS:
            continue
        yield _margin(one, verdict)
    if len(open_ones) - len(possible) > _TOLD:
        yield f"{len(open_ones) - len(possible) - _TOLD} more doubts are as near to their limits"


def _margin(effect: EffectEntry, verdict: VerdictFile) -> str:
    """A doubt that pairs do not settle: too near its limit, or too noisy."""
    limit, low, high = (number(value) for value in (effect.limit, effect.interval_low, effect.interval_high))
    rises = limit >= number(effect.baseline)
    enough, unit = quantity(high if rises else low, effect.unit), effect.unit
    noise = number(verdict.instrument.noise_percent.get(effect.kpi))
    differs = f" (pairs differ by {noise:.0f} %)" if math.isfinite(noise) and noise >= 1 else ""
    subject = f"flow {effect.subject}" if effect.scope == "flow" else effect.subject
    return (
        f"No {MOST_PAIRS} pairs would settle {kpi_label(effect.kpi, tail=effect.tail)} of {subject}: it may be "
        f"{quantity(low, unit)} to {quantity(high, unit)} and its limit is {quantity(limit, unit)}. If {enough} is "
        f"still good enough, widen the tolerance of {effect.kpi} in policy.yaml; if not, seek less noise{differs}"
    )


def _foreseen(effect: EffectEntry, paired: PairedEntry) -> float:
    key = (effect.kpi, effect.tail, effect.scope, effect.subject)
    for one in paired.smallest:
        if (one.kpi, one.tail, one.scope, one.subject) == key:
            return number(one.smallest_found)
    return math.nan


def _same(finding: FindingEntry, effect: EffectEntry) -> bool:
    """Whether a finding tells of this effect, which has no number of its own to be known by: its interval is one."""
    if not _tested(finding) or finding.kpi != effect.kpi:
        return False
    mine, other = ([number(end) for end in (one.interval_low, one.interval_high)] for one in (finding, effect))
    return all(a == b or math.isclose(a, b, rel_tol=1e-4) for a, b in zip(mine, other, strict=True))


def _tested(finding: FindingEntry) -> bool:
    return finding.verdict != "INFO" and finding.interval_low is not None
