"""The lines in which two versions of a config file differ.

Pure. This file may not know patches or overlays: it sees two byte strings.
"""

from __future__ import annotations

from difflib import SequenceMatcher

from testbed.change.model import Line


def split_lines(content: bytes) -> list[bytes]:
    """Lines with their LF kept; CR, form feed and other separators are content, as they are for every daemon."""
    lines = content.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def changed_lines(node: str, file: str, before: bytes, after: bytes) -> tuple[Line, ...]:
    """The removed and added lines in reading order, each numbered in the version that has it."""
    old, new = split_lines(before), split_lines(after)
    found: list[Line] = []
    for tag, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        found.extend(Line(node, file, i + 1, "-", _text(old[i])) for i in range(old_from, old_to))
        found.extend(Line(node, file, i + 1, "+", _text(new[i])) for i in range(new_from, new_to))
    return tuple(found)


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode(errors="replace")
