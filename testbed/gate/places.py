"""Where the culprits of a verdict stand in the config repository, so that a review shows them on their line.

May not know who shows them, nor git: it has the verdict document and where the lab lies in the repository.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from testbed.verdict_file import BlameEntry, ChangedLine, FindingEntry, VerdictFile

CONFIGS = "configs/"
EXPECTATION = "expectation"
"""The KPI of a finding about what was declared of a change."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, by its path from the top of the repository.

    A line that the change takes away is placed where it stood, in the file as it has become; `removed` tells it.
    """

    path: str
    line: int
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """How the lab's files lie in the repository.

    `lab` is the lab folder's path ("" at the top, None: not in the repository); `configs` is the folder with a folder a
    node. `moved` has the lines of files that the gate itself wrote, and the lines they were made from.
    """

    lab: str | None = ""
    configs: str = "configs"
    moved: Mapping[str, tuple[str, int]] = field(default_factory=dict, hash=False)

    @classmethod
    def of_lab(cls, folder: str) -> Layout:
        """A lab that is a folder of the repository, "" or "." for its top."""
        lab = "" if folder == "." else folder
        return cls(lab, _joined(lab, "configs"))

    def path(self, file: str) -> str | None:
        """The path in the repository of a file by its path in the lab; None for what is not in it."""
        if file.startswith(CONFIGS):
            return _joined(self.configs, file.removeprefix(CONFIGS))
        within = PurePosixPath(file)
        if self.lab is None or within.is_absolute() or ".." in within.parts:
            return None
        return _joined(self.lab, file)

    def place(self, blame: BlameEntry | None, lines: Sequence[ChangedLine]) -> Place | None:
        """Where a culprit is shown; None where no line of the repository is to blame."""
        if blame is None or blame.file is None or blame.line is None:
            return None
        if (origin := self.moved.get(f"{blame.file}:{blame.line}")) is not None:
            return Place(*origin)
        path = self.path(blame.file)
        if path is None:
            return None
        gone = [x.line for x in lines if x.file == blame.file and x.sign == "-"]
        new = [x.line for x in lines if x.file == blame.file and x.sign == "+"]
        texts = [x.text for x in lines if x.file == blame.file and x.sign == "+" and x.line == blame.line]
        if blame.line in gone and (blame.text not in texts):
            return Place(path, line_after(blame.line, gone, new), removed=True)
        return Place(path, blame.line)

    def to_json(self) -> dict[str, object]:
        """As in gate.json."""
        return {"lab": self.lab, "configs": self.configs, "moved": {k: list(v) for k, v in self.moved.items()}}


def place_of(finding: FindingEntry, verdict: VerdictFile, layout: Layout) -> Place | None:
    """Where a finding is shown: on its culprit's line, or on the line that declared what is not so."""
    if finding.kpi != EXPECTATION:
        return layout.place(finding.blame, verdict.change.lines)
    entry = next((one for one in verdict.expectations if one.name == finding.subject), None)
    if entry is None:
        return None
    if (origin := layout.moved.get(f"{entry.file}:{entry.line}")) is not None:
        return Place(*origin)
    path = layout.path(entry.file)
    return None if path is None else Place(path, entry.line)


def line_after(line: int, gone: Sequence[int], new: Sequence[int]) -> int:
    """The line of the new file where `line` of the old one stood: what replaced it, or else the line before; from 1.

    `gone` are the old file's removed lines, `new` the new file's added ones.
    """
    kept = line - 1 - sum(1 for number in gone if number < line)
    ordered = sorted(new)
    at = kept
    while (shifted := kept + bisect_right(ordered, at)) != at:
        at = shifted
    return at + 1 if at + 1 in ordered else max(at, 1)


def culprits(verdict: VerdictFile) -> Mapping[tuple[str, str, str | None, int | None], list[FindingEntry]]:
    """The findings that gate or warn, by the culprit they share, in the order of the findings."""
    found: dict[tuple[str, str, str | None, int | None], list[FindingEntry]] = {}
    for finding in verdict.findings:
        if finding.blame is not None and finding.verdict != "INFO":
            blame = finding.blame
            found.setdefault((blame.node, blame.object, blame.file, blame.line), []).append(finding)
    return found


def rule_id(finding: FindingEntry) -> str:
    """The name of a kind of finding, the same in every run."""
    return f"shadow-testbed/{finding.kpi.removesuffix('_ns').removesuffix('_bps').replace('_', '-')}"


def fingerprint(finding: FindingEntry) -> str:
    """What makes a finding the same in another run: what it is of, and the text of its line, not its number."""
    text = finding.blame.text.strip() if finding.blame else ""
    words = (rule_id(finding), finding.scope, finding.subject, finding.kpi, text)
    return hashlib.sha256("\0".join(words).encode("utf-8", "backslashreplace")).hexdigest()


def _joined(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder not in ("", ".") else file
