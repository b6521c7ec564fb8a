"""What a change is: files before and after, links, commands, and the very lines that a culprit is sought among.

Frozen values. This file may not know where a change was read from, nor how it is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from topologies.located import Strict
from topologies.model import Impairment


@dataclass(frozen=True, slots=True)
class Line:
    """One changed line, the unit of blame; numbered in the new file for '+', in the old one for '-'."""

    node: str
    file: str
    line: int
    sign: Literal["+", "-"]
    text: str
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class LinkChange:
    """What a link between two (node, interface) ends becomes, complete and in the order of the lab's own link."""

    a: tuple[str, str]
    b: tuple[str, str]
    a_to_b: Impairment
    b_to_a: Impairment
    mtu: int
    line: int


@dataclass(frozen=True, slots=True)
class CommandChange:
    """A program run on a node, without a shell, and the one that undoes it."""

    node: str
    run: tuple[str, ...]
    rollback: tuple[str, ...]
    line: int


class Blame(Strict):
    """Where the author of a change expects the blame, `text` and `evidence` in part; an absent key expects nothing."""

    node: str | None = None
    file: str | None = None
    text: str | None = None
    evidence: str | None = None


class Expected(Strict):
    """What the author of a change expects of the testbed, which makes a change a golden test."""

    verdict: Literal["PASS", "FAIL"] | None = None
    classes: tuple[str, ...] = ()
    blame: Blame | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A change in hand; `before` and `after` hold the files that differ, by (node, file name below configs/<node>/).

    A file that the change creates is absent from `before`, one that it deletes is absent from `after`.
    """

    name: str
    source: Path
    before: Mapping[tuple[str, str], bytes] = field(default_factory=dict, hash=False)
    after: Mapping[tuple[str, str], bytes] = field(default_factory=dict, hash=False)
    links: tuple[LinkChange, ...] = ()
    commands: tuple[CommandChange, ...] = ()
    lines: tuple[Line, ...] = ()
    expected: Expected | None = None

    def touched(self, node: str) -> frozenset[str]:
        """The names of the files of a node that differ, so that only they are written and reloaded."""
        return frozenset(file for owner, file in (*self.before, *self.after) if owner == node)

    @property
    def nodes(self) -> frozenset[str]:
        """Every node that the change reaches by a file, a link or a command."""
        files = {node for node, _ in (*self.before, *self.after)}
        ends = {end[0] for link in self.links for end in (link.a, link.b)}
        return frozenset(files | ends | {command.node for command in self.commands})

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs: the A/A run."""
        return not (self.before or self.after or self.links or self.commands)
