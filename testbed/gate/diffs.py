"""Unified diffs of config files, as `git apply` and `patch -p1` take them; in bytes, since configs are bytes.

Pure. May not know what a change or a revision is.
"""

from __future__ import annotations

from difflib import diff_bytes, unified_diff

from testbed.change.diff import split_lines

_NO_END = b"\\ No newline at end of file\n"


def file_diff(path: str, before: bytes | None, after: bytes | None) -> bytes:
    """What turns `before` into `after` (None: no such file); empty when nothing differs."""
    if before == after:
        return b""
    text = b"diff --git %s %s\n" % (_quoted(f"a/{path}"), _quoted(f"b/{path}"))
    if before is None:
        text += b"new file mode 100644\n"
    if after is None:
        text += b"deleted file mode 100644\n"
    old = b"/dev/null" if before is None else _quoted(f"a/{path}")
    new = b"/dev/null" if after is None else _quoted(f"b/{path}")
    lines = diff_bytes(unified_diff, split_lines(before or b""), split_lines(after or b""), old, new)
    return text + b"".join(line if line.endswith(b"\n") else line + b"\n" + _NO_END for line in lines)


def _quoted(name: str) -> bytes:
    """The name as git writes it: in quotes where it holds what would end it."""
    if not any(sign in '"\\' or ord(sign) < 0x20 for sign in name):
        return name.encode("utf-8", "surrogateescape")
    escaped = "".join(
        f"\\{sign}" if sign in '"\\' else f"\\{ord(sign):03o}" if ord(sign) < 0x20 else sign for sign in name
    )
    return f'"{escaped}"'.encode("utf-8", "surrogateescape")
