"""A firewall between the outside and two hosts, dual stack, with flows of every fate; it is up in half a second."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

LAB = """\
name: gate
topology:
  nodes:
    outside:
      kind: edge
      interfaces: {eth0: [192.0.2.1/24, "2001:db8:f::1/64"]}
      prefixes: [198.51.100.0/24, "2001:db8:100::/48"]
      routes: [{to: 10.0.0.0/8, via: 192.0.2.2}, {to: "2001:db8:1::/48", via: "2001:db8:f::2"}]
    fw1:
      kind: firewall
      interfaces: {ens3: [192.0.2.2/24, "2001:db8:f::2/64"], ens4: [10.0.1.1/24, "2001:db8:1:1::1/64"]}
      routes: [{to: 198.51.100.0/24, via: 192.0.2.1}, {to: "2001:db8:100::/48", via: "2001:db8:f::1"}]
    sw1:
      kind: bridge
      interfaces: {p1: [], p2: [], p3: []}
    app1:
      kind: host
      interfaces: {ens3: [10.0.1.11/24, "2001:db8:1:1::11/64"]}
      routes: [{to: default, via: 10.0.1.1}, {to: "::/0", via: "2001:db8:1:1::1"}]
      listen: [tcp/8080]
    log1:
      kind: host
      interfaces: {ens3: [10.0.1.12/24, "2001:db8:1:1::12/64"]}
      routes: [{to: default, via: 10.0.1.1}, {to: "::/0", via: "2001:db8:1:1::1"}]
  links:
    - {endpoints: ["outside:eth0", "fw1:ens3"]}
    - {endpoints: ["fw1:ens4", "sw1:p1"]}
    - {endpoints: ["sw1:p2", "app1:ens3"]}
    - {endpoints: ["sw1:p3", "log1:ens3"]}
"""
POLICY = """\
classes:
  - {name: app, priority: critical, match: {protocol: tcp, port: 8080}}
  - {name: syslog, match: {protocol: udp, port: 514}}
  - {name: admin, priority: high, match: {protocol: tcp, port: 22}}
access: {opened: fail, expected: [{protocol: tcp, port: 9443}]}
windows: {treatment: 3}
"""
HEAD = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
"""
ALLOWED = "-A FORWARD -i ens3 -p tcp -m tcp --dport 8080 -j ACCEPT\n"
SYSLOG = "-A FORWARD -p udp -m udp --dport 514 -j ACCEPT\n"
SILENT = "-A FORWARD -p tcp -m tcp --dport 2323 -j ACCEPT\n"
RULES = HEAD + ALLOWED + SYSLOG + SILENT + "COMMIT\n"
RULES6 = HEAD + ALLOWED + "-A FORWARD -p ipv6-icmp -j ACCEPT\nCOMMIT\n"

CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:100::7"
APP, APP6, LOG = "10.0.1.11", "2001:db8:1:1::11", "10.0.1.12"


def gate_lab(folder: Path, changes: dict[str, dict[str, str]]) -> Path:
    """The lab with these changes: name to file of fw1 to text."""
    texts = {
        "lab.yaml": LAB,
        "policy.yaml": POLICY,
        "configs/fw1/iptables.rules": RULES,
        "configs/fw1/ip6tables.rules": RULES6,
    }
    for name, files in changes.items():
        texts |= {f"changes/{name}/configs/fw1/{file}": text for file, text in files.items()}
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "traffic").mkdir()
    wrpcap(str(folder / "traffic" / "gate.pcap"), list(_packets()))
    return folder


def _packets() -> Iterable[Packet]:
    """Two accepted classes, one that the host refused, one that the firewall dropped, and datagrams nobody answers."""
    at = 1_700_000_000.0
    for number, (source, target) in enumerate(((CLIENT, APP), (CLIENT, APP), (CLIENT6, APP6))):
        yield from _timed(at + number * 0.02, _conversation(source, target, 40_000 + number, 8080))
    refused = [_tcp(CLIENT, APP, 40_010, 2323, "S", 100), _tcp(APP, CLIENT, 2323, 40_010, "RA", 0, 101)]
    yield from _timed(at + 0.1, refused)
    yield from _timed(at + 0.12, [_tcp(CLIENT, APP, 40_011, 22, "S", 100)])
    for number in range(3):
        yield from _timed(at + 0.15 + number / 100, [_ip(CLIENT, LOG) / UDP(sport=40_020, dport=514) / Raw(b"<14>up")])


def _conversation(source: str, target: str, port: int, service: int) -> Iterable[Packet]:
    yield _tcp(source, target, port, service, "S", 1000)
    yield _tcp(target, source, service, port, "SA", 5000, 1001)
    yield _tcp(source, target, port, service, "A", 1001, 5001)
    yield _tcp(source, target, port, service, "PA", 1001, 5001, b"hello")
    yield _tcp(target, source, service, port, "PA", 5001, 1006, b"welcome")
    yield _tcp(source, target, port, service, "FA", 1006, 5008)
    yield _tcp(target, source, service, port, "FA", 5008, 1007)
    yield _tcp(source, target, port, service, "A", 1007, 5009)


def _tcp(
    source: str, target: str, port: int, service: int, flags: str, sequence: int, ack: int = 0, said: bytes = b""
) -> Packet:
    segment = TCP(sport=port, dport=service, flags=flags, seq=sequence, ack=ack)
    return _ip(source, target) / segment / Raw(said) if said else _ip(source, target) / segment


def _ip(source: str, target: str) -> Packet:
    kind = IPv6 if ":" in source else IP
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / kind(src=source, dst=target)


def _timed(at: float, packets: Iterable[Packet]) -> Iterable[Packet]:
    for number, packet in enumerate(packets):
        packet.time = at + number / 1000
        yield packet
