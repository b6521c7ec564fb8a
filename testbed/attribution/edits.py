"""A change's lines as edits: which removed line became which added one, and which lines say nothing at all.

Knows the change's lines only, and the comment signs of the formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from testbed.change.model import Line

REMARKS = ("#", "!", ";", "*")
FRAME_WORDS = frozenset({"exit", "end", "exit-address-family", "COMMIT"})


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines that were replaced by others in one place of a file; either side may be empty."""

    removed: tuple[Line, ...]
    added: tuple[Line, ...]

    def successor(self, line: Line) -> Line | None:
        """What a removed line became: the most similar added line that is not a remark."""
        candidates = [added for added in self.added if not is_remark(added.text)]
        likeness = {added: SequenceMatcher(None, line.text, added.text).ratio() for added in candidates}
        best = max(candidates, key=lambda added: likeness[added], default=None)
        return best if best is not None and likeness[best] >= 0.5 else None


def edits(lines: Iterable[Line]) -> tuple[Edit, ...]:
    """The edits of all files, from lines in reading order."""
    by_file: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        by_file.setdefault((line.node, line.file), []).append(line)
    return tuple(edit for group in by_file.values() for edit in _of_file(group))


def successor(line: Line, of: Sequence[Edit]) -> Line | None:
    """What a removed line became, in whatever edit it stands; None when it is simply gone."""
    return next((edit.successor(line) for edit in of if line in edit.removed), None)


def is_remark(text: str) -> bool:
    """Whether a line is blank, a comment or punctuation of its format, so that no device acts on it."""
    bare = text.strip()
    return not bare or bare in FRAME_WORDS or (bare.startswith(REMARKS) and not bare.startswith("! -"))


def _of_file(lines: Sequence[Line]) -> list[Edit]:
    found: list[Edit] = []
    shift, at = 0, 0
    while at < len(lines):
        removed: list[Line] = []
        added: list[Line] = []
        place = lines[at].line + shift if lines[at].sign == "-" else lines[at].line
        while at < len(lines) and lines[at].sign == "-" and lines[at].line + shift == place + len(removed):
            removed.append(lines[at])
            at += 1
        while at < len(lines) and lines[at].sign == "+" and lines[at].line == place + len(added):
            added.append(lines[at])
            at += 1
        shift += len(added) - len(removed)
        found.append(Edit(tuple(removed), tuple(added)))
    return found
