"""Where a lab can come from, and which reader each form of a source has.

    FOLDER                      a folder with lab.yaml, used where it is
    FILE.clab.yml|yaml          containerlab
    FILE.py[:TOPO[,ARGS]]       Mininet; mininet:NAME[,ARGS] for its own topologies
    FILE.graphml                GraphML in the shape of the Topology Zoo
    topohub:NAME[?OPTIONS]      a network of the topohub package

All but the first are written as native labs. This file may not know what is in any of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from topologies.containerlab.file import SUFFIXES, from_containerlab
from topologies.graphml import from_graphml
from topologies.imported import Imported, Note, Position
from topologies.load import KNOWN_KINDS, LAB_FILE, Lab, load_lab
from topologies.located import InvalidLab
from topologies.mininet.topo import PREFIX as MININET
from topologies.mininet.topo import from_mininet
from topologies.topohub_names import PREFIX as TOPOHUB
from topologies.topohub_names import from_topohub
from topologies.write import write_lab

CHOICES = (
    f"a folder with {LAB_FILE}, FILE.clab.yml, FILE.py[:TOPO[,ARGS]], mininet:NAME[,ARGS], FILE.graphml or topohub:NAME"
)
_PYTHON = re.compile(r".+\.py(:.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Opened:
    """A lab from any source; `notes` tell what of the source is not honoured, `positions` where nodes are drawn."""

    lab: Lab
    notes: tuple[Note, ...] = ()
    positions: Mapping[str, Position] = field(default_factory=dict, hash=False)


def opened(source: str, work: Path, kinds: frozenset[str] = KNOWN_KINDS) -> Opened:
    """The lab of a source, written into the empty folder `work` unless it is a native lab; raises InvalidLab."""
    folder = Path(source)
    if _exists(folder) and folder.is_dir() and not source.startswith((MININET, TOPOHUB)):
        return Opened(load_lab(folder, kinds))
    made = imported(source, kinds)
    return Opened(write_lab(made.topology, made.files, work, made.captures, kinds), made.notes, made.positions)


def imported(source: str, kinds: frozenset[str] = KNOWN_KINDS) -> Imported:
    """What a source that is no native lab comes to, with nothing written; InvalidLab, with the choices, for others."""
    if "\0" in source:
        raise InvalidLab(Path(source.replace("\0", "?")), 1, 1, "a NUL in the name", CHOICES)
    if source.startswith(TOPOHUB):
        return from_topohub(source)
    if source.startswith(MININET) or _PYTHON.fullmatch(source):
        return from_mininet(source)
    if source.endswith((*SUFFIXES, ".graphml")):
        path = Path(source)
        if not _exists(path):
            raise InvalidLab(path, 1, 1, "no such file", CHOICES)
        return from_graphml(path) if source.endswith(".graphml") else from_containerlab(path, kinds)
    raise InvalidLab(Path(source), 1, 1, "no lab" if _exists(Path(source)) else "no such lab", CHOICES)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
