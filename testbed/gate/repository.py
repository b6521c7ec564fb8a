"""A git repository of configs, read only: what was in it at a revision, or is staged; no work tree is touched.

Files are read out of git's own objects, byte for byte. May not know what a lab is.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from testbed.errors import InvalidInput, Unsupported

INDEX = ":"
"""Stands for what is staged, where a commit is asked for."""
NOTHING = ""
"""Stands for a tree without files: before the first commit."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SECONDS = 120.0
_REGULAR, _LINK = ("100644", "100755", "100664"), "120000"


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of a revision, by the hash of its content."""

    hash: str
    link: bool = False


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository by the top of its work tree."""

    root: Path

    @classmethod
    def containing(cls, folder: Path) -> Repository:
        """The repository that a folder is in; InvalidInput when there is none, Unsupported without git."""
        try:
            top = _git(folder, "rev-parse", "--show-toplevel").decode("utf-8", "surrogateescape").rstrip("\n")
        except _Refused as refusal:
            raise InvalidInput(folder, 1, 1, str(refusal), "a folder in the work tree of a git repository") from None
        return cls(Path(top))

    def commit(self, revision: str) -> str:
        """The hash of the commit that a revision names; INDEX and NOTHING are themselves. InvalidInput."""
        if revision in (INDEX, NOTHING):
            return revision
        expected = "a commit, branch or tag of this repository"
        if revision.startswith("-") or "\0" in revision:
            raise InvalidInput(self.root, 1, 1, f"the revision {revision!r}", expected)
        try:
            found = _git(self.root, "rev-parse", "--verify", "--quiet", revision + "^{commit}")
        except _Refused:
            if self._is_shallow():
                expected += f", all of which this shallow clone has not: git fetch --depth=1 origin {revision}"
            raise InvalidInput(self.root, 1, 1, f"the revision {revision!r}", expected) from None
        return found.decode("ascii").strip()

    def has(self, revision: str) -> bool:
        """Whether there is such a commit."""
        try:
            self.commit(revision)
        except InvalidInput:
            return False
        return True

    def files(self, commit: str) -> Mapping[str, Blob]:
        """Every file of a commit, or of what is staged, by its path from the top; what is a submodule is left out."""
        if commit == NOTHING:
            return {}
        try:
            if commit == INDEX:
                listed = _git(self.root, "ls-files", "--stage", "-z", "--full-name")
            else:
                listed = _git(self.root, "ls-tree", "-r", "-z", "--full-tree", commit)
        except _Refused as refusal:
            raise InvalidInput(self.root, 1, 1, str(refusal), "a revision that git can list") from None
        return dict(self._entries(listed, staged=commit == INDEX))

    def contents(self, blobs: Iterable[Blob]) -> Mapping[str, bytes]:
        """Contents by hash, in one go; InvalidInput for what this clone has not."""
        hashes = list(dict.fromkeys(blob.hash for blob in blobs))
        asked = "".join(f"{each}\n" for each in hashes).encode("ascii")
        answer = _git(self.root, "cat-file", "--batch", stdin=asked)
        found: dict[str, bytes] = {}
        at = 0
        for each in hashes:
            end = answer.index(b"\n", at)
            words = answer[at:end].split()
            if len(words) != 3:
                said = answer[at:end].decode(errors="replace")
                raise InvalidInput(self.root, 1, 1, f"{said!r} of git", "a clone that has this revision's files")
            size = int(words[2])
            found[each] = answer[end + 1 : end + 1 + size]
            at = end + size + 2
        return found

    def full(self, path: str, blob: Blob, content: bytes) -> bytes:
        """The content itself where git only keeps a pointer to it (Git LFS); InvalidInput when it is not here."""
        if not content.startswith(LFS_POINTER):
            return content
        try:
            real = _git(self.root, "cat-file", "--filters", f"--path={path}", blob.hash)
        except _Refused:
            real = content
        if real.startswith(LFS_POINTER):
            raise InvalidInput(Path(path), 1, 1, "a Git LFS pointer", "the file: install git-lfs, or --capture FILE")
        return real

    def _entries(self, listed: bytes, *, staged: bool) -> Iterable[tuple[str, Blob]]:
        for entry in listed.split(b"\0"):
            if not entry:
                continue
            about, _tab, name = entry.partition(b"\t")
            words = about.decode("ascii").split()
            mode, name_hash = words[0], words[1] if staged else words[2]
            path = name.decode("utf-8", "surrogateescape")
            if staged and words[2] != "0":
                raise InvalidInput(self.root / path, 1, 1, "a merge conflict", "a file that is merged (git add)")
            parts = PurePosixPath(path).parts
            if ".." in parts or path.startswith("/"):
                raise InvalidInput(self.root, 1, 1, f"the path {path!r} in git", "paths inside the repository")
            if mode in _REGULAR or mode == _LINK:
                yield path, Blob(name_hash, link=mode == _LINK)

    def _is_shallow(self) -> bool:
        try:
            return _git(self.root, "rev-parse", "--is-shallow-repository").strip() == b"true"
        except _Refused:
            return False


class _Refused(Exception):
    """What git said."""


def _git(folder: Path, *words: str, stdin: bytes = b"") -> bytes:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    argv = ("git", "--no-pager", "--literal-pathspecs", "-c", "core.quotePath=false", *words)
    try:
        done = subprocess.run(
            argv, cwd=folder, env=environment, input=stdin, capture_output=True, timeout=SECONDS, check=False
        )
    except FileNotFoundError:
        if folder.is_dir():
            raise Unsupported("git is not installed", "install the package git") from None
        raise _Refused("no such folder") from None
    except NotADirectoryError:
        raise _Refused("a file") from None
    except subprocess.TimeoutExpired:
        raise Unsupported(f"git {words[0]} took longer than {SECONDS:.0f} s", "") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _Refused(said[0] if said else f"git {words[0]} ended with status {done.returncode}")
    return done.stdout
