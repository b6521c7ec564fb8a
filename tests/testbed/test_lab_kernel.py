"""Programs on User-mode Linux: what comes back, what they may write, and that nothing outlives the caller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import psutil
import pytest

from testbed.cli.lab_run import Memory
from testbed.errors import NotReady, Unsupported
from testbed.lab_kernel import GuestProgram, UserModeLinux, inside, run
from testbed.lab_kernel.kernel import Lines
from testbed.lab_kernel.registers import larger_than_saved
from tests.testbed.labs import NOBODY, soon

TESTBED = (sys.executable, "-m", "testbed")
EVIL = Path("/etc/testbed-was-here")

needs_uml = pytest.mark.skipif(
    inside() or subprocess.run(("which", "linux.uml"), capture_output=True, check=False).returncode != 0,
    reason="needs the package user-mode-linux, and does not run in itself",
)

LOOK = """
import json, os, subprocess, sys
from pathlib import Path
def said(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout
sys.stderr.write("to the errors\\n")
Path("written").write_text("for real")
Path("/etc/testbed-was-here").write_text("only above")
subprocess.run("ip link add vrf7 type vrf table 7".split())
subprocess.run("tc qdisc add dev lo root netem delay 50ms".split())
subprocess.run("iptables -A FORWARD -p tcp -m conntrack --ctstate NEW -j DROP".split())
subprocess.run("mount -t hostfs none /media -o /".split(), check=True)
try:
    Path("/media/etc/testbed-was-here").touch()
    refusal = "none"
except OSError as error:
    refusal = error.strerror
subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], check=True)
print(json.dumps({
    "cwd": os.getcwd(), "word": os.environ["WORD"], "argv": sys.argv[1:], "stdin": sys.stdin.read(),
    "release": os.uname().release, "above": Path("/etc/testbed-was-here").exists(),
    "tmp": os.listdir("/tmp"), "vrf": said("ip", "-d", "link", "show", "vrf7"),
    "below": Path("/media/etc/passwd").exists(), "refusal": refusal,
    "ovs": os.path.exists("/sys/module/openvswitch"),
    "ping": said("ping", "-c", "2", "-i", "0.2", "-q", "127.0.0.1"), "rules": said("iptables", "-S", "FORWARD"),
}))
sys.exit(7)
"""

ORDINARY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--no-new-privs",
)


@pytest.fixture
def folder(tmp_path_factory):
    """A directory that an ordinary user may reach."""
    place = Path("/var/tmp", f"labs-{os.getpid()}-{time.monotonic_ns()}")
    place.mkdir()
    yield place
    for path in place.iterdir():
        path.unlink()
    place.rmdir()


def lab_run(folder, *argv, before=(), **kept):
    program = (*before, *TESTBED, "lab", "run", *argv)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "WORD": "ü b"}
    return subprocess.run(program, cwd=folder, env=environment, text=True, timeout=100, check=False, **kept)


@needs_uml
@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root")
@pytest.mark.parametrize("before", [(), ORDINARY], ids=["root", "nobody"])
def test_a_program_has_another_kernel_and_this_machines_files_and_keeps_only_its_folder(folder, before):
    if before:
        os.chown(folder, NOBODY, NOBODY)
    done = lab_run(
        folder,
        "--",
        "python3",
        "-c",
        LOOK,
        "--an option",
        "*",
        before=before,
        input="given\n" * 5000,
        capture_output=True,
    )
    assert done.returncode == 7, done.stderr
    assert done.stderr == "to the errors\n"
    seen = json.loads(done.stdout)
    assert seen["cwd"] == str(folder)
    assert (seen["word"], seen["argv"]) == ("ü b", ["--an option", "*"])
    assert seen["stdin"] == "given\n" * 5000
    assert seen["release"] == UserModeLinux.found().modules.name
    assert (folder / "written").read_text() == "for real"
    assert (folder / "written").stat().st_uid == (NOBODY if before else 0)
    assert seen["above"]
    assert (seen["below"], seen["refusal"]) == (True, "Permission denied" if before else "Read-only file system")
    assert not EVIL.exists()
    assert seen["tmp"] == []
    assert "vrf table 7" in seen["vrf"]
    assert seen["ovs"]
    assert 100 <= float(seen["ping"].split("= ")[1].split("/")[0]) < 140
    assert "--ctstate NEW -j DROP" in seen["rules"]


@needs_uml
def test_a_program_whose_listener_is_gone_finds_its_pipe_broken(tmp_path):
    words = (*TESTBED, "lab", "run", "--memory", "256M", "--", "sh", "-c", "yes; echo $? >&2")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe, stderr=pipe) as caller:
        assert caller.stdout is not None
        assert caller.stderr is not None
        assert caller.stdout.readline() == b"y\n"
        caller.stdout.close()
        assert caller.stderr.read() == b"141\n"
        assert caller.wait(15) == 0


@needs_uml
def test_other_folders_are_kept_when_asked_for_and_big_output_is_whole(tmp_path):
    here, there, elsewhere = (tmp_path / name for name in ("here", "the re", "elsewhere"))
    for place in (here, there, elsewhere):
        place.mkdir()
    script = 'touch "$1/kept" "$2/lost"; head -c 3000000 /dev/zero | tr \'\\0\' x; nosuch'
    words = ("sh", "-c", script, "sh", str(there), str(elsewhere))
    done = lab_run(here, "--memory", "256M", "--write", str(there), "--", *words, capture_output=True)
    assert done.returncode == 127
    assert done.stdout == "x" * 3_000_000
    assert (there / "kept").exists()
    assert list(elsewhere.iterdir()) == []


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@needs_uml
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_nothing_outlives_the_caller(tmp_path, number):
    program = "echo up; trap 'echo told; exit 5' INT; while :; do sleep 0.1; done"
    caller = subprocess.Popen(
        (*TESTBED, "lab", "run", "--memory", "256M", "--", "sh", "-c", program),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        below = descendants(caller)
        assert any("linux.uml" in process.name() for process in below)
        os.kill(caller.pid, number)
        assert caller.wait(15) == (-9 if number == signal.SIGKILL else 130)
        assert soon(lambda: not any(process.is_running() for process in below))
        assert caller.stdout.read() == (b"" if number == signal.SIGKILL else b"told\n")


def stand_in(folder: Path, text: str) -> UserModeLinux:
    """A program in the kernel's place that is not one."""
    program = folder / "linux.uml"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return UserModeLinux(program, folder)


def test_a_boot_that_hangs_is_ended_and_told_with_the_consoles_last_words(tmp_path):
    kernel = stand_in(tmp_path, "echo Linux version none; exec sleep 1000")
    began = time.monotonic()
    with pytest.raises(NotReady, match="Linux version none"):
        run(kernel, GuestProgram(("true",), tmp_path, {}, (), 2**28), boot_seconds=0.7)
    assert time.monotonic() - began < 5


def test_a_guest_that_breaks_off_is_told_with_the_consoles_last_words(tmp_path):
    kernel = stand_in(tmp_path, "echo Kernel panic - not syncing; exit 1")
    with pytest.raises(ChildProcessError, match=r"broke off(.|\n)*Kernel panic"):
        run(kernel, GuestProgram(("true",), tmp_path, {}, (), 2**28))


def test_the_root_may_not_be_the_folder_to_write():
    with pytest.raises(Unsupported, match="whole root"):
        GuestProgram(("true",), Path("/"), {}).real_folders()


def test_a_machine_without_it_is_told_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="apt-get install user-mode-linux" if not inside() else "already"):
        UserModeLinux.found()


def test_the_console_and_the_programs_streams_are_different_descriptors(tmp_path):
    words = UserModeLinux(Path("linux.uml"), tmp_path).argv(
        2**30, Path("/i"), Path("/s"), Lines(3, 4, 5, 6, 7), tmp_path
    )
    assert "con0=null,fd:1" in words
    assert [word for word in words if word.startswith("ssl") and "fd:" in word] == [
        "ssl1=fd:3,fd:4",
        "ssl2=fd:5,null",
        "ssl3=null,fd:6",
        "ssl4=null,fd:7",
    ]
    assert words[1] == "mem=1024M"


@pytest.mark.parametrize("text", ["", "2", "G", "2g", "-1G", "0G", "64M", "1.5G", "2GB", "9999999G"])
def test_memory_that_is_none_is_refused(text):
    with pytest.raises(click.BadParameter, match="expected"):
        Memory()(text)


def test_memory_is_read_in_octets():
    assert (Memory()("512M"), Memory()("2G")) == (2**29, 2**31)


def test_the_processors_registers_decide_about_the_shim(tmp_path):
    described = tmp_path / "cpuinfo"
    described.write_text("flags\t\t: fpu avx512f amx_bf16 amx_tile\n")
    assert larger_than_saved(described)
    described.write_text("flags\t\t: fpu avx512f\nnotes: amx_tile\n")
    assert not larger_than_saved(described)
