r"""Unified diffs, parsed and applied strictly: no fuzz, no offset, nothing guessed.

Reads what `git diff`, `git format-patch` and `diff -u` write: a/ and b/ prefixes, /dev/null, renames, quoted names,
"\ No newline at end of file", CR LF content. Bytes in, bytes out; this file may not know labs or touch a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from testbed.change.diff import split_lines
from testbed.errors import InvalidInput

_HUNK = re.compile(rb"@@ -([0-9]{1,9})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@(?: .*)?")
_PREFIX = re.compile(r"[abciwo]/")
_ESCAPE = re.compile(rb'\\([0-7]{3}|["\\abfnrtv])')
_ESCAPED = {b'"': b'"', b"\\": b"\\", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_ESCAPED[b"v"] = b"\v"
_NOWHERE = "/dev/null"
_SIGNATURE = b"-- "


@dataclass(frozen=True, slots=True)
class HunkLine:
    """One body line: its sign, its content with the line ending, and its line in the patch file."""

    sign: bytes
    content: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Hunk:
    """A run of lines that must stand at `old_start` (from 1) of the old file exactly as written."""

    old_start: int
    old_count: int
    body: tuple[HunkLine, ...]
    line: int


@dataclass(frozen=True, slots=True)
class FilePatch:
    """What a patch does to one file; `old` is None for a new file, `new` for a deleted one."""

    patch: Path
    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...]
    line: int


def parse_patch(path: Path, raw: bytes) -> tuple[FilePatch, ...]:
    """The file patches in order; `path` is for messages. InvalidInput with the line of what is no unified diff."""
    parser = _Parser(path, raw)
    files = parser.files()
    if not files and raw.strip():
        raise InvalidInput(path, 1, 1, "no diff in this file", "a unified diff such as `git diff` writes")
    return files


def applied(patch: FilePatch, before: bytes | None) -> bytes | None:
    """The new content (None: deleted) of a file (None: not there); InvalidInput tells the line that did not fit."""
    if patch.old is None and before is not None:
        raise InvalidInput(patch.patch, patch.line, 1, f"{patch.new} in the lab already", "no such file (a new file)")
    if patch.old is not None and before is None:
        raise InvalidInput(patch.patch, patch.line, 1, f"no file {patch.old} in the lab", "the file that it changes")
    old = split_lines(before or b"")
    new: list[bytes] = []
    at = 0
    for hunk in patch.hunks:
        start = hunk.old_start - 1 if hunk.old_count else hunk.old_start
        if start < at or start > len(old):
            found = f"a hunk at line {hunk.old_start} of a file of {len(old)} lines"
            raise InvalidInput(patch.patch, hunk.line, 1, found, f"hunks in order, from line {at + 1} on")
        new += old[at:start]
        at = _hunk(patch, hunk, old, start, new)
    new += old[at:]
    if any(not line.endswith(b"\n") for line in new[:-1]):
        raise InvalidInput(patch.patch, patch.line, 1, "a line without an end amid the file", "it at the end alone")
    if patch.new is None:
        if new:
            found = f"{len(new)} lines left of the deleted file"
            raise InvalidInput(patch.patch, patch.line, 1, found, "all lines of the file removed")
        return None
    return b"".join(new)


def _hunk(patch: FilePatch, hunk: Hunk, old: list[bytes], at: int, new: list[bytes]) -> int:
    for line in hunk.body:
        if line.sign != b"+":
            there = old[at] if at < len(old) else None
            if there != line.content:
                found = f"{_shown(there)} at {patch.old}:{at + 1}"
                expected = f"{_shown(line.content)} (hunk at line {hunk.line} of the patch)"
                raise InvalidInput(patch.patch, line.line, 1, found, expected)
            at += 1
        if line.sign != b"-":
            new.append(line.content)
    return at


def _shown(line: bytes | None) -> str:
    if line is None:
        return "the end of the file"
    text = line.removesuffix(b"\n").decode(errors="backslashreplace")
    return repr(text) + ("" if line.endswith(b"\n") else " without a line end")


class _Parser:
    """One pass over the lines of a patch file; `_at` counts from 0."""

    def __init__(self, path: Path, raw: bytes) -> None:
        self._path = path
        self._lines = [line.removesuffix(b"\n") for line in split_lines(raw)]
        self._at = 0

    def files(self) -> tuple[FilePatch, ...]:
        found: list[FilePatch] = []
        while self._at < len(self._lines):
            line = self._head()
            if line.startswith(b"diff --git "):
                patch = self._git()
                if patch is not None:
                    found.append(patch)
            elif self._is_names():
                found.append(self._named(self._at + 1))
            elif line.startswith(b"@@ -"):
                raise self._wrong(f"a hunk {_shown(line)} of no file", "'--- ' and '+++ ' lines before it")
            else:
                self._at += 1
        return tuple(found)

    def _head(self) -> bytes:
        return self._lines[self._at].removesuffix(b"\r") if self._at < len(self._lines) else b""

    def _is_names(self) -> bool:
        following = self._lines[self._at + 1] if self._at + 1 < len(self._lines) else b""
        return self._head().startswith(b"--- ") and following.startswith(b"+++ ")

    def _wrong(self, found: str, expected: str) -> InvalidInput:
        return InvalidInput(self._path, self._at + 1, 1, found, expected)

    def _git(self) -> FilePatch | None:
        start = self._at + 1
        both = self._both_names(self._head().removeprefix(b"diff --git "))
        old, new = both, both
        self._at += 1
        created = deleted = renamed = False
        while self._at < len(self._lines) and not self._is_names():
            line = self._head()
            if line.startswith((b"GIT binary patch", b"Binary files ", b"copy from ")):
                raise self._wrong(_shown(line), "a text diff (git diff --text --no-renames)")
            if line.startswith(b"rename from "):
                old, renamed = self._name(line.removeprefix(b"rename from ")), True
            elif line.startswith(b"rename to "):
                new, renamed = self._name(line.removeprefix(b"rename to ")), True
            elif line.startswith(b"new file mode "):
                created = True
            elif line.startswith(b"deleted file mode "):
                deleted = True
            elif not line.startswith((b"index ", b"old mode ", b"new mode ", b"similarity ", b"dissimilarity ")):
                break
            self._at += 1
        if self._is_names():
            return self._named(start)
        if not (created or deleted or renamed):
            return None
        if old is None or new is None:
            raise InvalidInput(self._path, start, 1, "names that cannot be told apart", "'diff --git a/NAME b/NAME'")
        return FilePatch(self._path, None if created else old, None if deleted else new, (), start)

    def _named(self, start: int) -> FilePatch:
        old = self._name(self._head().removeprefix(b"--- ").split(b"\t")[0])
        self._at += 1
        new = self._name(self._head().removeprefix(b"+++ ").split(b"\t")[0])
        if old == _NOWHERE and new == _NOWHERE:
            raise self._wrong("/dev/null on both sides", "the name of a file")
        self._at += 1
        hunks: list[Hunk] = []
        while self._head().startswith(b"@@"):
            hunks.append(self._hunk())
        if not hunks:
            raise self._wrong(_shown(self._head()), "a hunk such as '@@ -1,3 +1,4 @@'")
        names = [None if name == _NOWHERE else _PREFIX.sub("", name, count=1) for name in (old, new)]
        return FilePatch(self._path, names[0], names[1], tuple(hunks), start)

    def _hunk(self) -> Hunk:
        header = _HUNK.fullmatch(self._head())
        if header is None:
            raise self._wrong(_shown(self._head()), "a hunk such as '@@ -1,3 +1,4 @@'")
        start = self._at + 1
        old_count, new_count = (1 if header[i] is None else int(header[i]) for i in (2, 4))
        old_start = int(header[1])
        if old_count and not old_start:
            raise self._wrong("lines from line 0", "line numbers from 1 on")
        self._at += 1
        body = self._body(old_count, new_count)
        following = self._head()
        if following.startswith((b"+", b"-", b" ")) and following != _SIGNATURE and not self._is_names():
            raise self._wrong(_shown(following), f"no more lines in the hunk at line {start}")
        return Hunk(old_start, old_count, body, start)

    def _body(self, old_left: int, new_left: int) -> tuple[HunkLine, ...]:
        body: list[HunkLine] = []
        while old_left or new_left:
            if self._at >= len(self._lines):
                raise self._wrong("the end of the patch", f"{old_left} old and {new_left} new lines more")
            line = self._lines[self._at] or b" "
            sign = line[:1]
            old_left -= sign in (b" ", b"-")
            new_left -= sign in (b" ", b"+")
            if sign not in (b" ", b"-", b"+") or old_left < 0 or new_left < 0:
                raise self._wrong(_shown(line), "a line of the hunk that fits its counts")
            body.append(HunkLine(sign, line[1:] + b"\n", self._at + 1))
            self._at += 1
            if self._lines[self._at : self._at + 1] and self._lines[self._at].startswith(b"\\ "):
                body[-1] = HunkLine(sign, line[1:], self._at)
                self._at += 1
        return tuple(body)

    def _both_names(self, names: bytes) -> str | None:
        if names.startswith(b'"'):
            end = re.search(rb'(?<!\\)(?:\\\\)*" ', names[1:])
            first, second = (names[: end.end()], names[end.end() + 1 :]) if end else (names, names)
        else:
            middle = len(names) // 2
            first, second = names[:middle], names[middle + 1 :]
        stripped = [_PREFIX.sub("", self._name(name), count=1) for name in (first, second)]
        return stripped[0] if stripped[0] == stripped[1] else None

    def _name(self, written: bytes) -> str:
        if len(written) >= 2 and written.startswith(b'"') and written.endswith(b'"'):
            written = _ESCAPE.sub(_unescaped, written[1:-1])
        try:
            name = written.decode()
        except UnicodeDecodeError:
            raise self._wrong(f"the file name {_shown(written)}", "a name in UTF-8") from None
        if not name or "\0" in name:
            raise self._wrong("no file name", "the name of a file")
        return name


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return _ESCAPED[code] if code in _ESCAPED else bytes([int(code, 8) & 0xFF])
