"""The doctor on this machine, and on machines that really lack something: a poorer PATH, a sandbox that allows less."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from testbed.cli.doctor import show
from testbed.doctor import Row, State, document
from testbed.doctor.commands import ask
from testbed.doctor.in_sandbox import kernel_rows
from testbed.doctor.limits import limit_rows
from testbed.doctor.programs import Program, program_rows
from testbed.sandbox import Sandbox

DOCTOR = (sys.executable, "-m", "testbed", "doctor")
FIELDS = {"group", "capability", "state", "seen", "needed_for", "remedy", "demo"}


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.capability: row for row in rows}


@pytest.fixture
def poorer(tmp_path):
    """A PATH with every program of this machine but those named, and no kernel to boot."""

    def path(*lacking: str) -> str:
        for place in (*os.environ["PATH"].split(os.pathsep), "/usr/sbin", "/sbin"):
            for program in Path(place).iterdir() if Path(place).is_dir() else ():
                if program.name not in (*lacking, "linux.uml") and not (tmp_path / program.name).exists():
                    (tmp_path / program.name).symlink_to(program)
        return str(tmp_path)

    return path


def diagnosed(path: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "110"}
    return subprocess.run((*DOCTOR, *options), env=environment, capture_output=True, text=True, timeout=60, check=False)


def machine() -> tuple[str, ...]:
    """What the doctor must leave alone."""
    interfaces = sorted(path.name for path in Path("/sys/class/net").iterdir())
    return (*interfaces, Path("/proc/self/mounts").read_text())


def test_this_machine_can_run_the_demo_and_nothing_on_it_changes(poorer):
    before = machine()
    done = diagnosed(poorer(), "--json")
    assert machine() == before
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["schema"] == 1
    assert told["demo"] == {"runs": True, "prevented_by": []}
    assert all(set(row) == FIELDS for row in told["rows"])
    names = [row["capability"] for row in told["rows"]]
    assert len(set(names)) == len(names)
    assert {"user namespaces", "veth", "tbf", "netem", "iptables", "HAProxy", "FRR", "User-mode Linux"} <= set(names)
    assert all(row["remedy"] for row in told["rows"] if row["state"] == "missing")


def test_without_haproxy_the_demo_cannot_run_and_the_package_is_named(poorer):
    done = diagnosed(poorer("haproxy"))
    assert done.returncode == 4
    assert "✗ The demo cannot run without: HAProxy" in done.stdout
    remedy = done.stdout.split("What to do")[1]
    assert "sudo apt-get install haproxy" in remedy or "export PATH=" in remedy


def test_what_the_kernel_says_is_what_a_program_gets():
    """Each row against the same thing made by hand in another sandbox."""
    rows = by_name(kernel_rows())
    tries = {
        "netem": "ip link add a type veth peer name b && tc qdisc add dev a root netem delay 1ms",
        "VRF": "ip link add a type vrf table 3",
        "VLAN interfaces": "ip link add a type veth peer name b && ip link add link a name a.9 type vlan id 9",
        "bridge VLAN filtering": "ip link add a type bridge && ip link set a type bridge vlan_filtering 1",
        "Open vSwitch datapath": "ovs-dpctl add-dp a",
        "ipset": "ipset create a hash:net",
    }
    for capability, command in tries.items():
        made = Sandbox("by-hand").call(lambda command=command: ask(("sh", "-c", command)).status == 0)
        assert (rows[capability].state is State.WORKS) == made, capability


def test_where_no_namespace_is_allowed_the_row_says_so_and_what_to_do():
    def refused() -> list[Row]:
        subprocess.run(("mount", "-o", "remount,bind,rw", "/proc/sys"), check=True)
        for kind in ("user", "mnt", "net", "pid"):
            Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
        return [*kernel_rows(), *limit_rows()]

    rows = by_name(Sandbox("poor").call(refused))
    row = rows["user namespaces"]
    assert row.state is State.MISSING
    assert row.prevents_demo()
    assert "sysctl" in row.remedy
    assert "veth" not in rows
    assert rows["user namespaces allowed"].state is State.MISSING
    assert rows["user namespaces allowed"].remedy == "sudo sysctl -w user.max_user_namespaces=64"


@pytest.mark.parametrize(
    ("says", "state", "seen"),
    [
        ("version: 4.5.3", State.WORKS, "4.5.3"),
        ("version: 4.10.0", State.WORKS, "4.10.0"),
        ("version: 4.5.2 (build)", State.LIMITED, "4.5.2"),
        ("segmentation fault", State.MISSING, "segmentation fault"),
    ],
)
def test_a_version_is_what_the_program_itself_says(tmp_path, monkeypatch, says, state, seen):
    program = tmp_path / "tcpreplay"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    row = by_name(program_rows())["tcpreplay"]
    assert row.state is state
    assert row.seen.startswith(seen)
    assert bool(row.remedy) == (state is not State.WORKS)


def test_a_program_outside_the_path_of_an_ordinary_user_is_not_to_be_installed_again(monkeypatch):
    if not Path("/usr/sbin/haproxy").exists():
        pytest.skip("HAProxy lies elsewhere")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if shutil.which("haproxy"):
        pytest.skip("/usr/bin has HAProxy too")
    row = Program("HAProxy", ("haproxy", "-v"), "load balancers", "haproxy").row()
    assert row.state is State.MISSING
    assert row.remedy.startswith("export PATH=")
    assert "/usr/sbin" in row.remedy


ROWS = [
    Row(
        "kernel", "netem", State.MISSING, "Error: Specified qdisc kind is unknown.", "delay", "testbed lab run -- X" * 8
    ),
    Row("kernel", "veth", State.WORKS, "veth", "links", demo=True),
    Row("limits", "open files", State.LIMITED, "20", "flows", "ulimit"),
    Row("programs", "HAProxy", State.MISSING, "haproxy: not installed", "load balancers", "sudo apt-get", demo=True),
]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal_tells_states_in_words_and_leaves_commands_whole(width):
    console = Console(width=width, record=True, file=open(os.devnull, "w"), color_system=None)  # noqa: PTH123, SIM115
    show(ROWS, console)
    console.file.close()
    text = console.export_text()
    lines = text.splitlines()
    assert "    " + ROWS[0].remedy in lines
    assert all(len(line) <= width for line in lines if not line.startswith("    "))
    for word in ("✓ works", "~ limited", "✗ missing"):
        assert word in text


def test_the_document_says_which_row_prevents_the_demo():
    assert document(ROWS)["demo"] == {"runs": False, "prevented_by": ["HAProxy"]}
    assert document(ROWS[1:3])["demo"] == {"runs": True, "prevented_by": []}
