"""A case cut down to what can be replayed: to a number of flows, or to the files that may be open at once.

It starts nothing; the limit on open files is a parameter. Flows that are sent as packets have no socket and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from replay.sampling import Sample, Share, sampled, thinned
from replay.schedule import Schedule
from replay.session import Patience, open_files
from testbed.errors import Unsupported
from testbed.placement import Placed, listeners
from testbed.prepare import Case

AWAY = "sampled away"


def fitted(case: Case, most: int | None, open_files_limit: int, seed: int) -> Case:
    """The case as far as it can be replayed: `most` flows where that is asked for, and what may be open at once.

    A limit below 0 is none, as RLIM_INFINITY is.
    """
    case = case if most is None else within(case, most, seed)
    patience = Patience(message_timeout_ns=int(case.policy.response_timeout_s * 1e9))
    answering = len(listeners(case.lab, case.flows, case.configs))
    if open_files_limit < 0:
        return case
    return within_open_files(case, lambda schedule: open_files(schedule, answering, patience), open_files_limit, seed)


def within(case: Case, most: int, seed: int) -> Case:
    """The case with at most so many flows over sockets: by priority, then a seeded share of every class."""
    over_sockets = {script.flow_id for script in case.schedule.scripts}
    flows = case.flows[case.flows["flow_id"].isin(list(over_sockets))]
    if len(flows) <= most:
        return case
    return _reduced(case, sampled(flows, most, seed))


def thinner(case: Case, share: float, seed: int) -> Case:
    """The case with every critical flow and this share of every other class, of what goes over sockets."""
    over_sockets = {script.flow_id for script in case.schedule.scripts}
    return _reduced(case, thinned(case.flows[case.flows["flow_id"].isin(list(over_sockets))], share, seed))


def within_open_files(case: Case, needed: Callable[[Schedule], int], limit: int, seed: int) -> Case:
    """The case with as many flows as may be open at once; Unsupported where critical ones alone are too many.

    `needed` says how many a schedule needs at once.
    """
    if needed(case.schedule) <= limit:
        return case
    critical = int((case.flows["priority"] == "critical").sum())
    fits, too_many = 0, len(case.flows)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if needed(within(case, middle, seed).schedule) <= limit:
            fits = middle
        else:
            too_many = middle
    if fits < max(critical, 1):
        raise Unsupported(
            f"{critical} critical flows and what they need open at once are more than the {limit} files allowed",
            "lower the speed, raise the limit (ulimit -n), or choose with --max-flows",
        )
    return within(case, fits, seed)


def told(shares: Sequence[Share]) -> str:
    """What was sampled away, in one sentence: by class, the most important first."""
    offered, replayed = sum(one.offered for one in shares), sum(one.replayed for one in shares)
    cut = [
        f"{one.flow_class} {one.replayed} of {one.offered} ({one.priority})"
        for one in shares
        if one.replayed < one.offered
    ]
    return f"{replayed} of {offered} flows are replayed: {', '.join(cut)}"


def _reduced(case: Case, sample: Sample) -> Case:
    away = {script.flow_id for script in case.schedule.scripts} - sample.kept
    scripts = tuple(script for script in case.schedule.scripts if script.flow_id not in away)
    flows = case.flows[~case.flows["flow_id"].isin(list(away))].reset_index(drop=True)
    left_out = {**case.placed.left_out, **dict.fromkeys(sorted(away), AWAY)}
    return replace(
        case,
        placed=Placed(flows, left_out),
        schedule=replace(case.schedule, scripts=scripts),
        sampled=sample.shares,
    )
