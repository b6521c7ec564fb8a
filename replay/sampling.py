"""Which flows are replayed when there is not room for all: by priority, then a fair share of every class. Pure.

Knows the flow table and a number, not what makes the room short. The same flows, number and seed give the same choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import pandas as pd

from replay.flow_priority import PRIORITIES


@dataclass(frozen=True, slots=True)
class Share:
    """How many flows of a class were offered and how many of them are replayed."""

    flow_class: str
    priority: str
    offered: int
    replayed: int

    def to_json(self) -> dict[str, object]:
        """As in run.json and verdict.json."""
        return {
            "class": self.flow_class,
            "priority": self.priority,
            "offered": self.offered,
            "replayed": self.replayed,
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """The flow_ids that are replayed, and every class's share: by priority, then the largest first."""

    kept: frozenset[str]
    shares: tuple[Share, ...]

    @property
    def replayed(self) -> int:
        """How many flows are left."""
        return len(self.kept)


def sampled(flows: pd.DataFrame, most: int, seed: int) -> Sample:
    """At most `most` of the flows; the table needs flow_id, flow_class and priority.

    A priority is touched only when nothing lower is left. Within the one that has not room for all, classes keep
    shares in proportion to their flows, at least one each while there is room, the largest classes first; which flows
    of a class stay is drawn by the seed. Raises ValueError for a negative number.
    """
    if most < 0:
        raise ValueError(f"found {most} flows at most, expected none or more")
    kept: set[str] = set()
    shares: list[Share] = []
    columns = (flows[name].tolist() for name in ("flow_id", "flow_class", "priority"))
    members: dict[tuple[str, str], list[str]] = {}
    for flow_id, flow_class, priority in zip(*columns, strict=True):
        members.setdefault((str(priority), str(flow_class)), []).append(str(flow_id))
    for priority in PRIORITIES:
        classes = {name: ids for (of, name), ids in members.items() if of == priority}
        quotas = _quotas({name: len(ids) for name, ids in classes.items()}, most - len(kept))
        for name, ids in sorted(classes.items(), key=lambda one: (-len(one[1]), one[0])):
            chosen = ids if quotas[name] == len(ids) else sorted(ids, key=lambda one: _drawn(seed, one))[: quotas[name]]
            kept.update(chosen)
            shares.append(Share(name, priority, len(ids), len(chosen)))
    return Sample(frozenset(kept), tuple(shares))


def thinned(flows: pd.DataFrame, share: float, seed: int) -> Sample:
    """This share of every class that is not critical, at least one flow of each; critical flows stay.

    The table needs flow_id, flow_class and priority. Raises ValueError for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"found a share of {share}, expected 0 to 1")
    kept: set[str] = set()
    shares: list[Share] = []
    for (priority, name), own in flows.groupby(["priority", "flow_class"], sort=True):
        ids = [str(flow_id) for flow_id in own["flow_id"]]
        most = len(ids) if priority == PRIORITIES[0] else max(1, round(share * len(ids)))
        kept.update(sorted(ids, key=lambda one: _drawn(seed, one))[:most])
        shares.append(Share(str(name), str(priority), len(ids), most))
    shares.sort(key=lambda one: (PRIORITIES.index(one.priority), -one.offered, one.flow_class))
    return Sample(frozenset(kept), tuple(shares))


def _quotas(sizes: Mapping[str, int], room: int) -> dict[str, int]:
    """How many of each class stay: one each as far as there is room, the rest by largest remainder."""
    total = sum(sizes.values())
    if total <= room:
        return dict(sizes)
    order = sorted(sizes, key=lambda name: (-sizes[name], name))
    quotas = {name: int(place < room) for place, name in enumerate(order)}
    rest = room - sum(quotas.values())
    if rest <= 0:
        return quotas
    beyond = {name: sizes[name] - quotas[name] for name in order}
    exact = {name: rest * beyond[name] / sum(beyond.values()) for name in order}
    for name in order:
        quotas[name] += int(exact[name])
    left = room - sum(quotas.values())
    for name in sorted(order, key=lambda one: (int(exact[one]) - exact[one], -sizes[one], one))[:left]:
        quotas[name] += 1
    return quotas


def _drawn(seed: int, flow_id: str) -> bytes:
    return blake2b(f"{seed}|{flow_id}".encode(), digest_size=8).digest()
