"""Session-wide proof that the tests leave the machine as they found it.  Knows nothing of any package under test."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
import pytest

OURS = "testbed-"
MARK = "TESTBED_TEST_SESSION"  # inherited by every process a test starts, so that orphans are known too
SETTLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What a test run could leave behind, as sets of names that mean something in a failure message."""

    namespaces: frozenset[str]
    interfaces: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]
    processes: frozenset[str]

    @classmethod
    def seen(cls) -> Machine:
        """Look at the machine now."""
        return cls(
            namespaces=frozenset(_namespaces()),
            interfaces=frozenset(_host_interfaces()),
            mounts=frozenset(_mounts()),
            files=frozenset(_our_files()),
            processes=frozenset(_processes()),
        )

    def differences(self, before: Machine) -> list[str]:
        """Name what is here and was not, and what was here and is gone (namespaces and processes may always go)."""
        found = []
        for field in fields(self):
            had, has = getattr(before, field.name), getattr(self, field.name)
            found += [f"{field.name}: left behind {entry}" for entry in sorted(has - had)]
            if field.name in ("interfaces", "mounts"):
                found += [f"{field.name}: gone {entry}" for entry in sorted(had - has)]
        return found


def _ours() -> Iterator[psutil.Process]:
    """What this session started: its descendants, and orphans that still carry the session's mark."""
    mark = f"{MARK}={os.environ.get(MARK, '')}".encode()
    descendants = {process.pid for process in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            marked = mark in environment and process.pid != os.getpid()
            if (process.pid in descendants or marked) and not _of_the_interpreter(process):
                yield process
        except (OSError, psutil.Error):
            continue


def _of_the_interpreter(process: psutil.Process) -> bool:
    """Python's own tracker of shared memory, and its server of forks, live as long as the session does."""
    own = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
    return any(name in word for word in process.cmdline() for name in own)


def _processes() -> Iterator[str]:
    for process in _ours():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline()) or process.name()
            yield f"pid {process.pid} started {process.create_time():.2f}: {command}"


def _namespaces() -> Iterator[str]:
    """Network namespaces held by processes of this session: other people's come and go as they like."""
    for process in _ours():
        with suppress(OSError):
            yield str(Path(f"/proc/{process.pid}/ns/net").readlink())


def _host_interfaces() -> Iterator[str]:
    """Interfaces of the host namespace (carrier and address of theirs are not ours to watch)."""
    return (path.name for path in Path("/sys/class/net").iterdir())


def _mounts() -> Iterator[str]:
    """Mount points of the namespace the tests run in."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        yield line.split(" ")[4]


def _our_files() -> Iterator[str]:
    for folder in {Path("/run"), Path("/tmp"), Path(tempfile.gettempdir())}:
        yield from (str(path) for path in folder.iterdir() if path.name.startswith(OURS) and _is_mine(path))


def _is_mine(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session", autouse=True)
def machine_left_as_found() -> Iterator[None]:
    """Fail the session when it leaves a namespace, interface, mount, file or process behind."""
    os.environ[MARK] = uuid.uuid4().hex
    before = Machine.seen()
    yield
    deadline = time.monotonic() + SETTLE_S
    differences = Machine.seen().differences(before)
    while differences and time.monotonic() < deadline:
        time.sleep(0.1)
        differences = Machine.seen().differences(before)
    assert not differences, "the tests did not leave the machine as they found it:\n" + "\n".join(differences)
