"""Boot the guest inside a sandbox whose root nobody can write, and stay until it is off.

What the guest may write is a matter of mounts, made before it starts and read back: even a guest that runs as root,
on a machine where we are root, is refused by this machine's own kernel.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import Unsupported
from testbed.lab_kernel.kernel import Lines, UserModeLinux
from testbed.lab_kernel.registers import larger_than_saved, shim
from testbed.lab_kernel.relay import Relay
from testbed.lab_kernel.terminal import readable_stdin
from testbed.sandbox import MS_BIND, MS_NODEV, MS_NOSUID, MS_REC, SCRATCH, Sandbox, mount

BOOT_SECONDS = 60.0
"""How long until the guest must say that it is ready; it takes 3 s on an idle machine."""

MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
FOLDER = SCRATCH / "guest"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class GuestProgram:
    """What is to run: its words, where, with which environment, what it may write for real and how much memory."""

    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    writable: tuple[Path, ...] = ()
    memory_octets: int = 2 * 2**30

    def real_folders(self) -> tuple[Path, ...]:
        """The directories whose files outlive the guest, outer before inner; raises Unsupported for the whole root."""
        folders = sorted({self.folder.resolve(), *(path.resolve() for path in self.writable)})
        for folder in folders:
            if folder == Path("/"):
                raise Unsupported("the guest may not write the whole root", "start in your project's folder")
            if not folder.is_dir():
                raise Unsupported(f"{folder} is not a directory", "make it first")
        return tuple(folders)


def run(kernel: UserModeLinux, program: GuestProgram, boot_seconds: float = BOOT_SECONDS) -> int:
    """Boot, run the program with this process's stdin, stdout and stderr, power off; its exit code.

    Raises NotReady with the console's last words when the guest does not come up, ChildProcessError when it breaks
    off, Unsupported when this machine lacks what it takes.
    """
    folders = program.real_folders()
    with readable_stdin() as stdin:
        return Sandbox("lab-kernel", folders).call(lambda: _booted(kernel, program, folders, stdin, boot_seconds))


def _booted(
    kernel: UserModeLinux, program: GuestProgram, folders: Sequence[Path], stdin: int, boot_seconds: float
) -> int:
    FOLDER.mkdir()
    (FOLDER / "python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(__file__).with_name("guest.py"), FOLDER / "guest.py")
    (FOLDER / "job.json").write_text(json.dumps(_job(kernel, program, folders)))
    preload = {"LD_PRELOAD": str(shim(FOLDER))} if larger_than_saved() else {}
    memory = FOLDER / "memory"
    memory.mkdir()
    only_writable(folders)
    mount("tmpfs", str(memory), "tmpfs", MS_NOSUID | MS_NODEV, f"size={program.memory_octets + 2**29},mode=700")

    with ExitStack() as ours, ExitStack() as guests:
        to_control, from_control, to_stdin, from_stdout, from_stderr, from_console = (os.pipe() for _ in range(6))
        for _reader, _writer in (to_control, to_stdin):
            guests.callback(os.close, _reader)
            ours.callback(os.close, _writer)
        for _reader, _writer in (from_control, from_stdout, from_stderr, from_console):
            guests.callback(os.close, _writer)
            ours.callback(os.close, _reader)
        lines = Lines(to_control[0], from_control[1], to_stdin[0], from_stdout[1], from_stderr[1])
        machine = subprocess.Popen(
            kernel.argv(program.memory_octets, FOLDER / "python", FOLDER / "guest.py", lines, memory),
            cwd="/",
            env={"TMPDIR": str(memory), "HOME": str(memory), "PATH": os.defpath, **preload},
            stdin=subprocess.DEVNULL,
            stdout=from_console[1],
            stderr=from_console[1],
            pass_fds=(to_control[0], from_control[1], to_stdin[0], from_stdout[1], from_stderr[1]),
            start_new_session=True,
        )
        guests.close()
        relay = Relay(
            machine,
            control=(from_control[0], to_control[1]),
            stdin=(stdin, to_stdin[1]),
            stdout=(from_stdout[0], 1),
            stderr=(from_stderr[0], 2),
            console=from_console[0],
        )
        return relay.until_off(boot_seconds)


def _job(kernel: UserModeLinux, program: GuestProgram, folders: Sequence[Path]) -> dict[str, object]:
    return {
        "argv": program.argv,
        "cwd": str(program.folder.resolve()),
        "environment": dict(program.environment),
        "writable": [str(folder) for folder in folders],
        "modules": str(kernel.modules),
    }


def only_writable(folders: Sequence[Path]) -> None:
    """Make every mount of this namespace read-only but `folders`; mounts below them stay read-only too.

    Read back from the mount table; raises Unsupported where this kernel cannot do it.
    """
    for folder in folders:
        mount(str(folder), str(folder), None, MS_BIND | MS_REC)
    _set_read_only("/", recursive=True)
    for folder in folders:
        _set_read_only(str(folder), clear=True)
    allowed = {str(folder) for folder in folders}
    for row in Path("/proc/self/mountinfo").read_text().splitlines():
        place, options = row.split(" ")[4:6]
        if "ro" not in options.split(",") and place.encode().decode("unicode_escape") not in allowed:
            raise Unsupported(f"{place} would stay writable for the guest", "unmount it first")


def _set_read_only(place: str, recursive: bool = False, clear: bool = False) -> None:
    attributes = (ctypes.c_uint64 * 4)(0 if clear else MOUNT_ATTR_RDONLY, MOUNT_ATTR_RDONLY if clear else 0, 0, 0)
    status = _libc.syscall(
        MOUNT_SETATTR,
        AT_FDCWD,
        os.fsencode(place),
        AT_RECURSIVE if recursive else 0,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )
    if status != 0:
        wanted, reason = "writable" if clear else "read-only", os.strerror(ctypes.get_errno())
        raise Unsupported(f"this kernel does not make {place} {wanted} ({reason})", "use Linux 5.12 or later")
