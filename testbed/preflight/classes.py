"""One probe for every class of the observed flow control model: the shortest of its flows that went as most did.

Pure.  Knows flows and scripts, no shadow and no change.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import pandas as pd

from replay.first_exchange import first_exchange, opening_octets
from replay.ofcm.membership import class_of_flows
from replay.schedule import ECHO, FlowScript, Schedule
from testbed.preflight.probe import PROTOCOL_WORDS, Kind, Probe

APART_NS = 2_000_000
"""Between the starts of two probes: all at once, but not in one burst that a short queue drops."""


LOOKED_AT = 200
"""So many flows of a class are looked at for the shortest."""


def class_probes(flows: pd.DataFrame, schedule: Schedule) -> list[Probe]:
    """A probe for every class and, where the policy parts a class further, for every part; most flows first."""
    scripts = {script.flow_id: script for script in schedule.scripts}
    known = flows[flows["flow_id"].isin(list(scripts))].reset_index(drop=True)
    if known.empty:
        return []
    of, names = class_of_flows(known)
    called = names.to_dict("records")
    groups: dict[tuple[int, str, str], list[dict[str, str]]] = {}
    for place, row in zip(of.tolist(), known.to_dict("records"), strict=True):
        key = (place, str(row["flow_class"]), str(row["outcome"]))
        groups.setdefault(key, []).append({str(name): str(value) for name, value in row.items()})
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [_probe(members, called[key[0]], scripts, number) for number, (key, members) in enumerate(ranked)]


def _probe(
    members: list[dict[str, str]], name: Mapping[Hashable, object], scripts: Mapping[str, FlowScript], number: int
) -> Probe:
    own = [(row.get("grade") != "payload", scripts[row["flow_id"]]) for row in members[:LOOKED_AT]]
    *_, best = min(own, key=lambda one: (one[0], opening_octets(one[1]), one[1].start_ns, one[1].flow_id))
    first = members[0]
    port, protocol = int(str(name["port"])), int(str(name["protocol"]))
    asked = "echo" if protocol in ECHO else "rare ports" if port < 0 else port
    service = f"{PROTOCOL_WORDS.get(protocol, str(protocol))}/{asked}"
    return Probe(
        kind=Kind.CLASS,
        script=first_exchange(best, f"preflight{number}", number * APART_NS),
        subject=f"{name['source']} → {name['destination']} {service} {name['application']}".rstrip(),
        flow_class=first["flow_class"],
        priority=first["priority"],
        flows=len(members),
        expected=first["outcome"],
        members=tuple(row["flow_id"] for row in members),
    )
