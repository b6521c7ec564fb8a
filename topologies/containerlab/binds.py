"""The files that a containerlab node binds into its container, as the config files of a lab's node.

It reads the machine's files and writes none. This file may not know links, addresses or commands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import normpath

from topologies.imported import Note
from topologies.located import Problem
from topologies.write import writable

LARGEST_FILE_OCTETS = 4 * 1024 * 1024
MOST_FILES = 200
"""Of one directory; more is a system's tree and not a node's configuration."""

OF_THE_MACHINE = ("/dev", "/lib/modules", "/proc", "/run", "/sys", "/tmp/.X11-unix", "/var/run")
OWN_NAMES: Mapping[str, Mapping[str, str]] = {
    "router": {"/etc/frr/frr.conf": "frr.conf", "/etc/frr/daemons": "daemons"},
    "loadbalancer": {
        "/usr/local/etc/haproxy/haproxy.cfg": "haproxy.cfg",
        "/etc/haproxy/haproxy.cfg": "haproxy.cfg",
    },
}
"""By kind, what its device reads under a name of its own."""

OWN_TREES: Mapping[str, tuple[str, ...]] = {"router": ("/etc/frr",), "loadbalancer": ("/run/haproxy",)}
"""Directories that a kind's device fills itself."""


@dataclass(frozen=True, slots=True)
class Bind:
    """`source:target[:options]` and the line on which it stands."""

    text: str
    line: int


@dataclass(slots=True)
class Bound:
    """What the binds of one node come to."""

    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def target_of(text: str) -> str:
    """Where a bind lies in the container, for binds of several levels to be told apart."""
    parts = text.split(":")
    return normpath(parts[1]) if len(parts) > 1 else text


def bound(path: Path, kind: str, binds: list[Bind]) -> Bound:
    """The config files that the binds of a node of this kind become; sources are relative to the file at `path`."""
    found = Bound()
    for bind in binds:
        parts = bind.text.split(":")
        if len(parts) not in (2, 3) or not all(parts) or "\0" in bind.text or not parts[1].startswith("/"):
            expected = "SOURCE:TARGET or SOURCE:TARGET:ro with an absolute target"
            found.problems.append(Problem(path, bind.line, 1, f"the bind {bind.text[:80]!r}", expected))
        elif why := _not_taken(parts[0]):
            found.notes.append(Note(path, bind.line, f"the bind {bind.text!r}", why))
        else:
            if len(parts) == 3 and parts[2] not in ("ro", "rw"):
                what = f"the option {parts[2]!r} of bind {bind.text!r}"
                found.notes.append(
                    Note(path, bind.line, what, "a file is copied into the lab; there is nothing to share")
                )
            _take(path, kind, bind, path.parent / _of_user(parts[0]), normpath(parts[1]), found)
    return found


def _of_user(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:
        return Path(source)


def _not_taken(source: str) -> str:
    if "__clab" in source or "${" in source:
        return "what containerlab would put in for the name is not known here"
    if any(source == tree or source.startswith(f"{tree}/") for tree in OF_THE_MACHINE):
        return "this is the machine's own, and no node's configuration"
    return ""


def _take(path: Path, kind: str, bind: Bind, source: Path, target: str, found: Bound) -> None:
    try:
        pairs = list(_walk(source, target)) if source.is_dir() else [(source, target)]
    except OSError as error:
        found.problems.append(Problem(path, bind.line, 1, f"{source}: {error.strerror}", "a readable folder"))
        return
    if len(pairs) > MOST_FILES:
        why = f"a folder of more than {MOST_FILES} files is not copied into a lab"
        found.notes.append(Note(path, bind.line, f"the bind {bind.text!r}", why))
        return
    for file, inside in pairs:
        _take_file(path, kind, bind, file, inside, found)


def _walk(source: Path, target: str) -> Iterator[tuple[Path, str]]:
    count = 0
    for folder, below, names in os.walk(source):
        below.sort()
        inside = normpath(f"{target}/{Path(folder).relative_to(source).as_posix()}")
        for name in sorted(names):
            count += 1
            yield Path(folder, name), normpath(f"{inside}/{name}")
            if count > MOST_FILES:
                return


def _take_file(path: Path, kind: str, bind: Bind, file: Path, inside: str, found: Bound) -> None:
    if not file.exists():
        found.problems.append(Problem(path, bind.line, 1, f"no file {str(file)!r}", "a file or folder to bind"))
        return
    name = OWN_NAMES.get(kind, {}).get(inside)
    reason = ""
    if not file.is_file():
        reason = "it is neither a file nor a folder"
    elif name is None and any(inside.startswith(f"{tree}/") for tree in OWN_TREES.get(kind, ())):
        reason = f"a {kind} here reads {', '.join(sorted(set(OWN_NAMES[kind].values())))} and fills the rest itself"
    elif not writable(name or f"files{inside}"):
        reason = "a lab has no hidden files"
    if reason:
        found.notes.append(Note(path, bind.line, f"the file {inside}", reason))
        return
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE_OCTETS + 1)
    except OSError as error:
        found.problems.append(Problem(path, bind.line, 1, f"{file}: {error.strerror}", "a readable file"))
        return
    if len(content) > LARGEST_FILE_OCTETS:
        why = f"a file of more than {LARGEST_FILE_OCTETS} octets is not copied into a lab"
        found.notes.append(Note(path, bind.line, f"the file {inside}", why))
    else:
        found.files[name or f"files{inside}"] = content
