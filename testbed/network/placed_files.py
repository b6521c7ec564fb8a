"""Files of a lab at their own absolute paths inside one node, with the machine's own files untouched.

It knows no device and no daemon.  A directory that the machine has is covered by an overlay whose
upper part lies in the node's private files, or, where that is refused, by a private copy; what the node
has of its own (/run, a daemon's directories) is written as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from testbed.errors import Unsupported
from testbed.network.namespace import Namespace
from testbed.sandbox import CLONE_NEWNS, MS_BIND, mount, setns, unshare

Result = TypeVar("Result")
Contents = Mapping[str, bytes | None]
"""Absolute path to what lies there; None takes the file away."""

CLONE_FS = 0x00000200
KERNEL_TREES = ("/proc", "/sys", "/dev")
SECRET = b"PRIVATE KEY-----"
PLACED, TRIED, HIDING = Path("/run/.placed"), Path("/run/.tried"), Path("/run/.hiding")
"""Where the upper parts lie, as the node sees it: its own /run, since no mount may come from another's view."""

LARGEST_COPY_OCTETS = 64_000_000


def misplaced(path: str) -> str:
    """Why no file can be put at this path, or the empty string."""
    place = Path(path)
    if not place.is_absolute() or ".." in place.parts:
        return f"{path} is not a plain absolute path"
    if any(place.is_relative_to(tree) for tree in KERNEL_TREES):
        return f"{path} lies in the kernel's own {place.parts[1]}"
    if os.path.isdir(place):  # noqa: PTH112 - a place that we may not look into is none
        return f"{path} is a directory on this machine"
    if _standing(place.parent) == Path("/"):
        return f"{path} lies in no directory that this machine has below /"
    return ""


def place(namespace: Namespace, contents: Contents) -> None:
    """Put files into a node, or take them away, while it runs; raises Unsupported where that cannot be."""
    if not contents:
        return
    own = namespace.home.stat().st_dev
    _in_files(namespace, lambda: _put(PLACED, contents, own))


def hide(namespace: Namespace, directories: Sequence[str]) -> None:
    """Cover directories by empty ones that only this node has; those the machine has not are skipped."""

    def covered() -> None:
        for directory in directories:
            if os.path.isdir(directory):  # noqa: PTH112 - a place that we may not look into is none
                own = HIDING / directory.strip("/").replace("/", "-")
                own.mkdir(parents=True)
                mount(str(own), directory, None, MS_BIND)

    _in_files(namespace, covered)


@contextmanager
def tried(namespace: Namespace, contents: Contents) -> Iterator[Namespace]:
    """The node with these files, seen by nobody else: what runs in it changes none of the node's own."""

    def made() -> int:
        unshare(CLONE_NEWNS)
        _put(TRIED, contents, own=None)
        return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)

    try:
        descriptor = _in_files(namespace, made)
        try:
            yield replace(namespace, mount_fd=descriptor)
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(namespace.home / TRIED.relative_to("/"), ignore_errors=True)


def _in_files(namespace: Namespace, act: Callable[[], Result]) -> Result:
    """Run `act` on a thread that sees the node's files."""

    def entered() -> Result:
        unshare(CLONE_FS)
        setns(namespace.mount_fd, CLONE_NEWNS)
        return act()

    with ThreadPoolExecutor(max_workers=1) as threads:
        return threads.submit(entered).result()


def _put(scratch: Path, contents: Contents, own: int | None) -> None:
    """Cover what must be covered, then write; what lies on the device `own` is the node's already."""
    places = {Path(path).parent.resolve() / Path(path).name: content for path, content in contents.items()}
    covered = {Path(mark.read_text()) for mark in scratch.glob("*/covers")}
    wanted = {_standing(path.parent) for path in places}
    for directory in _topmost(wanted):
        above = directory.parents if _readable(directory) else ()
        if directory.stat().st_dev != own and covered.isdisjoint((directory, *above)):
            _cover(directory, scratch / str(len(covered)), wanted)
            covered.add(directory)
    for directory in sorted(d for d in wanted if not os.access(d, os.W_OK)):
        # of the machine's root, below one that was covered before
        _cover(directory, scratch / str(len(covered)), ())
        covered.add(directory)
    for path, content in places.items():
        if content is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, content)


def _topmost(directories: set[Path]) -> list[Path]:
    """Directories that lie below no other of them, and those that must be covered apart, parents first."""
    apart = (d for d in directories if not _readable(d) or directories.isdisjoint(d.parents))
    # what covers /run hides the place where the upper parts lie: it comes last
    return sorted(apart, key=lambda directory: (directory.is_relative_to(PLACED.parent), directory))


def _readable(directory: Path) -> bool:
    return os.access(directory, os.R_OK | os.X_OK)


def _standing(directory: Path) -> Path:
    """The nearest ancestor that exists."""
    return next(d.resolve() for d in (directory, *directory.parents) if os.path.isdir(d))  # noqa: PTH112


def _cover(directory: Path, scratch: Path, wanted: Collection[Path]) -> None:
    """Lay an overlay over a directory, with those `wanted` below it to be written; mounts below it are kept."""
    upper, work = scratch / "upper", scratch / "work"
    for made in (upper, work):
        made.mkdir(parents=True, mode=0o755)
    for below_it in wanted:
        if directory in below_it.parents and _readable(below_it):
            (upper / below_it.relative_to(directory)).mkdir(parents=True, exist_ok=True)
    (scratch / "covers").write_text(str(directory))
    with ExitStack() as held:
        below = []
        for target in _mounted_below(directory):
            descriptor = os.open(target, os.O_PATH)
            held.callback(os.close, descriptor)
            below.append((descriptor, target))
        layers = (("lowerdir", directory), ("upperdir", upper), ("workdir", work))
        options = ",".join(f"{name}={_escaped(path)}" for name, path in layers)
        try:
            if not _readable(directory):
                raise PermissionError(directory)
            mount("overlay", str(directory), "overlay", 0, f"userxattr,{options}")
        except OSError as refusal:
            _copy(directory, upper, refusal)
            mount(str(upper), str(directory), None, MS_BIND)
        for descriptor, target in below:
            if target.exists():
                mount(f"/proc/self/fd/{descriptor}", str(target), None, MS_BIND)


def _mounted_below(directory: Path) -> list[Path]:
    """Mount points below a directory, each once, in the order in which they were mounted."""
    # the kernel writes blanks in names as octal numbers
    lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    targets = dict.fromkeys(Path(line.split()[4].encode().decode("unicode_escape")) for line in lines)
    return [target for target in targets if directory in target.parents]


def _copy(directory: Path, into: Path, refusal: OSError) -> None:
    """Where no overlay can be (too many on each other, a directory kept from us): a copy of what can be read."""
    left = LARGEST_COPY_OCTETS
    for folder, _, names in os.walk(directory):
        copied = into / Path(folder).relative_to(directory)
        copied.mkdir(exist_ok=True)
        for name in names:
            source = Path(folder, name)
            if source.is_symlink():
                (copied / name).symlink_to(source.readlink())
            elif source.is_file() and os.access(source, os.R_OK):
                left -= source.stat().st_size
                if left < 0:
                    raise Unsupported(
                        f"no overlay over {directory} ({refusal}), and it is too large to copy",
                        "put the file into a smaller directory, or use a kernel of 5.11 or later",
                    )
                shutil.copy(source, copied / name)


def _escaped(path: Path) -> str:
    return "".join(f"\\{sign}" if sign in "\\:," else sign for sign in str(path))


def _write(path: Path, content: bytes) -> None:
    """In one step, so that a program that reads the file sees the old or the new one; scripts may run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(0o600 if SECRET in content else 0o755 if content.startswith(b"#!") else 0o644)
    fresh.replace(path)
