"""What every importer gives: a topology, the contents of its files, and notes on what could not be honoured.

Pure values. This file may not know any format that labs are imported from, nor how a lab is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from topologies.model import Topology

Files = Mapping[tuple[str, str], bytes]
"""Contents of config files by (node, config name), where a name is as in `Node.configs`."""

Position = tuple[float, float]
"""Where a node is drawn: x grows to the right, y upwards, in any unit."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something a source asks for that is done otherwise or not at all, so that nothing is dropped in silence."""

    path: Path
    line: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Imported:
    """A network read from elsewhere; the `configs` of its nodes are empty, as `files` holds their contents."""

    topology: Topology
    files: Files = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    captures: Mapping[str, bytes] = field(default_factory=dict)
    positions: Mapping[str, Position] = field(default_factory=dict)
