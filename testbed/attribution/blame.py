"""The culprit of every finding: suspects of all kinds for the same flows, weighed, and the best one told.

Composition only: what a rule, a route, a proxy or a link does is known elsewhere.  Where nothing
speaks against anybody, nobody is blamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from analysis.verdict import Blame, Finding, Scope, Severity
from testbed.attribution import links, proxy, routes, rules, sets, settings
from testbed.attribution.edits import is_remark, successor
from testbed.attribution.scene import Scene
from testbed.attribution.suspect import Ground, Suspect, where
from testbed.attribution.symptoms import grave, symptoms
from testbed.change.model import Change, Line
from topologies.load import Lab

ROOMS = (rules.suspects, sets.suspects, routes.suspects, proxy.suspects, links.suspects, settings.suspects)
TOLD = 12
"""Sentences of evidence at most; more does not convince anybody."""


def blamed(
    findings: Sequence[Finding],
    change: Change,
    lab: Lab,
    counters: pd.DataFrame,
    flows: pd.DataFrame,
    paths: Mapping[str, Sequence[str]],
    later: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[Finding, ...]:
    """The findings with a culprit named where one can be: its node, object, file, line and evidence with numbers.

    FAIL and WARN are blamed, INFO is left alone.  `paths` gives a flow's nodes from client to server
    in the baseline, `later` with the change in force; a flow without one may have passed any node.
    """
    scene = Scene.of(change, lab, counters, flows, paths, later)
    classes = _classes(flows)
    known: dict[tuple[str, ...], Blame | None] = {}
    told = []
    for finding in findings:
        if finding.verdict is Severity.INFO:
            told.append(finding)
            continue
        subject = tuple(f for f in _flows(finding, classes) if f in scene.journeys)
        if subject not in known:
            known[subject] = _culprit(scene, subject) if subject else None
        blame = known[subject]
        told.append(finding if blame is None else finding.with_blame(blame))
    return tuple(told)


def _flows(finding: Finding, classes: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if finding.flows:
        return finding.flows
    if finding.scope is Scope.NETWORK:
        return tuple(flow for members in classes.values() for flow in members)
    return classes.get(finding.subject, (finding.subject,))


def _classes(flows: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    if "flow_class" not in flows:
        return {"": tuple(str(flow) for flow in flows["flow_id"])}
    grouped = flows.groupby("flow_class", sort=True)["flow_id"]
    return {str(name): tuple(str(flow) for flow in members) for name, members in grouped}


def _culprit(scene: Scene, flows: Sequence[str]) -> Blame | None:
    suspects = [suspect for room in ROOMS for suspect in room(scene, flows)]
    # what only stands near the flows is as good as any other line there
    held = [s for s in suspects if s.ground > Ground.ONLY_NEAR]
    if not any(s.line is not None for s in held):
        held += _nearby(scene, flows, [s for s in suspects if s.ground == Ground.ONLY_NEAR])
    if not any(s.line is not None for s in held):
        held += _suffered(scene, flows)
    if not held:
        return None
    ranked = sorted(held, key=lambda s: (-s.score(len(flows)), s.place))
    best = ranked[0]
    return best.blame(_seconded(best, ranked[1:], scene, flows))


def _seconded(best: Suspect, others: Sequence[Suspect], scene: Scene, flows: Sequence[str]) -> list[str]:
    """What else was seen: the same for the other IP version, other changed lines, and rules that lay in wait."""
    said: list[str] = []
    for other in others:
        if other.line is not None and other.line != best.line and other.ground >= Ground.PLAUSIBLE:
            twin = "the other IP version: " if not other.flows & best.flows else "also: "
            if not any(where(other.line) in sentence for sentence in (*best.evidence, *said)):
                said.append(f"{twin}{where(other.line)}; {other.evidence[0]}")
        elif other.line is None and other.number is not None and other.flows & best.flows:
            said.append(f"not part of the change: {other.file}:{other.number} — {other.evidence[0]}")
    if best.ground in (Ground.ONLY_NEAR, Ground.LATENT):
        said += routes.turns_told(scene, flows)
    told = "\n".join((*best.evidence, *said))
    said += [one.sentence for one in symptoms(scene, flows) if one.sentence not in told]
    room = max(TOLD - len(best.evidence), 3)
    return said[:room]


def _suffered(scene: Scene, flows: Sequence[str]) -> list[Suspect]:
    """What a node on the way can no longer do, where no line of the change is held for it: a limit that was there."""
    found = []
    for place, one in enumerate(one for one in symptoms(scene, flows) if grave(one)):
        said = (one.sentence, "this limit is not part of the change: it was there before")
        label = f"{one.kind} {one.object}".strip()
        passing = scene.passing(flows, one.node)
        found.append(Suspect(Ground.LATENT, one.node, label, None, said, passing, (place,)))
    return found


def _nearby(scene: Scene, flows: Sequence[str], weak: Sequence[Suspect]) -> list[Suspect]:
    """The changed lines on the flows' way, when no counter speaks: a guess that says that it is one."""
    order = scene.nodes(flows)
    lines = [line for line in scene.change.lines if line.node in order and _acts(scene, line)]
    silent = {s.line: s for s in weak if s.line is not None}
    found = []
    for line in lines:
        if len(lines) == 1:
            said = ["the only changed line on these flows' path"]
        else:
            said = [f"one of {len(lines)} changed lines on these flows' path; no counter tells which"]
        known = silent.get(line)
        said += known.evidence if known else ()
        place = (known is not None, line.sign == "-", order.index(line.node), line.line)
        label = known.object if known else line.text.strip()
        explained = scene.passing(flows, line.node)
        found.append(Suspect(Ground.ONLY_NEAR, line.node, label, line, tuple(said), explained, place))
    return found


def _acts(scene: Scene, line: Line) -> bool:
    """Whether the line does something, and is not just the old form of another one."""
    return not is_remark(line.text) and (line.sign == "+" or successor(line, scene.edits) is None)
