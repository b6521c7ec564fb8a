"""The private namespaces that own everything a run makes; the only room that makes user and PID namespaces.

It knows nothing of networks, labs or experiments.  A job runs as a child of a PID 1 that only
reaps; when that PID 1 dies, by whatever cause, the kernel ends every process, namespace, interface
and mount the job made.

    caller ── stem (unshare, dies with the caller) ── reaper (PID 1) ── job and its daemons
"""

from __future__ import annotations

import ctypes
import math
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from testbed.errors import Unsupported

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_REC, MS_PRIVATE, MS_BIND, MS_NOSUID, MS_NODEV = 0x4000, 0x40000, 0x1000, 0x2, 0x4
MS_RDONLY, MS_REMOUNT = 0x1, 0x20
PR_SET_PDEATHSIG = 1

NOT_ROOT = "1000"
UNWIND_SECONDS = 10.0
"""How long an interrupted job may take to leave in order."""

SCRATCH = Path("/run/testbed")
"""Where the job may put files that vanish with the sandbox: a tmpfs nobody else sees."""


Result = TypeVar("Result")
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(status: int, attempted: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{attempted}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount in the caller's own mount namespace; raises OSError that says what was attempted."""
    _checked(
        _libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data and data.encode()),
        f"mount {source} on {target}",
    )


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces; raises OSError."""
    _checked(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, flags: int) -> None:
    """Move the calling thread into the namespace behind `descriptor`; raises OSError."""
    _checked(_libc.setns(descriptor, flags), "setns")


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that forked it ends."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Private user, mount, PID, network, IPC and UTS namespaces for one run.

    Rootless and root take the same path, so that what holds for an ordinary user is what root
    tests.  `visible` are directories the job must still find at their own paths.
    """

    name: str
    visible: tuple[Path, ...] = ()

    def call(self, job: Callable[[], Result]) -> Result:
        """Run `job` inside and return its value, or raise its exception, here.

        The value travels by pickle between our own processes.  Raises Unsupported when the
        kernel refuses the namespaces, ChildProcessError when the job was killed.
        """
        for path in self.visible:
            # /var/run is one of many names of /run
            if any(Path("/run") in (place, *place.parents) for place in (path.absolute(), path.resolve())):
                raise Unsupported(f"{path} lies under /run, which is private in a sandbox", "use another directory")
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # asked for here: a stem whose caller is dead already would take its adopter for the caller
        caller = os.getpid()
        stem = os.fork()
        if stem == 0:
            os.close(reader)
            _stem(self.name, job, writer, caller)
        os.close(writer)
        try:
            with os.fdopen(reader, "rb") as pipe:
                answer = pipe.read()
        except BaseException:
            os.kill(stem, signal.SIGINT)
            _reap(stem, UNWIND_SECONDS)
            raise
        status = _reap(stem)
        if not answer:
            raise ChildProcessError(f"sandbox {self.name}: the job ended without an answer (status {status})")
        succeeded, value = pickle.loads(answer)
        if succeeded:
            return value  # type: ignore[no-any-return]
        raise value


def _reap(child: int, seconds: float = math.inf) -> int:
    """Wait for `child`; after `seconds`, or a second interrupt, it is killed and all below it with it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if seconds == math.inf:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        except KeyboardInterrupt:
            deadline = 0.0
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            seconds, deadline = math.inf, math.inf


def _stem(name: str, job: Callable[[], object], writer: int, caller: int) -> NoReturn:
    """Unshare, then fork the reaper: a PID namespace only holds the children of who made it."""
    try:
        # out of the terminal's group: an interrupt reaches the job once, by way of the caller
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        die_with_parent()
        _raise_limits()
        uid, gid = os.getuid(), os.getgid()
        _unshare_all(uid, gid)
        die_with_parent()
        if os.getppid() != caller:
            os._exit(1)
        alive_reader, alive_writer = os.pipe()
        reaper = os.fork()
        if reaper == 0:
            os.close(alive_writer)
            _reaper(name, job, writer, alive_reader)
        os.close(writer)
        os.close(alive_reader)
        _forward_interrupts(reaper)
        os._exit(_exit_code(os.waitpid(reaper, 0)[1]))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
        _answer(writer, False, error)
        os._exit(1)


def _unshare_all(uid: int, gid: int) -> None:
    private = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    try:
        unshare(CLONE_NEWUSER | private)
    except OSError as refusal:
        if os.geteuid() == 0:
            unshare(private)
            return
        raise Unsupported(
            f"this machine does not let an ordinary user make namespaces ({refusal.strerror})",
            "on Ubuntu 24.04: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; "
            "elsewhere: sysctl user.max_user_namespaces must be above 0",
        ) from None
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        try:
            Path("/proc/self", file).write_text(text)
        except OSError as refusal:
            raise Unsupported(
                f"this machine does not let an ordinary user map itself into a user namespace ({refusal.strerror})",
                "on Ubuntu 24.04: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ) from None


def _raise_limits() -> None:
    """Take what the caller may have: open files, and real-time priority, which cannot be asked for inside."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = 99 if os.geteuid() == 0 else resource.getrlimit(resource.RLIMIT_RTPRIO)[1]
    try:
        resource.setrlimit(resource.RLIMIT_RTPRIO, (wanted, wanted))
    except (OSError, ValueError):
        return


def _reaper(name: str, job: Callable[[], object], writer: int, stem_alive: int) -> NoReturn:
    """PID 1: fork the job, reap orphans, end with the job; its end ends everything else."""
    try:
        die_with_parent()
        os.set_blocking(stem_alive, False)
        try:
            if os.read(stem_alive, 1) == b"":
                os._exit(1)
        except BlockingIOError:
            os.close(stem_alive)
        _furnish(name)
        child = os.fork()
        if child == 0:
            _job(job, writer)
        os.close(writer)
        _forward_interrupts(child)
        while True:
            ended, status = os.wait()
            if ended == child:
                os._exit(_exit_code(status))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
        _answer(writer, False, error)
        os._exit(1)


def _exit_code(status: int) -> int:
    """A wait status as a shell tells it: 128 and the signal's number for who was killed."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _forward_interrupts(child: int) -> None:
    def forward(_number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGINT)

    signal.signal(signal.SIGINT, forward)


def _job(job: Callable[[], object], writer: int) -> NoReturn:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _answer(writer, True, job())
        code = 0
    except BaseException as error:  # noqa: BLE001 - raised again in the caller
        error.add_note(f"inside the sandbox:\n{traceback.format_exc()}")
        _answer(writer, False, error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _answer(writer: int, succeeded: bool, value: object) -> None:
    try:
        packed = pickle.dumps((succeeded, value))
        pickle.loads(packed)
    except Exception as unfit:  # noqa: BLE001 - packing runs the value's own code, which may raise anything
        stand_in = RuntimeError(f"{type(value).__name__}: {value} (could not leave the sandbox: {unfit})")
        for note in getattr(value, "__notes__", ()):
            stand_in.add_note(note)
        packed = pickle.dumps((False, stand_in))
    # an interrupted caller no longer listens; raised here, that would unwind the caller's own stack in this child
    with suppress(BrokenPipeError):
        view = memoryview(packed)
        while view:
            view = view[os.write(writer, view) :]


def _furnish(name: str) -> None:
    """Private /proc, /run, home and account files, the file system otherwise shared."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    _protect_machine_settings()
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    SCRATCH.mkdir()
    # vtysh would fill the caller's ~/.history_frr with our questions
    os.environ["HOME"] = "/run"
    for file in ("passwd", "group"):
        mapped = SCRATCH / file
        mapped.write_text(accounts_as_root(Path("/etc", file).read_text()))
        mount(str(mapped), f"/etc/{file}", None, MS_BIND)
    _libc.sethostname(name.encode()[:64], min(len(name.encode()), 64))


def _protect_machine_settings() -> None:
    """All of /proc/sys but net belongs to the whole machine, and root's sandbox could write it."""
    for own in ("/proc/sys", "/proc/sys/net"):
        mount(own, own, None, MS_BIND)
    mount("none", "/proc/sys", None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def accounts_as_root(text: str) -> str:
    """passwd or group with every name mapped to id 0, the only id a rootless sandbox has.

    Daemons insist on their own accounts (`frr`, `frrvty`, `haproxy`): the names exist, the ids are
    the caller's.  Accounts that the machine lacks are added, and one that is not root's for programs
    that refuse to be it: `unshare --user --map-user=1000` makes the caller that one.
    """
    lines = [line.split(":") for line in text.splitlines() if line.count(":") >= 3]
    passwd = any(len(fields) >= 7 for fields in lines)
    known = {fields[0] for fields in lines}
    for fields in lines:
        fields[2] = "0"
        if passwd:
            fields[3] = "0"
    lacking = sorted({"frr", "frrvty", "haproxy", "redis", "dnsmasq", "www-data"} - known)
    lines += [[name, "x", "0", "0", "", "/", "/bin/false"] if passwd else [name, "x", "0", ""] for name in lacking]
    lines.append(
        ["not-root", "x", NOT_ROOT, NOT_ROOT, "", "/", "/bin/false"] if passwd else ["not-root", "x", NOT_ROOT, ""]
    )
    return "\n".join(":".join(fields) for fields in lines) + "\n"
