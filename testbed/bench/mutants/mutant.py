"""A mutant: operators on a lab's production files, and what they do to its flows by the way they were made.

The truth (harmful or not, which classes of flows, which line) is written beside the operator, with the reason in one
sentence; nothing here may know the judge or ask it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.bench.mutants.lines import ConfigText
from testbed.bench.mutants.operators import Operator, TrueLine


@dataclass(frozen=True, slots=True)
class Step:
    """An operator on one file of one node."""

    node: str
    file: str
    operator: Operator


@dataclass(frozen=True, slots=True)
class LinkStep:
    """Another MTU on the link between two `node:interface` ends."""

    a: str
    b: str
    mtu: int

    @property
    def text(self) -> str:
        """The line of change.yaml."""
        return f'{{endpoints: ["{self.a}", "{self.b}"], mtu: {self.mtu}}}'


@dataclass(frozen=True, slots=True)
class Harm:
    """What a harmful mutant does: flows of these classes suffer, or something opens that production refused.

    `latent` are lines that no step touched and that are as much to blame: a fault that was there and is uncovered.
    `ours` are the touched lines that did it, by a part of their text, where not all of them did.
    """

    classes: tuple[str, ...] = ()
    opens: bool = False
    latent: tuple[TrueLine, ...] = ()
    ours: str = ""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One case; without `harm` it is equivalent: no flow of the lab can tell it from the original."""

    name: str
    family: str
    why: str
    steps: tuple[Step, ...] = ()
    link: LinkStep | None = None
    harm: Harm | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A mutant made of a lab's files: the files as they become, and the lines that are to blame if it does harm."""

    mutant: Mutant
    files: Mapping[tuple[str, str], str]
    guilty: tuple[TrueLine, ...]

    def write(self, folder: Path) -> Path:
        """A change folder with nothing of the truth in it; returns its path."""
        target = folder / self.mutant.name
        for (node, file), text in self.files.items():
            path = target / "configs" / node / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if self.mutant.link is not None:
            target.mkdir(parents=True, exist_ok=True)
            (target / "change.yaml").write_text(f"links:\n  - {self.mutant.link.text}\n")
        return target


def made(mutant: Mutant, lab: Path) -> Made:
    """Apply the mutant's steps to the lab's files in order; raises NoSuchLine where a target is not there once."""
    files: dict[tuple[str, str], str] = {}
    touched: list[TrueLine] = []
    for step in mutant.steps:
        key = (step.node, step.file)
        edited = step.operator(ConfigText.of(*key, files.get(key, _read(lab, *key))))
        files[key] = edited.text
        touched += edited.touched
    harm = mutant.harm or Harm()
    guilty = [line for line in touched if harm.ours in line.text]
    if mutant.link is not None:
        node = mutant.link.a.partition(":")[0]
        guilty.append(TrueLine(node, "change.yaml", mutant.link.text))
    return Made(mutant, files, tuple(dict.fromkeys((*guilty, *harm.latent))))


def _read(lab: Path, node: str, file: str) -> str:
    path = lab / "configs" / node / file
    return path.read_text() if path.exists() else ""


def unequal(mutants: Sequence[Mutant]) -> list[str]:
    """Names that more than one mutant has."""
    names = [mutant.name for mutant in mutants]
    return sorted({name for name in names if names.count(name) > 1})
