"""What holds for a containerlab node after inheritance: defaults, then its kind, then its group, then its own keys.

    a word                 the most specific level that has it
    a mapping              merged, where the more specific level wins
    exec, ports            all, from general to specific
    binds                  all, where the more specific level wins at the same target

Every value keeps its line. This file may not know what a key is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from topologies.containerlab.binds import Bind, target_of
from topologies.containerlab.schema import ClabFile, NodeKeys
from topologies.located import Loc, Located

WORDS = ("kind", "image", "group", "cmd", "entrypoint", "startup_config")


@dataclass(frozen=True, slots=True)
class Line:
    """A word of the file and the line on which it stands."""

    text: str
    line: int


@dataclass(slots=True)
class Effective:
    """A node's keys after inheritance; `line` is where the node itself stands."""

    name: str
    line: int
    words: dict[str, Line] = field(default_factory=dict)
    binds: dict[str, Bind] = field(default_factory=dict)
    exec: list[Line] = field(default_factory=list)
    env: dict[str, Line] = field(default_factory=dict)
    sysctls: dict[str, Line] = field(default_factory=dict)

    def word(self, key: str) -> str:
        """The word of a key, or the empty text."""
        return self.words[key].text if key in self.words else ""


def all_levels(lab: Located[ClabFile]) -> Iterator[tuple[Loc, NodeKeys]]:
    """Every level of the file once, with its location."""
    topology = lab.model.topology
    yield ("topology", "defaults"), topology.defaults
    for section in ("kinds", "groups", "nodes"):
        for name, keys in getattr(topology, section).items():
            yield ("topology", section, name), keys


def effective(lab: Located[ClabFile], name: str) -> Effective:
    """One node's keys after inheritance."""
    topology = lab.model.topology
    own = topology.nodes[name]
    group = own.group or topology.defaults.group
    of_group = topology.groups.get(group or "")
    kind = own.kind or (of_group.kind if of_group else None) or topology.defaults.kind
    levels: list[tuple[Loc, NodeKeys | None]] = [
        (("topology", "defaults"), topology.defaults),
        (("topology", "kinds", kind or ""), topology.kinds.get(kind or "")),
        (("topology", "groups", group or ""), of_group),
        (("topology", "nodes", name), own),
    ]
    found = Effective(name, lab.problem(("topology", "nodes", name), "", "", at_key=True).line)
    for loc, keys in levels:
        if keys is not None:
            _lay_over(found, lab, loc, keys)
    if kind is not None:
        found.words["kind"] = Line(kind, found.words["kind"].line if "kind" in found.words else found.line)
    return found


def _lay_over(found: Effective, lab: Located[ClabFile], loc: Loc, keys: NodeKeys) -> None:
    for key in WORDS:
        value = getattr(keys, key)
        if value is not None:
            found.words[key] = Line(value, lab.line(*loc, key.replace("_", "-")))
    for i, text in enumerate(keys.binds):
        target = target_of(text)
        found.binds.pop(target, None)
        found.binds[target] = Bind(text, lab.line(*loc, "binds", i))
    found.exec += [Line(text, lab.line(*loc, "exec", i)) for i, text in enumerate(keys.exec)]
    for key, mapping in (("env", found.env), ("sysctls", found.sysctls)):
        for name, text in getattr(keys, key).items():
            mapping[name] = Line(text, lab.line(*loc, key, name))
