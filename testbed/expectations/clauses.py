"""Each part of an intent held against the flows and probes it matches: met, not met, or not tested, and why.

Pure.  May not know what a state means for a verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from analysis.judge import Judgement
from analysis.kpi import KPIS
from analysis.verdict import Severity, Verdict
from analysis.words import plural
from testbed.expectations.model import Fate, Intent
from testbed.expectations.seen import FLOW
from testbed.expectations.words import FATE_WORDS, bound, wanted_traffic
from topologies.model import Topology

TOLD = 3
Way = tuple[str, ...]


class State(StrEnum):
    """What became of a declared change."""

    MET = "met"
    NOT_MET = "not_met"
    NOT_TESTED = "not_tested"


@dataclass(frozen=True, slots=True)
class Clause:
    """One part's state and a sentence; `flows` are those it rests on, `judged` says that a finding of its own tells it.

    `absent`: nothing moved at all, which is no harm where the move is only allowed.
    """

    state: State
    said: str
    flows: tuple[str, ...] = ()
    judged: bool = False
    absent: bool = False


def of_intent(intent: Intent, items: pd.DataFrame, topology: Topology, judgement: Judgement) -> tuple[Clause, ...]:
    """Every part of the intent; `items` are the rows of `seen` that it matches."""
    return tuple(_clauses(intent, items, topology, judgement))


def worst(clauses: Sequence[Clause]) -> State:
    """Not met before not tested before met."""
    states = {clause.state for clause in clauses}
    return next(state for state in (State.NOT_MET, State.NOT_TESTED, State.MET) if state in states)


def _clauses(intent: Intent, items: pd.DataFrame, topology: Topology, judgement: Judgement) -> Iterator[Clause]:
    if intent.becomes is not None:
        yield _becomes(intent, intent.becomes, items)
    if intent.via:
        yield _way(intent, items, f"by way of {' and '.join(intent.via)}", lambda way: set(intent.via) <= set(way))
    if intent.not_via:
        words = f"not by way of {' or '.join(intent.not_via)}"
        yield _way(intent, items, words, lambda way: not set(intent.not_via) & set(way))
    if intent.backend:
        yield _way(intent, items, f"to {' or '.join(intent.backend)}", lambda way: way[-1] in intent.backend)
    if intent.translated_to is not None:
        owner = topology.owner(intent.translated_to)
        end = owner.name if owner is not None else ""
        yield _way(intent, items, f"translated to {intent.translated_to}", lambda way: way[-1] == end)
    for kpi in intent.bounds:
        yield _bound(intent, kpi, items, judgement)


def _becomes(intent: Intent, becomes: tuple[Fate | None, Fate], items: pd.DataFrame) -> Clause:
    """Where it is demanded every observed flow has to move; of unused ways one is enough to open, all have to close."""
    was, now = becomes
    known = items[(items["before"] != "") & (items["after"] != "")] if len(items) else items
    if known.empty:
        return _not_tested(intent, items)
    moves = list(zip(known["before"].tolist(), known["after"].tolist(), strict=True))
    moved = np.array([intent.explains(before, after) for before, after in moves])
    stayed = np.array([(was is None or was.covers(before)) and not now.covers(after) for before, after in moves])
    still = known[stayed]
    if not intent.demanded and moved.any():
        stayed[:] = False
    elif now is Fate.PERMITTED and moved.any():
        stayed &= (known["kind"] == FLOW).to_numpy(np.bool_)
    if moved.any() and not stayed.any():
        also = f"; {_count(still)} {_move(still)}: {_listed(_ends(still))}" if len(still) else ""
        return Clause(State.MET, f"{_count(known[moved])} {_move(known[moved])}{also}", _flows(known[moved]))
    if stayed.any():
        rest = known[stayed]
        of = f"{_count(rest)} of {_count(known)}" if moved.any() else f"all of {_count(rest)}"
        return Clause(
            State.NOT_MET, f"{of} {_move(rest)}: {_listed(_ends(rest))}", _flows(rest), absent=not moved.any()
        )
    return Clause(State.NOT_MET, f"{_count(known)} {_move(known)}", _flows(known), absent=True)


def _way(intent: Intent, items: pd.DataFrame, words: str, fits: Callable[[Way], bool]) -> Clause:
    """A condition on every path that was taken with the change in force."""
    taken = items[[bool(ways) for ways in items["ways_after"].tolist()]] if len(items) else items
    if taken.empty:
        return _not_tested(intent, items)
    kept = [all(fits(tuple(way.split(">"))) for way in ways) for ways in taken["ways_after"].tolist()]
    if all(kept):
        return Clause(State.MET, f"{_count(taken)} {words}", _flows(taken))
    other = taken[[not one for one in kept]]
    example = other["ways_after"].tolist()[0][0].replace(">", " > ")
    said = f"{_count(other)} of {_count(taken)} not {words}, but {example}".replace("not not ", "")
    return Clause(State.NOT_MET, said, _flows(other), absent=not any(kept))


def _bound(intent: Intent, kpi: str, items: pd.DataFrame, judgement: Judgement) -> Clause:
    words = f"{KPIS[kpi].label} {bound(KPIS[kpi], intent.bounds[kpi])}"
    own = set(_flows(items)) if len(items) else set()
    if not own:
        return _not_tested(intent, items)
    moved = [intent.explains(*move) for move in zip(items["before"].tolist(), items["after"].tolist(), strict=True)]
    own -= set(_flows(items[moved]))
    if not own:
        return Clause(State.NOT_TESTED, f"{words}: its flows all became something else, with nothing to compare")
    classes = {str(name) for name in items["flow_class"].tolist()}
    told = [
        f
        for f in judgement.findings
        if f.kpi == kpi and (own.intersection(f.flows) or (not f.flows and f.subject in classes))
    ]
    flows = tuple(sorted(own))
    for severity, state in ((Severity.FAIL, State.NOT_MET), (Severity.WARN, State.NOT_TESTED)):
        found = next((f for f in told if f.verdict is severity), None)
        if found is not None:
            return Clause(state, f"{words}: {found.effect}", flows, judged=True)
    if judgement.verdict is Verdict.INCONCLUSIVE and judgement.reason:
        return Clause(State.NOT_TESTED, f"{words}: {judgement.reason}", flows, judged=True)
    return Clause(State.MET, f"{words}, over {plural(len(own), 'flow')}", flows)


def _not_tested(intent: Intent, items: pd.DataFrame) -> Clause:
    if items.empty:
        why = f"no captured flow and no probe is of it; what would test it: {wanted_traffic(intent.match)}"
    else:
        why = f"{_count(items)} of it gave no steady answer"
    return Clause(State.NOT_TESTED, why, _flows(items) if len(items) else ())


def _flows(items: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(map(str, items["name"][items["kind"] == FLOW].tolist())))


def _count(items: pd.DataFrame) -> str:
    flows = int((items["kind"] == FLOW).sum())
    probes = len(items) - flows
    parts = [plural(flows, "flow")] if flows else []
    parts += [plural(probes, "probe")] if probes or not flows else []
    return " and ".join(parts)


def _move(items: pd.DataFrame) -> str:
    """ "denied → permitted", or "still timed out" where nothing moved; what most did."""
    moves = Counter(zip(items["before"].tolist(), items["after"].tolist(), strict=True))
    (before, after), _ = max(moves.items(), key=lambda one: (one[1], one[0]))
    if before == after:
        return f"still {FATE_WORDS.get(after, after)}"
    return f"{FATE_WORDS.get(before, before)} → {FATE_WORDS.get(after, after)}"


def _ends(items: pd.DataFrame) -> list[str]:
    columns = ("source_address", "destination_address", "destination_port")
    rows = zip(*(items[name].tolist() for name in columns), strict=True)
    return list(dict.fromkeys(f"{source} → {to} port {port}" for source, to, port in rows))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more
