"""The sandbox on the real kernel: what is made inside is private, and gone when it ends, by whatever cause."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from testbed.errors import Unsupported
from testbed.sandbox import SCRATCH, Sandbox, accounts_as_root
from tests.testbed.labs import NOBODY, as_nobody, soon

KINDS = ("net", "mnt", "pid", "ipc", "uts")


@pytest.fixture(params=["caller", "nobody"])
def call(request):
    """Runs a job in a sandbox, as who runs the tests and as an ordinary user."""
    if request.param == "caller":
        return Sandbox("box").call
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    return lambda job: as_nobody(lambda folder: Sandbox("box").call(job))


def namespaces() -> dict[str, str]:
    return {kind: str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in KINDS}


def members(namespace: str, kind: str) -> list[int]:
    """Processes of the machine that are in a namespace."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str((entry / "ns" / kind).readlink()) == namespace:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def mounts() -> list[str]:
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def interfaces() -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def daemon() -> None:
    """A process that left its parents, as daemons do: forked twice, in a session of its own, deaf to SIGTERM."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        os._exit(0)
    os.wait()


def test_the_value_of_the_job_comes_back(call):
    big = call(lambda: {"octets": bytes(5_000_000), "pid": os.getpid()})
    assert len(big["octets"]) == 5_000_000
    assert big["pid"] == 2


def test_the_exception_of_the_job_comes_back_with_the_trace_of_where_it_was_raised(call):
    def job():
        raise Unsupported("flying", "walk")

    with pytest.raises(Unsupported) as caught:
        call(job)
    assert caught.value.remedy == "walk"
    (note,) = caught.value.__notes__
    assert note.startswith("inside the sandbox:")
    assert "test_sandbox.py" in note


class Stubborn(Exception):
    """Cannot be made again from its args, as pickle would."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class Hostile:
    def __reduce__(self):
        raise ZeroDivisionError("while it is packed")


def test_what_cannot_travel_still_tells_what_it_was():
    def job():
        raise Stubborn("this", "that")

    with pytest.raises(RuntimeError, match="Stubborn: this and that") as caught:
        Sandbox("box").call(job)
    assert "test_sandbox.py" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Hostile"):
        Sandbox("box").call(Hostile)
    with pytest.raises(RuntimeError, match="function"):
        Sandbox("box").call(lambda: lambda: 1)


def test_a_job_that_is_killed_is_told_with_its_status():
    with pytest.raises(ChildProcessError, match=r"status 137"):
        Sandbox("box").call(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ChildProcessError, match=r"status 3"):
        Sandbox("box").call(partial(os._exit, 3))


def test_the_job_may_leave_by_exit():
    with pytest.raises(SystemExit) as left:
        Sandbox("box").call(lambda: sys.exit(4))
    assert left.value.code == 4


def test_every_process_is_gone_after_the_job_daemons_too(call):
    def job():
        daemon()
        subprocess.Popen(["sleep", "60"], start_new_session=True)
        return namespaces(), len(list(Path("/proc").glob("[0-9]*")))

    inside, processes = call(job)
    assert processes == 4  # the reaper, the job, its daemon and sleep
    assert inside.items().isdisjoint(namespaces().items())
    for kind in KINDS:
        assert soon(lambda kind=kind: not members(inside[kind], kind))


def test_an_orphan_is_reaped(call):
    def job():
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.1)
            os._exit(0)
        os.wait()
        return soon(lambda: len(list(Path("/proc").glob("[0-9]*"))) == 2)

    assert call(job)


def test_proc_run_and_accounts_are_private(call):
    def job():
        (SCRATCH / "note").write_text("x")
        ids = {
            line.split(":")[2] for file in ("passwd", "group") for line in Path("/etc", file).read_text().splitlines()
        }
        run = sorted(p.name for p in Path("/run").iterdir())
        return os.getuid(), os.getgid(), ids, run, socket.gethostname(), len(list(Path("/proc").glob("[0-9]*")))

    assert call(job) == (0, 0, {"0", "1000"}, ["testbed"], "box", 2)
    assert not (SCRATCH / "note").exists()
    assert socket.gethostname() != "box"


def test_accounts_that_daemons_ask_for_exist_whatever_the_machine_has():
    passwd = accounts_as_root("root:x:0:0:root:/root:/bin/sh\nfrr:x:101:102::/nonexistent:/bin/false\n# a comment\n")
    assert "frr:x:0:0::/nonexistent:/bin/false\n" in passwd
    assert "\nhaproxy:x:0:0:" in passwd
    group = accounts_as_root("root:x:0:\nfrrvty:x:103:frr\n")
    assert "frrvty:x:0:frr\n" in group
    assert "\nhaproxy:x:0:\n" in group
    assert all(line.count(":") == 3 for line in group.splitlines())


def test_interfaces_and_mounts_of_the_machine_are_not_touched(call):
    before = interfaces(), mounts()

    def job():
        subprocess.run(["ip", "link", "add", "left", "type", "veth", "peer", "name", "right"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
        links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
        return links.count("\n"), mounts()

    links, inside = call(job)
    assert links == 3  # lo, left, right: nothing of the machine's
    assert "/mnt" in inside
    assert (interfaces(), mounts()) == before


def test_settings_of_the_whole_machine_cannot_be_written_even_by_root(call):
    def job():
        refused = []
        for name in ("vm/swappiness", "kernel/panic", "fs/file-max"):
            path = Path("/proc/sys", name)
            try:
                path.write_text(path.read_text())
            except OSError:
                refused.append(name)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        return refused, Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()

    assert call(job) == (["vm/swappiness", "kernel/panic", "fs/file-max"], "1")


@pytest.mark.parametrize("path", ["/run", "/run/lab", "/run/../run/lab", "/var/run/lab"])
def test_a_folder_that_the_job_could_not_see_is_refused(path):
    with pytest.raises(Unsupported, match="private in a sandbox"):
        Sandbox("box", (Path(path),)).call(lambda: None)


def test_a_folder_that_the_job_can_see_is_the_same_folder(tmp_path):
    Sandbox("box", (tmp_path,)).call(lambda: (tmp_path / "made").write_text("inside"))
    assert (tmp_path / "made").read_text() == "inside"


def caller_with(job, name: str) -> int:
    """A process named `name` that calls a sandbox; all that it starts without exec bears its name."""
    child = os.fork()
    if child == 0:
        Path("/proc/self/comm").write_text(name)
        try:
            Sandbox("doomed").call(job)
        finally:
            os._exit(1)
    return child


def named(name: str) -> list[int]:
    """Living processes of that name: a zombie has no open file."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == name and list((entry / "fd").iterdir()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_killing_the_caller_leaves_nothing(tmp_path):
    told = tmp_path / "told"

    def job():
        daemon()
        subprocess.Popen(["sleep", "60"], start_new_session=True)
        subprocess.run(["ip", "link", "add", "left", "type", "veth", "peer", "name", "right"], check=True)
        (tmp_path / "being-told").write_text("\n".join(namespaces().values()))
        (tmp_path / "being-told").rename(told)
        time.sleep(60)

    child = caller_with(job, "sbx-killed")
    assert soon(told.exists)
    inside = dict(zip(KINDS, told.read_text().splitlines(), strict=True))
    assert len(members(inside["net"], "net")) >= 4
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for kind in KINDS:
        assert soon(lambda kind=kind: not members(inside[kind], kind)), members(inside[kind], kind)


def test_killing_the_caller_at_any_moment_leaves_nothing():
    def job():
        daemon()
        time.sleep(60)

    for step in range(24):
        child = caller_with(job, f"sbx-{os.getpid()}")
        time.sleep(step * 0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert soon(lambda: not named(f"sbx-{os.getpid()}")), named(f"sbx-{os.getpid()}")


def test_only_the_caller_unwinds_its_own_stack_when_it_is_interrupted(tmp_path):
    unwound, up = tmp_path / "unwound", tmp_path / "up"

    def job():
        up.touch()
        with suppress(KeyboardInterrupt):
            time.sleep(30)
        time.sleep(0.3)
        return "an answer for which nobody waits any more"

    child = os.fork()
    if child == 0:
        try:
            Sandbox("box").call(job)
        finally:
            with unwound.open("a") as file:
                file.write("once\n")
            os._exit(0)
    assert soon(up.exists)
    os.kill(child, signal.SIGINT)
    os.waitpid(child, 0)
    assert unwound.read_text() == "once\n"


def test_an_ordinary_user_has_only_his_own_rights_outside():
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")

    def act(folder):
        Sandbox("box", (folder,)).call(lambda: (folder / "mine").write_text("x"))
        try:
            Sandbox("box").call(lambda: Path("/etc/testbed-was-here").write_text("x"))
        except PermissionError:
            return (folder / "mine").stat().st_uid
        return "wrote into /etc"

    assert as_nobody(act) == NOBODY
