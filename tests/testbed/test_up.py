"""`testbed up`: real shadows of labs in every form, Mininet's words on them, and two of them side by side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.quick_lab import quick_lab

CLAB = """\
name: two
topology:
  nodes:
    a:
      kind: linux
      image: alpine
      exec: ["ip addr add 10.0.0.1/24 dev eth1"]
    b:
      kind: linux
      image: alpine
      exec: ["ip addr add 10.0.0.2/24 dev eth1"]
  links:
    - endpoints: ["a:eth1", "b:eth1"]
"""
MININET = """\
from mininet.topo import Topo

class Two(Topo):
    def build(self):
        self.addLink(self.addHost("left"), self.addHost("right"))

topos = {"two": Two}
"""


def up(*words: str, said: str = "", seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "testbed", "up", *map(str, words)]
    return subprocess.run(argv, input=said, capture_output=True, text=True, timeout=seconds, check=False)


@pytest.fixture
def lab(tmp_path) -> Path:
    return quick_lab(tmp_path / "quick")


def test_a_command_runs_in_its_node_and_its_exit_status_is_ours(lab):
    assert "10.1.0.11" in up(str(lab), "--", "web1", "ip", "-br", "addr").stdout
    assert up(str(lab), "--", "web1", "sh", "-c", "exit 7").returncode == 7


def test_names_of_nodes_stand_for_their_addresses(lab):
    told = up(str(lab), "--", "web1", "ping", "-c1", "-W2", "lb1")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "10.1.0.10" in told.stdout


@pytest.mark.slow
def test_pingall_fails_where_a_packet_is_lost(tmp_path):
    (tmp_path / "two.clab.yml").write_text(
        CLAB.replace(
            '"ip addr add 10.0.0.2/24 dev eth1"', '"ip addr add 10.0.0.2/24 dev eth1", "ip link set eth1 down"'
        )
    )
    told = up(str(tmp_path / "two.clab.yml"), "--", "pingall")
    assert told.returncode == 1, told.stdout + told.stderr
    assert "100% dropped" in told.stdout + told.stderr


def test_a_load_balancer_finds_its_server_alive_though_nothing_is_replayed(lab):
    told = up(str(lab), "--", "web1", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://10.1.0.10/")
    assert told.stdout == "200", told.stderr


def test_a_word_that_is_neither_node_nor_command_is_a_misuse(lab):
    told = up(str(lab), "--", "fierwall", "ls")
    assert told.returncode == 2
    assert "fierwall" in told.stderr
    assert "built" not in told.stderr
    assert "expected a program" in up(str(lab), "--", "fw1").stderr


def test_the_prompt_takes_commands_from_a_pipe_and_a_link_goes_down_and_up(lab):
    ping = "web1 ping -c1 -W1 10.1.0.10\n"
    told = up(str(lab), said=f"{ping}link web1 sw1 down\n{ping}link web1 sw1 up\n{ping}exit\n")
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("1 received") == 2
    assert "unreachable" in told.stdout + told.stderr


def test_nodes_and_links_are_told_as_mininet_tells_them(lab):
    told = up(str(lab), said="nodes\nnet\ndump\nexit\n")
    text = told.stdout + told.stderr
    assert "web1 web1-ens3:sw1-p3" in text
    assert "<ShadowNode lb1: ens3:10.1.0.10" in text


@pytest.mark.parametrize(("name", "text", "node"), [("two.clab.yml", CLAB, "a"), ("two.py", MININET, "left")])
def test_labs_from_elsewhere_come_up(tmp_path, name, text, node):
    (tmp_path / name).write_text(text)
    told = up(str(tmp_path / name), "--", "pingall")
    assert told.returncode == 0, told.stdout + told.stderr
    assert node in told.stdout + told.stderr


def test_graph_writes_a_map_for_people_and_one_for_programs_and_check_starts_nothing(tmp_path, lab):
    told = up(str(lab), "--graph", str(tmp_path / "map"), "--check")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "map.mmd").read_text().startswith("graph LR")
    assert "<svg" in (tmp_path / "map.html").read_text()
    assert "built in" not in told.stderr


def test_bad_input_is_told_with_its_line_and_nothing_is_started(tmp_path, lab):
    text = (lab / "lab.yaml").read_text().replace("kind: firewall", "kind: fierwall")
    (lab / "lab.yaml").write_text(text)
    told = up(str(lab), "--", "pingall")
    assert told.returncode == 2
    assert "lab.yaml:10:13" in told.stderr
    assert "firewall" in told.stderr


def test_two_shadows_with_the_same_addresses_do_not_know_of_each_other(lab):
    argv = [sys.executable, "-m", "testbed", "up", str(lab), "--quiet"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(argv, **pipes) as one, subprocess.Popen(argv, **pipes) as other:
        try:
            assert "1 received" in told_by(one, "web1 ping -c1 -W2 10.1.0.10", "transmitted")
            assert "1 received" in told_by(other, "web1 ping -c1 -W2 10.1.0.10", "transmitted")
            one.stdin.write("link web1 sw1 down\nweb1 ip link set lo down\n")
            one.stdin.flush()
            assert "DOWN" in told_by(one, "web1 ip -br link show dev ens3", "ens3@")
            assert "UP" in told_by(other, "web1 ip -br link show dev ens3", "ens3@")
            assert "1 received" in told_by(other, "web1 ping -c1 -W2 10.1.0.10", "transmitted")
        finally:
            for shadow in (one, other):
                shadow.stdin.write("exit\n")
                shadow.stdin.flush()
                shadow.wait(20)


def told_by(shadow: subprocess.Popen[str], command: str, awaited: str) -> str:
    """The first line with `awaited` in it that a shadow's prompt answers to a command."""
    shadow.stdin.write(f"{command}\n")
    shadow.stdin.flush()
    for line in shadow.stdout:
        if awaited in line:
            return line
    raise AssertionError(f"the shadow ended without an answer to {command}")
