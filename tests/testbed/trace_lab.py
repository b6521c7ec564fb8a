"""A small dual-stack lab with one of everything a trace tells: NAT, a proxy, two ways, a null route that nobody meets.

outside ── fw1 ── r1 ──────── r2 ── sw1 ─┬─ lb1   HAProxy
(edge)      NAT    └─── r3 ───┘          ├─ web1
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.replay.packet_captures import TCP, UDP, capture, conversation, ip4, ip6, tcp, udp

LAB = """\
name: forked
topology:
  nodes:
    outside:
      kind: edge
      interfaces: {eth0: [192.0.2.1/24, "2001:db8:f::1/64"]}
      prefixes: [198.51.100.0/24, "2001:db8:100::/48"]
      routes: [{to: 10.0.0.0/8, via: 192.0.2.2}, {to: "2001:db8:1::/48", via: "2001:db8:f::2"}]
    fw1:
      kind: firewall
      interfaces: {ens3: [192.0.2.2/24, 192.0.2.10/24, "2001:db8:f::2/64"], ens4: [10.0.0.1/30, "2001:db8:1:1::1/64"]}
      routes:
        - {to: 198.51.100.0/24, via: 192.0.2.1}
        - {to: 10.0.0.0/8, via: 10.0.0.2}
        - {to: "2001:db8:100::/48", via: "2001:db8:f::1"}
        - {to: "2001:db8:1::/48", via: "2001:db8:1:1::2"}
    r1:
      kind: router
      interfaces:
        ens3: [10.0.0.2/30, "2001:db8:1:1::2/64"]
        ens4: [10.0.12.1/30, "2001:db8:1:12::1/64"]
        ens5: [10.0.13.1/30]
    r2:
      kind: router
      interfaces:
        ens3: [10.0.12.2/30, "2001:db8:1:12::2/64"]
        ens4: [10.0.23.2/30]
        ens5: [10.1.0.1/24, "2001:db8:1:a::1/64"]
    r3:
      kind: router
      interfaces: {ens3: [10.0.13.2/30], ens4: [10.0.23.1/30]}
    sw1:
      kind: bridge
      interfaces: {p1: [], p2: [], p3: []}
    lb1:
      kind: loadbalancer
      interfaces: {ens3: [10.1.0.10/24]}
      routes: [{to: default, via: 10.1.0.1}]
    web1:
      kind: host
      interfaces: {ens3: [10.1.0.11/24, "2001:db8:1:a::11/64"]}
      routes: [{to: 0.0.0.0/0, via: 10.1.0.1}, {to: "::/0", via: "2001:db8:1:a::1"}]
      listen: [tcp/8080, udp/5001]
  links:
    - {endpoints: ["outside:eth0", "fw1:ens3"]}
    - {endpoints: ["fw1:ens4", "r1:ens3"]}
    - {endpoints: ["r1:ens4", "r2:ens3"]}
    - {endpoints: ["r1:ens5", "r3:ens3"]}
    - {endpoints: ["r3:ens4", "r2:ens4"]}
    - {endpoints: ["r2:ens5", "sw1:p1"]}
    - {endpoints: ["sw1:p2", "lb1:ens3"]}
    - {endpoints: ["sw1:p3", "web1:ens3"]}
"""
RULES = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 192.0.2.10/32 -i ens3 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.0.10
-A POSTROUTING -o ens4 -p udp -m udp --dport 5001 -j SNAT --to-source 10.0.0.1
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
{more}-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT
-A FORWARD -p udp -m udp --dport 5001 -j ACCEPT
COMMIT
"""
RULES6 = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
{more}COMMIT
"""
R1 = """\
hostname r1
ip route 198.51.100.0/24 10.0.0.1
ip route 10.1.0.0/24 {via}
ipv6 route 2001:db8:1:a::/64 2001:db8:1:12::2
ipv6 route 2001:db8:100::/48 2001:db8:1:1::1
"""
R2 = "hostname r2\nip route 0.0.0.0/0 10.0.12.1\nipv6 route ::/0 2001:db8:1:12::1\n"
R3 = "hostname r3\nip route 10.1.0.11/32 Null0\nip route 10.1.0.0/24 10.0.23.2\nip route 0.0.0.0/0 10.0.13.1\n"
HAPROXY = """\
global
  log 127.0.0.1 local0
defaults
  mode http
  log global
  option httplog
  timeout connect 500ms
  timeout client 5s
  timeout server 5s
frontend web
  bind :80
  default_backend servers
backend servers
{servers}"""
SERVER = "  server web1 10.1.0.11:8080 check inter 200ms\n"
POLICY = """\
classes:
  - {name: web, match: {protocol: tcp, port: 80}}
  - {name: feed, match: {protocol: udp, port: 5001}}
  - {name: six, priority: critical, match: {protocol: udp, port: 5006}}
replay: {connect_timeout_s: 0.3, response_timeout_s: 0.5}
windows: {treatment: 3}
"""
REJECT = "-A FORWARD -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset"
DROP6 = "-A FORWARD -p udp -m udp --dport 5006 -j DROP"
CHANGES: Mapping[str, Mapping[str, str]] = {
    "moved": {"r1/frr.conf": R1.format(via="10.0.13.2")},
    "reject": {"fw1/iptables.rules": RULES.replace("{more}", REJECT + "\n")},
    "drop6": {"fw1/ip6tables.rules": RULES6.replace("{more}", DROP6 + "\n")},
    "no-server": {"lb1/haproxy.cfg": HAPROXY.replace("{servers}", SERVER.replace("8080 check", "8089 check"))},
    "remark": {"fw1/iptables.rules": "# a remark\n" + RULES.replace("{more}", "")},
}
REQUEST = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def forked_lab(folder: Path) -> Path:
    """The lab with a capture of one flow of each class, and changes to trace."""
    files = {
        "lab.yaml": LAB,
        "policy.yaml": POLICY,
        "configs/fw1/iptables.rules": RULES.replace("{more}", ""),
        "configs/fw1/ip6tables.rules": RULES6.replace("{more}", ""),
        "configs/r1/frr.conf": R1.format(via="10.0.12.2"),
        "configs/r2/frr.conf": R2,
        "configs/r3/frr.conf": R3,
        "configs/lb1/haproxy.cfg": HAPROXY.replace("{servers}", SERVER),
    }
    for change, edited in CHANGES.items():
        files |= {f"changes/{change}/configs/{name}": text for name, text in edited.items()}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "traffic").mkdir()
    capture(folder / "traffic" / "flows.pcap", list(_packets()))
    return folder


def _packets() -> list[tuple[int, bytes]]:
    web = _answered("198.51.100.7", "192.0.2.10", (40_000, 80))
    feed = [
        ip4("198.51.100.8", "10.1.0.11", UDP, udp((40_001, 5001), b"what now? " * 8)),
        ip4("10.1.0.11", "198.51.100.8", UDP, udp((5001, 40_001), b"nothing. " * 12)),
    ]
    ends = "2001:db8:100::9", "2001:db8:1:a::11"
    six = [
        ip6(*ends, UDP, udp((40_002, 5006), b"and you? " * 6)),
        ip6(*reversed(ends), UDP, udp((5006, 40_002), b"neither. " * 9)),
    ]
    return [(n * 1_000, packet) for n, packet in enumerate([*web, *feed, *six])]


def _answered(client: str, server: str, ports: tuple[int, int]) -> list[bytes]:
    """A conversation whose one message is answered before the close."""
    packets = conversation(client, server, ports, [REQUEST])
    told = ip4(server, client, TCP, tcp((ports[1], ports[0]), 9_001, 1_001 + len(REQUEST), 0x18, RESPONSE))
    head, tail = packets[:5], packets[5:]
    moved = [_later(packet, server, len(RESPONSE)) for packet in tail]
    return [*head, told, *moved]


def _later(packet: bytes, server: str, octets: int) -> bytes:
    """The packet as it is after the server has said so many octets more."""
    at = 24 if packet[12:16] == bytes(map(int, server.split("."))) else 28
    number = int.from_bytes(packet[at : at + 4], "big") + octets
    return packet[:at] + number.to_bytes(4, "big") + packet[at + 4 :]
