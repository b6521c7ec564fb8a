"""What became of every flow and every probe, before the change and with it: one table for all that is declared.

Tables in, a table out.  A flow counts by the windows that are valid, and only where it ended alike in all of a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.pairs.design import Arm
from analysis.reach import ACCEPTED, BROKEN, CLASS, UNMEASURED
from analysis.window import Role

FLOW, PROBE = "flow", "probe"
COLUMNS = (
    "kind",
    "name",
    "protocol",
    "source_address",
    "destination_address",
    "destination_port",
    "flow_class",
    "priority",
    "label",
    "application",
    "before",
    "after",
    "ways_before",
    "ways_after",
)
"""`before` and `after` are outcomes as the flow table has them, "" where nobody can tell; ways are tuples of paths."""

_ENDED: Mapping[str, str] = {
    "none": ACCEPTED,
    "refused": "reset",
    "reset": "reset",
    "unreachable": "denied",
    "timeout": "unanswered",
    "not_started": UNMEASURED,
}
_WAY = ("protocol", "source_address", "destination_address", "destination_port")
_AS_IS = frozenset({Arm.AS_IS.value, Arm.CONTROL.value})


def seen(
    flows: pd.DataFrame, kpis: pd.DataFrame, records: Sequence[Mapping[str, object]], dispositions: pd.DataFrame
) -> pd.DataFrame:
    """COLUMNS, flows first.  Without windows the flows are not there, and the probes of their classes stand for them.

    `kpis` are those of all windows, `records` the instrument's, `dispositions` the preflight's table; any may be empty.
    """
    played = _flows(flows, kpis, records)
    probes = _probes(dispositions, with_classes=played.empty)
    parts = [part for part in (_let_through(played, dispositions), probes) if not part.empty]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def sides(records: Sequence[Mapping[str, object]]) -> tuple[list[int], list[int]]:
    """The windows that count, before the change and with it; of a run in pairs those of its arms."""
    in_pairs = any(record["arm"] for record in records)
    early, late = [], []
    for record in records:
        window, arm, role = int(str(record["window"])), str(record["arm"]), str(record["role"])
        if not record["valid"] or (in_pairs and not arm):
            continue
        if arm in _AS_IS or (not arm and role == Role.BASELINE.value):
            early.append(window)
        elif arm == Arm.CHANGED.value or (not arm and role == Role.TREATMENT.value):
            late.append(window)
    return early, late


def _flows(flows: pd.DataFrame, kpis: pd.DataFrame, records: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    early, late = sides(records)
    if flows.empty or kpis.empty or not early or not late:
        return pd.DataFrame(columns=list(COLUMNS))
    told = flows.set_index("flow_id", drop=False)
    columns = {name: told.get(name, "") for name in COLUMNS[2:10]}
    found = pd.DataFrame(columns, index=told.index).assign(kind=FLOW, name=told["flow_id"])
    for side, windows in (("before", early), ("after", late)):
        part = kpis[kpis["window"].isin(windows)]
        ended = part["error"].map(lambda error: _ENDED.get(str(error), BROKEN)).where(~part["completed"], ACCEPTED)
        by_flow = ended.groupby(part["flow_id"])
        steady = (by_flow.nunique() == 1) & (by_flow.count() == len(windows))
        fate = by_flow.first().where(steady, "").replace({UNMEASURED: ""})
        found[side] = fate.reindex(found.index).fillna("")
        ways: dict[str, set[str]] = {}
        for flow, path in zip(part["flow_id"].tolist(), part["path"].tolist(), strict=True):
            ways.setdefault(str(flow), set()).update((path,) if path else ())
        found[f"ways_{side}"] = [tuple(sorted(ways.get(str(flow), ()))) for flow in found.index]
    return found.reset_index(drop=True)[list(COLUMNS)]


def _probes(dispositions: pd.DataFrame, *, with_classes: bool) -> pd.DataFrame:
    own = dispositions if with_classes or dispositions.empty else dispositions[dispositions["kind"] != CLASS]
    if own.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    found = own.rename(columns={"probe_id": "name"}).assign(kind=PROBE)
    for side in ("before", "after"):
        found[side] = found[side].replace({UNMEASURED: ""})
    found = found[found["after"] != ""]
    let_in = (found["after"] == ACCEPTED).tolist()
    ways = [(path,) if path else () for path in found["path"].tolist()]
    found["ways_after"] = [way if now else () for way, now in zip(ways, let_in, strict=True)]
    found["ways_before"] = [() if now else way for way, now in zip(ways, let_in, strict=True)]
    return found.reindex(columns=list(COLUMNS)).reset_index(drop=True)


def _let_through(played: pd.DataFrame, dispositions: pd.DataFrame) -> pd.DataFrame:
    """The flows; those that nobody answers count as accepted where a probe of the same way with somebody there got in.

    A host refuses what a filter let pass when nobody listens, and a lone datagram has no answer anyway.
    """
    if played.empty or dispositions.empty:
        return played
    probes = dispositions[dispositions["kind"] != CLASS]
    ways = list(zip(*(played[name].tolist() for name in _WAY), strict=True))
    never = ((played["before"] != ACCEPTED) & (played["after"] != ACCEPTED)).tolist()
    found = played.copy()
    for side in ("before", "after"):
        got_in = probes[probes[side] == ACCEPTED]
        through = set(zip(*(got_in[name].tolist() for name in _WAY), strict=True))
        fates = zip(played[side].tolist(), ways, never, strict=True)
        found[side] = [ACCEPTED if fate and alone and way in through else fate for fate, way, alone in fates]
    return found
