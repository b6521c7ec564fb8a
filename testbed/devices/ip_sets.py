"""ipset.rules (ipset's save format): loaded before the rules that name the sets, changed by swapping whole sets.

It knows no node kind and no rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from testbed.devices.base import Box, Complaint, Configs
from testbed.errors import CommandFailed

FILE = "ipset.rules"
LONGEST_NAME = 31
_AT_LINE = re.compile(r"line (\d+)")


def check_sets(box: Box, configs: Configs) -> list[Complaint]:
    """What `ipset restore` says, in an empty network."""
    if FILE not in configs:
        return []
    try:
        box.run(["ipset", "restore"], stdin=configs[FILE], apart=True)
    except CommandFailed as failure:
        place = _AT_LINE.search(failure.stderr)
        said = " ".join(failure.stderr.split())
        return [Complaint(FILE, int(place[1]) if place else None, said)]
    return []


def load_sets(box: Box, configs: Configs) -> None:
    """Make the sets; raises CommandFailed."""
    if FILE in configs:
        box.run(["ipset", "restore"], stdin=configs[FILE])


def swap_sets(box: Box, before: Configs, after: Configs) -> None:
    """Bring in what changed: each set is filled aside and swapped in whole, so that no packet sees half of it."""
    old, new = (_sets(c.get(FILE, b"")) for c in (before, after))
    lines = []
    for name, text in new.items():
        if old.get(name) == text:
            continue
        if name not in old:
            lines += text
            continue
        aside = f"{name[: LONGEST_NAME - 1]}~"
        lines += [_renamed(line, aside) for line in text]
        lines += [f"swap {aside} {name}", f"destroy {aside}"]
    _restore(box, lines)


def drop_sets(box: Box, before: Configs, after: Configs) -> None:
    """Destroy the sets that are gone, once no rule names them any more."""
    old, new = (_sets(c.get(FILE, b"")) for c in (before, after))
    _restore(box, [f"destroy {name}" for name in old if name not in new])


def _restore(box: Box, lines: list[str]) -> None:
    if lines:
        box.run(["ipset", "restore"], stdin="\n".join([*lines, ""]).encode())


def _renamed(line: str, name: str) -> str:
    words = line.split(maxsplit=2)
    return " ".join((words[0], name, *words[2:]))


def _sets(text: bytes) -> Mapping[str, list[str]]:
    """The lines of each set, `create` first."""
    found: dict[str, list[str]] = {}
    for line in text.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in ("create", "add", "-N", "-A"):
            found.setdefault(words[1], []).append(line.strip())
    return found
