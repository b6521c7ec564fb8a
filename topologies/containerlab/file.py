"""containerlab files (`*.clab.yml`) read into a lab; whatever a lab cannot honour is noted with its line.

    levels    defaults, kinds, groups and the node's own keys, laid over each other
    links     both forms                    nodes    one node with its files
This file joins them. It may not know how a lab is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from topologies.containerlab.levels import all_levels, effective
from topologies.containerlab.links import cabling
from topologies.containerlab.nodes import built
from topologies.containerlab.schema import ClabFile
from topologies.imported import Imported, Note
from topologies.load import KNOWN_KINDS
from topologies.located import InvalidLab, Located, read_located
from topologies.model import IpAddress, Topology
from topologies.names import free_name

SUFFIXES = (".clab.yml", ".clab.yaml")
_VARIABLE = re.compile(r"\$\{[^}\s]{1,200}\}|\$[A-Za-z_][A-Za-z0-9_]{0,100}")
NO_MANAGEMENT = "a shadow has no management network"
NO_CONTAINER = "no container is run"
WHY = {
    "mgmt": NO_MANAGEMENT,
    "mgmt-ipv4": NO_MANAGEMENT,
    "mgmt-ipv6": NO_MANAGEMENT,
    "network-mode": NO_MANAGEMENT,
    "ports": "nothing outside the shadow reaches a node",
    "labels": "they are for containerlab's own tools",
    "stages": "a shadow is ready by protocol state, not by stages",
    "license": "nothing that needs a license is run",
    "cpu": NO_CONTAINER,
    "cpu-set": NO_CONTAINER,
    "memory": NO_CONTAINER,
    "image-pull-policy": NO_CONTAINER,
    "restart-policy": NO_CONTAINER,
    "user": NO_CONTAINER,
    "healthcheck": "readiness is protocol state",
    "prefix": "names of containers have no counterpart",
}
"""Of keys that have no counterpart in a lab, what to say of them."""


def from_containerlab(path: Path, kinds: frozenset[str] = KNOWN_KINDS) -> Imported:
    """The lab of a containerlab file; InvalidLab tells every mistake and every node that cannot be run."""
    lab = read_located(path, ClabFile)
    cables = cabling(lab)
    notes, problems = [*_unread(lab), *cables.notes], list(cables.problems)
    owners: dict[IpAddress, str] = {}
    of_nodes: dict[Note, list[str]] = {}
    nodes, files = [], {}
    for name in lab.model.topology.nodes:
        made = built(path, effective(lab, name), cables.ends.get(name, []), owners, kinds)
        nodes.append(made.node)
        files.update({(name, file): content for file, content in made.files.items()})
        for note in made.notes:
            of_nodes.setdefault(note, []).append(name)
        problems += made.problems
    if problems:
        raise InvalidLab.of(problems)
    notes += [replace(note, what=f"{', '.join(names)}: {note.what}") for note, names in of_nodes.items()]
    valid = free_name(lab.model.name, set(), "lab")
    if valid != lab.model.name:
        notes.append(Note(path, lab.line("name"), f"the name {lab.model.name!r}", f"the lab is named {valid}"))
    notes += _variables(path)
    told = tuple(sorted(dict.fromkeys(notes), key=lambda note: (note.line, note.what)))
    return Imported(Topology(valid, tuple(nodes), tuple(cables.links)), files, told)


def _unread(lab: Located[ClabFile]) -> Iterator[Note]:
    """Keys that are known to containerlab, or to nobody, and change nothing here."""
    for key in lab.model.unknown:
        yield _note(lab, key, (key,))
    for key in lab.model.topology.unknown:
        yield _note(lab, f"topology.{key}", ("topology", key))
    for loc, keys in all_levels(lab):
        where = ".".join(str(step) for step in loc[1:])
        for key in keys.unknown:
            yield _note(lab, f"{where}.{key}", (*loc, key))
        for key in ("labels", "ports"):
            if getattr(keys, key):
                yield _note(lab, f"{where}.{key}", (*loc, key))


def _note(lab: Located[ClabFile], what: str, loc: tuple[str | int, ...]) -> Note:
    line = lab.problem(loc, "", "", at_key=True).line
    return Note(lab.path, line, what, WHY.get(str(loc[-1]), "it has no counterpart in a lab"))


def _variables(path: Path) -> Iterator[Note]:
    """containerlab fills in `${NAME}` from its caller's environment; a lab is the same wherever it is read."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        for variable in _VARIABLE.findall(line.partition("#")[0]):
            yield Note(path, number, variable, "not filled in from the environment: write the value")
