"""Where changes come from: a folder (overlay, change.patch, change.yaml) or a patch file, read against a lab.

This file may not know how a change is applied, nor what a kind of node reads: that is a parameter.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field

from testbed.change.diff import changed_lines
from testbed.change.model import Change, CommandChange, Expected, Line, LinkChange
from testbed.change.patch import applied, parse_patch
from testbed.errors import InvalidInput
from topologies.load import PATCH_SUFFIXES, Lab
from topologies.located import InvalidLab, Located, Problem, Strict, nearest, read_located
from topologies.model import Impairment, Link, LinkEnd, Node, Topology
from topologies.schema import ImpairmentKeys, LinkKeys

Reads = Callable[[Node], frozenset[str]]
Files = dict[tuple[str, str], bytes]
M = TypeVar("M", bound=BaseModel)

CONFIGS, PATCH, EDITS, EXPECTED, EXPECT = "configs", "change.patch", "change.yaml", "expected.yaml", "expect.yaml"
LARGEST_PATCH_OCTETS = 16 * 1024 * 1024

_Argv = Annotated[tuple[str, ...], Field(min_length=1)]


class _CommandKeys(Strict):
    node: str
    run: _Argv
    rollback: _Argv


class _Edits(Strict):
    links: tuple[LinkKeys, ...] = ()
    commands: tuple[_CommandKeys, ...] = ()


def read_change(lab: Lab, source: Path, reads: Reads | None = None) -> Change:
    """The change in a folder or patch file, checked against the lab; `reads` gives the file names a node's kind reads.

    A change in which nothing differs is legal: it is the A/A run. InvalidInput tells every other doubt with its line.
    """
    source = source.resolve()
    if source.is_dir():
        return _folder(lab, source, reads)
    if source.is_file() and source.suffix in PATCH_SUFFIXES:
        before: Files = {}
        after: Files = {}
        _patch(lab, source, reads, before, after)
        return _change(lab, source.stem, source, before, after)
    found = "a file" if source.exists() else "no such file or folder"
    known = f"; this lab has {', '.join(sorted(lab.changes))}" if lab.changes else ""
    raise InvalidInput(source, 1, 1, found, f"a change folder or a .patch or .diff file{known}")


def _folder(lab: Lab, source: Path, reads: Reads | None) -> Change:
    parts = {CONFIGS, PATCH, EDITS, EXPECTED, EXPECT}
    for entry in sorted(source.iterdir()):
        if entry.name not in parts and not entry.name.startswith((".", "README")):
            raise InvalidInput(entry, 1, 1, f"{entry.name!r} in a change", nearest(entry.name, parts))
        if not entry.resolve().is_relative_to(source):
            raise InvalidInput(entry, 1, 1, "a symbolic link out of the change", "a file inside the change folder")
    before: Files = {}
    after: Files = {}
    if (source / PATCH).is_file():
        _patch(lab, source / PATCH, reads, before, after)
    if (source / CONFIGS).is_dir():
        _overlay(lab, source, reads, before, after)
    edits = _read(source / EDITS, _Edits) if (source / EDITS).is_file() else None
    expected = _read(source / EXPECTED, Expected).model if (source / EXPECTED).is_file() else None
    return _change(lab, source.name, source, before, after, edits, expected)


def _change(
    lab: Lab,
    name: str,
    source: Path,
    before: Files,
    after: Files,
    edits: Located[_Edits] | None = None,
    expected: Expected | None = None,
) -> Change:
    differing = [key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)]
    lines: list[Line] = []
    for node, file in differing:
        path = f"{CONFIGS}/{node}/{file}"
        lines += changed_lines(node, path, before.get((node, file), b""), after.get((node, file), b""))
    links, commands = (_links(lab.topology, edits), _commands(lab.topology, edits)) if edits else ((), ())
    if edits:
        lines += _edit_lines(lab, edits, links, commands)
    return Change(
        name=name,
        source=source,
        before={key: before[key] for key in differing if key in before},
        after={key: after[key] for key in differing if key in after},
        links=links,
        commands=commands,
        lines=tuple(lines),
        expected=expected,
    )


def _patch(lab: Lab, path: Path, reads: Reads | None, before: Files, after: Files) -> None:
    for patch in parse_patch(path, _bytes(path)):
        old = _target(lab, path, patch.line, patch.old, reads) if patch.old is not None else None
        new = _target(lab, path, patch.line, patch.new, reads) if patch.new is not None else None
        for key in (old, new):
            if key is not None and key not in before and key not in after:
                _load(lab, key, before, after)
        if new is not None and new != old and new in after:
            raise InvalidInput(path, patch.line, 1, f"{patch.new} in the lab already", "no such file (a new file)")
        content = applied(patch, after.get(old) if old is not None else None)
        if old is not None and old != new:
            del after[old]
        if new is not None and content is not None:
            after[new] = content


def _load(lab: Lab, key: tuple[str, str], before: Files, after: Files) -> None:
    there = lab.topology.node(key[0]).configs.get(key[1])
    if there is not None:
        before[key] = after[key] = _bytes(there)


def _overlay(lab: Lab, source: Path, reads: Reads | None, before: Files, after: Files) -> None:
    for path in sorted((source / CONFIGS).rglob("*")):
        relative = path.relative_to(source)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if not path.resolve().is_relative_to(source):
            raise InvalidInput(path, 1, 1, "a symbolic link out of the change", "a file inside the change folder")
        if path.is_dir():
            if len(relative.parts) == 2:
                _node(lab.topology, path, 1, path.name)
            continue
        key = _target(lab, path, 1, relative.as_posix(), reads)
        if key in before or key in after:
            raise InvalidInput(path, 1, 1, f"a file that {PATCH} changes too", "each file in one of the two")
        _load(lab, key, before, after)
        after[key] = _bytes(path)


def _target(lab: Lab, path: Path, line: int, written: str, reads: Reads | None) -> tuple[str, str]:
    parts = PurePosixPath(written).parts
    form = f"{CONFIGS}/<node>/<file>, relative to the lab folder"
    if written.startswith("/") or "\\" in written or ".." in parts or not written.isprintable():
        raise InvalidInput(path, line, 1, f"the path {written!r}", form)
    if len(parts) < 3 or parts[0] != CONFIGS:
        raise InvalidInput(path, line, 1, f"the path {written!r}", form)
    node, file = _node(lab.topology, path, line, parts[1]), "/".join(parts[2:])
    if reads is not None and file not in reads(node):
        found = f"{file!r}, which a {node.kind} such as {node.name!r} does not read"
        raise InvalidInput(path, line, 1, found, nearest(file, reads(node)))
    return node.name, file


def _node(topology: Topology, path: Path, line: int, name: str) -> Node:
    names = [node.name for node in topology.nodes]
    if name not in names:
        raise InvalidInput(path, line, 1, f"node {name!r}, which the lab does not have", nearest(name, names))
    return topology.node(name)


def _links(topology: Topology, edits: Located[_Edits]) -> tuple[LinkChange, ...]:
    changes: list[LinkChange] = []
    problems: list[Problem] = []
    seen: set[Link] = set()
    for i, keys in enumerate(edits.model.links):
        first, second = keys.endpoints
        link = topology.link_at(*first)
        where = ("links", i, "endpoints")
        if link is None or {_end(link.a), _end(link.b)} != {first, second}:
            found = f"no link between {':'.join(first)} and {':'.join(second)} in the lab"
            problems.append(edits.problem(where, found, nearest(":".join(first), _joined(topology))))
        elif link in seen:
            problems.append(edits.problem(where, "a second edit of the same link", "one edit a link"))
        else:
            seen.add(link)
            changes.append(_link(link, keys, edits.line("links", i)))
    if problems:
        raise InvalidInput.of(InvalidLab.of(problems))
    return tuple(changes)


def _link(link: Link, keys: LinkKeys, line: int) -> LinkChange:
    straight = _end(link.a) == keys.endpoints[0]
    a_keys, b_keys = (keys.a_to_b, keys.b_to_a) if straight else (keys.b_to_a, keys.a_to_b)
    return LinkChange(
        a=_end(link.a),
        b=_end(link.b),
        a_to_b=_impairment(link.a, keys, a_keys),
        b_to_a=_impairment(link.b, keys, b_keys),
        mtu=link.mtu if keys.mtu is None else keys.mtu,
        line=line,
    )


def _impairment(end: LinkEnd, both: ImpairmentKeys, one: ImpairmentKeys) -> Impairment:
    return one.over(both.over(end.egress))


def _end(end: LinkEnd) -> tuple[str, str]:
    return end.node, end.interface


def _joined(topology: Topology) -> list[str]:
    return [f"{':'.join(_end(link.a))} - {':'.join(_end(link.b))}" for link in topology.links]


def _commands(topology: Topology, edits: Located[_Edits]) -> tuple[CommandChange, ...]:
    names = [node.name for node in topology.nodes]
    problems = [
        edits.problem(("commands", i, "node"), f"node {c.node!r}, which the lab does not have", nearest(c.node, names))
        for i, c in enumerate(edits.model.commands)
        if c.node not in names
    ]
    if problems:
        raise InvalidInput.of(InvalidLab.of(problems))
    return tuple(
        CommandChange(c.node, c.run, c.rollback, edits.line("commands", i)) for i, c in enumerate(edits.model.commands)
    )


def _edit_lines(
    lab: Lab, edits: Located[_Edits], links: tuple[LinkChange, ...], commands: tuple[CommandChange, ...]
) -> list[Line]:
    inside = edits.path.is_relative_to(lab.folder)
    file = edits.path.relative_to(lab.folder).as_posix() if inside else str(edits.path)
    written = _bytes(edits.path).decode("utf-8-sig").split("\n")
    of_links = [
        Line(link.a[0], file, link.line, "+", written[link.line - 1].strip().removeprefix("- "), link.a[1])
        for link in links
    ]
    return [*of_links, *(Line(c.node, file, c.line, "+", shlex.join(c.run)) for c in commands)]


def _read(path: Path, model: type[M]) -> Located[M]:
    try:
        return read_located(path, model)
    except InvalidLab as error:
        raise InvalidInput.of(error) from None


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_PATCH_OCTETS + 1)
    except OSError as error:
        raise InvalidInput(path, 1, 1, error.strerror or "an unreadable file", "a readable file") from None
    if len(content) > LARGEST_PATCH_OCTETS:
        raise InvalidInput(path, 1, 1, "a file of more than 16 MiB", "a smaller file")
    return content
