"""ICMP echo in a what-if: pings to a host and to a firewall's own address, and a change that stops the former."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.devices.registry import known_devices
from testbed.prepare import prepared
from tests.replay.packet_captures import capture, echo, ip4
from tests.testbed.quick_lab import RULES, quick_lab
from topologies.load import load_lab

ICMP = 1
HOST, FIREWALL = "10.1.0.11", "192.0.2.2"


@pytest.fixture
def lab(tmp_path) -> Path:
    """The quick lab with two clients that ping beside its UDP, and a change that stops echo behind the firewall."""
    folder = quick_lab(tmp_path / "quick")
    packets = []
    for place, target in enumerate((HOST, FIREWALL)):
        client = f"198.51.100.{200 + place}"
        for n in range(10):
            at_us = 80_000 * n + 7_000 * place
            packets.append((at_us, ip4(client, target, ICMP, echo(8, n))))
            packets.append((at_us + 900, ip4(target, client, ICMP, echo(0, n))))
    capture(folder / "traffic" / "ping.pcap", packets)
    passes = "-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT\n"
    (folder / "configs/fw1/iptables.rules").write_text(RULES.format(more=passes))
    stopped = RULES.format(more=passes.replace("ACCEPT", "DROP"))
    (folder / "changes/drop/configs/fw1/iptables.rules").write_text(stopped)
    return folder


def test_pings_are_placed_scheduled_and_need_no_listener(lab):
    case = prepared(load_lab(lab), lab / "changes" / "drop", known_devices())
    pings = [script for script in case.schedule.scripts if script.protocol == ICMP]
    assert sorted(script.target[0] for script in pings) == [HOST, FIREWALL]
    assert all(script.exchanges == 10 for script in pings)
    assert not any(protocol == ICMP for _, protocol, _ in case.schedule.services(lambda _: "somebody"))


def test_a_change_that_stops_echo_fails_with_its_line(lab):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / "drop")),
            *("--runs", str(lab / "runs"), "--json", "--baseline", "2", "--treatment", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["verdict"] == "FAIL", verdict["reason"]
    blames = {(f["blame"]["node"], f["blame"]["text"]) for f in verdict["findings"] if f["verdict"] == "FAIL"}
    assert blames == {("fw1", "-A FORWARD -p icmp -m icmp --icmp-type 8 -j DROP")}
