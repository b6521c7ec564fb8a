"""A unified diff is applied exactly, or refused with the line that does not fit."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.change.patch import applied, parse_patch
from testbed.errors import InvalidInput

HERE = Path("x.patch")
PLAIN = b"--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
LINES = st.lists(
    st.sampled_from([b"a", b"b", b"c", b"", b"-- ", b"\ttab", b"@@ -1 +1 @@", b"a\r", b"\xff"]), max_size=14
)
CONTENT = st.builds(lambda lines, end: b"\n".join(lines) + end, LINES, st.sampled_from([b"", b"\n"]))


def git_diff(folder: Path, old: bytes, new: bytes) -> bytes:
    for side, content in (("a", old), ("b", new)):
        (folder / side).mkdir(exist_ok=True)
        (folder / side / "f").write_bytes(content)
    argv = ["git", "diff", "--no-index", "--no-prefix", "--text", "a/f", "b/f"]
    return subprocess.run(argv, cwd=folder, capture_output=True, check=False).stdout


@given(CONTENT, CONTENT)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_git_writes_is_applied_exactly(tmp_path, old, new):
    raw = git_diff(tmp_path, old, new)
    content = old
    for patch in parse_patch(HERE, raw):
        assert (patch.old, patch.new) == ("f", "f")
        content = applied(patch, content)
    assert content == new


@given(
    st.one_of(
        st.binary(max_size=200), st.lists(st.sampled_from(PLAIN.splitlines(keepends=True)), max_size=12).map(b"".join)
    )
)
@settings(max_examples=300, deadline=None)
def test_hostile_bytes_only_give_invalid_input(raw):
    try:
        for patch in parse_patch(HERE, raw):
            applied(patch, b"a\nb\n")
    except InvalidInput as error:
        line = error.line
    else:
        line = 1
    assert line >= 1


@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))
def test_one_wrong_octet_only_gives_invalid_input(at, octet):
    raw = PLAIN[:at] + bytes([octet]) + PLAIN[at + 1 :]
    try:
        outcome = [applied(patch, b"a\nb\n") for patch in parse_patch(HERE, raw)]
    except InvalidInput:
        outcome = []
    assert len(outcome) <= 1


def test_a_line_that_is_not_there_is_told_with_both_texts():
    (patch,) = parse_patch(HERE, PLAIN)
    with pytest.raises(InvalidInput) as raised:
        applied(patch, b"a\nB\n")
    assert (raised.value.line, raised.value.found) == (5, "'B' at f:2")
    assert raised.value.expected == "'b' (hunk at line 3 of the patch)"


def test_a_hunk_elsewhere_is_not_sought():
    (patch,) = parse_patch(HERE, PLAIN)
    with pytest.raises(InvalidInput):
        applied(patch, b"new first line\na\nb\n")


def test_files_are_created_deleted_and_renamed():
    new, gone, moved, empty = parse_patch(
        HERE,
        b"diff --git a/n b/n\nnew file mode 100644\n--- /dev/null\n+++ b/n\n"
        b"@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"
        b"diff --git a/d b/d\ndeleted file mode 100644\n--- a/d\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
        b"diff --git a/o b/p\nsimilarity index 100%\nrename from o\nrename to p\n"
        b'diff --git "a/caf\\303\\251" "b/caf\\303\\251"\nnew file mode 100644\nindex 0000000..e69de29\n',
    )
    assert applied(new, None) == b"x"
    assert applied(gone, b"x\n") is None
    assert (moved.old, moved.new, applied(moved, b"kept")) == ("o", "p", b"kept")
    assert (empty.old, empty.new, applied(empty, None)) == (None, "café", b"")


def test_a_binary_diff_and_no_diff_are_refused():
    for raw in (b"diff --git a/x b/x\nGIT binary patch\n", b"hello\n", b"--- a/x\n+++ b/x\nno hunk\n"):
        with pytest.raises(InvalidInput):
            parse_patch(HERE, raw)
