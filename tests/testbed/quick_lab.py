"""A lab with one of each device that is up in a second: what is killed a hundred times should not take long."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from topologies.offered_load import pcap, udp_packet

FLOWS = 20
NS = 1_000_000_000

LAB = """\
name: quick
topology:
  nodes:
    outside:
      kind: edge
      interfaces: {eth0: [192.0.2.1/24]}
      prefixes: [198.51.100.0/24]
      routes: [{to: 10.0.0.0/8, via: 192.0.2.2}]
    fw1:
      kind: firewall
      interfaces: {ens3: [192.0.2.2/24], ens4: [10.0.0.1/30]}
      routes: [{to: 198.51.100.0/24, via: 192.0.2.1}, {to: 10.0.0.0/8, via: 10.0.0.2}]
    r1:
      kind: router
      interfaces: {ens3: [10.0.0.2/30], ens4: [10.1.0.1/24]}
    sw1:
      kind: bridge
      interfaces: {p1: [], p2: [], p3: []}
    lb1:
      kind: loadbalancer
      interfaces: {ens3: [10.1.0.10/24]}
      routes: [{to: default, via: 10.1.0.1}]
    web1:
      kind: host
      interfaces: {ens3: [10.1.0.11/24]}
      routes: [{to: default, via: 10.1.0.1}]
      listen: [tcp/8080]
  links:
    - {endpoints: ["outside:eth0", "fw1:ens3"], rate: 50Mbit}
    - {endpoints: ["fw1:ens4", "r1:ens3"]}
    - {endpoints: ["r1:ens4", "sw1:p1"]}
    - {endpoints: ["sw1:p2", "lb1:ens3"]}
    - {endpoints: ["sw1:p3", "web1:ens3"], rate: 20Mbit}
"""
RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
{more}-A FORWARD -p udp -m udp --dport 5001 -j ACCEPT
COMMIT
"""
FRR = "hostname r1\nip route 198.51.100.0/24 10.0.0.1\n"
HAPROXY = """\
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend web
  bind :80
  default_backend servers
backend servers
  server web1 10.1.0.11:8080 check inter 200ms
"""


def quick_lab(folder: Path) -> Path:
    """The lab, with a capture of a second and a change that drops its traffic."""
    for name, text in {
        "lab.yaml": LAB,
        "configs/fw1/iptables.rules": RULES.format(more=""),
        "policy.yaml": "replay: {connect_timeout_s: 0.3, response_timeout_s: 0.3}\nwindows: {treatment: 3}\n",
        "configs/r1/frr.conf": FRR,
        "configs/lb1/haproxy.cfg": HAPROXY,
        "changes/drop/configs/fw1/iptables.rules": RULES.format(more="-A FORWARD -p udp -m udp --dport 5001 -j DROP\n"),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "traffic").mkdir()
    (folder / "traffic" / "second.pcap").write_bytes(pcap(sorted(_packets())))
    return folder


def _packets() -> list[tuple[int, bytes]]:
    server = IPv4Address("10.1.0.11")
    packets = []
    for n in range(FLOWS):
        client, port = IPv4Address("198.51.100.0") + n + 1, 20_000 + n
        for k in range(4):
            at_ns = 1_700_000_000 * NS + (n * 40 + k * 50) * 1_000_000
            packets.append((at_ns, udp_packet(client, server, port, 5001, bytes([n, k]) * 100)))
            packets.append((at_ns + 1_000_000, udp_packet(server, client, 5001, port, bytes([n, k]) * 40)))
    return packets
