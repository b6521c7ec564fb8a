"""A load balancer that ends TLS: clients make handshakes of their own, and a change that shuts some out is found."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.devices.registry import known_devices
from testbed.prepare import prepared
from tests.replay.packet_captures import TCP, capture, ip4, tcp
from tests.replay.tls_handshakes import certificate, said
from tests.testbed.quick_lab import RULES, quick_lab
from topologies.load import load_lab

FRONT = "10.1.0.10"
ANEW = (
    "8443 check ssl verify required ca-file /etc/haproxy/servers-ca.pem verifyhost web1.example sni str(web1.example)"
)
PASSES = "-A FORWARD -p tcp -m tcp --dport 443 -j ACCEPT\n"
HAPROXY = """\
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend web
  bind :443 ssl crt /etc/haproxy/certs/shop.pem{more}
  default_backend servers
backend servers
  server web1 10.1.0.11:{port}
"""


def handshakes(client: str, port: int, wire: list[tuple[int, bytes]], at_us: int) -> list[tuple[int, bytes]]:
    """A TCP flow that carries this, in segments."""
    sent = [1_001, 9_001]
    ends = ((client, FRONT, (port, 443)), (FRONT, client, (443, port)))
    packets = [
        ip4(client, FRONT, TCP, tcp((port, 443), 1_000, 0, 0x02)),
        ip4(FRONT, client, TCP, tcp((443, port), 9_000, 1_001, 0x12)),
        ip4(client, FRONT, TCP, tcp((port, 443), 1_001, 9_001, 0x10)),
    ]
    for direction, octets in wire:
        source, target, ports = ends[direction]
        for at in range(0, len(octets), 1_400):
            piece = octets[at : at + 1_400]
            packets.append(ip4(source, target, TCP, tcp(ports, sent[direction], sent[1 - direction], 0x18, piece)))
            sent[direction] += len(piece)
    packets.append(ip4(client, FRONT, TCP, tcp((port, 443), sent[0], sent[1], 0x11)))
    packets.append(ip4(FRONT, client, TCP, tcp((443, port), sent[1], sent[0] + 1, 0x11)))
    packets.append(ip4(client, FRONT, TCP, tcp((port, 443), sent[0] + 1, sent[1] + 1, 0x10)))
    return [(at_us + 400 * n, packet) for n, packet in enumerate(packets)]


@pytest.fixture
def lab(tmp_path) -> Path:
    """The quick lab whose load balancer ends TLS; half of its clients know TLS 1.2 at most."""
    folder = quick_lab(tmp_path / "quick")
    (folder / "traffic" / "second.pcap").unlink()
    own = certificate(tmp_path, "shop.example")
    packets = []
    for n in range(12):
        greatest = ssl.TLSVersion.TLSv1_2 if n % 2 else ssl.TLSVersion.TLSv1_3
        wire = said(own, "shop.example", [(300, 4_000), (200, 900)], greatest)
        packets += handshakes(f"198.51.100.{n + 1}", 30_000 + n, wire, 60_000 * n)
    capture(folder / "traffic" / "tls.pcap", sorted(packets))
    (folder / "configs/fw1/iptables.rules").write_text(RULES.format(more=PASSES))
    (folder / "configs/lb1/haproxy.cfg").write_text(HAPROXY.format(more="", port=ANEW))
    (folder / "changes/drop/configs/fw1/iptables.rules").unlink()
    change = folder / "changes/modern/configs/lb1/haproxy.cfg"
    change.parent.mkdir(parents=True)
    change.write_text(HAPROXY.format(more=" ssl-min-ver TLSv1.3", port=ANEW))
    return folder


def test_flows_to_the_frontend_are_said_anew(lab):
    case = prepared(load_lab(lab), lab / "changes" / "modern", known_devices())
    assert len(case.schedule.scripts) == 12
    for script in case.schedule.scripts:
        assert script.tagged
        assert script.tls is not None
        assert script.tls.server_name == "shop.example"
        assert len(script.messages) == 4
    assert {script.tls.versions[-1] for script in case.schedule.scripts} == {0x0303, 0x0304}


def test_a_change_that_shuts_out_tls_1_2_fails_with_its_line(lab):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / "modern")),
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
    failures = [finding for finding in verdict["findings"] if finding["verdict"] == "FAIL"]
    assert failures[0]["effect"] == "6 of 12 other flows no longer complete: tls_error"
    blames = {(f["blame"]["node"], f["blame"]["text"].strip()) for f in failures}
    assert blames == {("lb1", "bind :443 ssl crt /etc/haproxy/certs/shop.pem ssl-min-ver TLSv1.3")}
