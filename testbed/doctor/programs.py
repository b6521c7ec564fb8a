"""Which programs are there, in which version: each is asked, none is started for anything else."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.devices.router import DAEMON_PLACES
from testbed.doctor.commands import ask, superuser_only
from testbed.doctor.rows import Row, State
from testbed.errors import Unsupported
from testbed.lab_kernel import UserModeLinux
from testbed.lab_kernel.registers import larger_than_saved

BOOT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Program:
    """A program, how it tells its version, and the least version that does all we want."""

    capability: str
    asked: tuple[str, ...]
    needed_for: str
    package: str
    demo: bool = False
    wanted: tuple[int, ...] = ()

    def row(self) -> Row:
        """What it answers; the version is the first thing with a dot in it."""
        answer = ask(self.asked)
        version = re.search(r"\d+\.\d+[\w.~-]*(?: \([\w-]+\))?", answer.text)
        if answer.status is None or version is None:
            return self._row(State.MISSING, answer.first_line(), self._remedy())
        told = tuple(int(part) for part in re.findall(r"\d+", version[0])[: len(self.wanted)])
        if told < self.wanted:
            least = ".".join(map(str, self.wanted))
            return self._row(State.LIMITED, f"{version[0]}, {least} wanted", f"build {self.package} {least} or later")
        return self._row(State.WORKS, version[0])

    def _remedy(self) -> str:
        elsewhere = superuser_only()
        if shutil.which(self.asked[0], path=elsewhere):
            return f'export PATH="$PATH:{elsewhere}"'
        return f"sudo apt-get install {self.package}"

    def _row(self, state: State, seen: str, remedy: str = "") -> Row:
        return Row("programs", self.capability, state, seen, self.needed_for, remedy, self.demo)


PROGRAMS = (
    Program("iproute2", ("ip", "-V"), "this table", "iproute2"),
    Program("HAProxy", ("haproxy", "-v"), "load balancers", "haproxy", demo=True),
    Program("iptables (program)", ("iptables", "-V"), "firewalls", "iptables", demo=True),
    Program("nft", ("nft", "-v"), "nftables files", "nftables"),
    Program("Open vSwitch", ("ovs-vswitchd", "--version"), "nodes of kind ovs", "openvswitch-switch"),
    Program("iperf3", ("iperf3", "--version"), "benchmarks", "iperf3"),
    Program("tcpreplay", ("tcpreplay", "-V"), "the benchmark's reference", "tcpreplay", wanted=(4, 5, 3)),
    Program("Chromium", ("chromium", "--version"), "tests of the report", "chromium"),
)


def program_rows() -> list[Row]:
    """FRR, then the rest in order."""
    return [_frr(), *(program.row() for program in PROGRAMS)]


def _frr() -> Row:
    place = next((place for place in DAEMON_PLACES if (place / "zebra").exists()), DAEMON_PLACES[0])
    return Program("FRR", (str(place / "zebra"), "--version"), "routers", "frr frr-pythontools", demo=True).row()


@contextmanager
def booting() -> Iterator[subprocess.Popen[str] | None]:
    """User-mode Linux on its way up beside the other probes, to run `uname`; None where it is not installed."""
    try:
        UserModeLinux.found()
    except Unsupported:
        yield None
        return
    argv = (sys.executable, "-m", "testbed.lab_kernel", "uname", "-r")
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as up:
        try:
            yield up
        finally:
            # an interrupt, not a kill: it takes its folder away
            up.send_signal(signal.SIGINT)


def kernel_of_ours(booted: subprocess.Popen[str] | None) -> Row:
    """Whether it came up and ran a program."""
    what, why = "User-mode Linux", "testbed lab run: netem, OVS and VRF on any machine"
    if booted is None:
        try:
            UserModeLinux.found()
        except Unsupported as lack:
            return Row("programs", what, State.MISSING, lack.what, why, lack.remedy)
    assert booted is not None
    try:
        said, complaint = booted.communicate(timeout=BOOT_SECONDS)
    except subprocess.TimeoutExpired:
        return Row("programs", what, State.MISSING, "did not come up in time", why, "testbed lab run -- true")
    if booted.returncode == 0:
        shim = ", with a shim for AMX" if larger_than_saved() else ""
        return Row("programs", what, State.WORKS, f"booted {said.strip()}{shim}", why)
    lines = [line for line in complaint.splitlines() if line.strip()]
    return Row("programs", what, State.MISSING, lines[0] if lines else "broke off", why, "testbed lab run -- true")
