"""The part of a change around one line.

May not know where the diff comes from; it is text that others wrote, so whatever it holds, nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from testbed.verdict_file import ChangedLine

CONTEXT = 4
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a diff; `number` is the line in the new file, in the old one for a removed line."""

    number: int
    sign: str
    text: str
    blamed: bool


@dataclass(frozen=True, slots=True)
class Hunk:
    """A few lines around the blamed one."""

    file: str
    lines: tuple[DiffLine, ...]


def hunk_around(diff: str, node: str, file: str, line: int) -> Hunk | None:
    """The lines of a unified diff around `line` of a node's file; None when the diff does not reach there.

    `file` may be the lab's path (`configs/fw1/iptables.rules`) or the name below `configs/<node>/`.
    """
    parsed = list(_parsed(diff))
    for path in dict.fromkeys(path for path, _ in parsed):
        if not _same(path, node, file):
            continue
        lines = [one for other, one in parsed if other == path]
        hits = [index for index, one in enumerate(lines) if one.number == line and one.sign != " "]
        hits = hits or [index for index, one in enumerate(lines) if one.number == line]
        if hits:
            at = next((index for index in hits if lines[index].sign == "+"), hits[0])
            part = lines[max(0, at - CONTEXT) : at + CONTEXT + 1]
            return Hunk(path, tuple(_marked(one, one is lines[at]) for one in part))
    return None


def hunk_of_lines(lines: Sequence[ChangedLine], file: str, line: int) -> Hunk | None:
    """The changed lines near `line` when there is no diff to show context from; None when there are none."""
    near = [one for one in lines if _same(one.file, one.node, file) and abs(one.line - line) <= CONTEXT]
    if not near:
        return None
    best = min(near, key=lambda one: (abs(one.line - line), one.sign != "+"))
    return Hunk(file, tuple(DiffLine(one.line, one.sign, one.text, one is best and one.line == line) for one in near))


def _parsed(diff: str) -> Iterator[tuple[str, DiffLine]]:
    path, old, new, old_left, new_left = "", 0, 0, 0, 0
    for row in diff.split("\n"):
        sign = row[:1]
        if (old_left or new_left) and sign in ("+", "-", " "):
            yield path, DiffLine(old if sign == "-" else new, sign, row[1:], blamed=False)
            old, old_left = (old, old_left) if sign == "+" else (old + 1, old_left - 1)
            new, new_left = (new, new_left) if sign == "-" else (new + 1, new_left - 1)
        elif match := _HUNK.match(row):
            old, old_left = int(match[1]), int(match[2] or 1)
            new, new_left = int(match[3]), int(match[4] or 1)
        elif row.startswith("+++ "):
            path = row[4:].split("\t")[0].strip().removeprefix("b/")


def _marked(line: DiffLine, blamed: bool) -> DiffLine:
    return DiffLine(line.number, line.sign, line.text, blamed)


def _same(path: str, node: str, file: str) -> bool:
    parts, wanted = PurePosixPath(path).parts, PurePosixPath(file).parts
    short, long = sorted((parts, wanted), key=len)
    if not short or long[-len(short) :] != short:
        return False
    return len(short) > 1 or len(long) < 2 or long[-2] == node
