"""A lab with one of everything that leaves evidence, and changes tried on one shadow: counters for blame, no replay.

outside ── fw1 ── r1 ──BGP── r2 ── sw1 ─┬─ lb1   HAProxy
(edge)     NAT                          └─ web1
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pandas as pd

from testbed.change.apply import apply, revert
from testbed.change.model import Change
from testbed.change.sources import read_change
from testbed.counters import counter_rows
from testbed.devices.registry import known_devices
from testbed.errors import NotReady
from testbed.network.namespace import Namespace
from testbed.sandbox import Sandbox
from testbed.shadow import Shadow, built
from topologies.load import Lab, load_lab

CLIENT, OTHER_CLIENT, SERVER, PROXY, PUBLIC = "198.51.100.7", "198.51.100.8", "10.1.0.11", "10.1.0.10", "192.0.2.10"
TO_WEB = ("outside", "fw1", "r1", "r2", "sw1", "web1")
TO_PROXY = ("outside", "fw1", "r1", "r2", "sw1", "lb1", "sw1", "web1")
SLOW_SECONDS = 0.4

LAB = """\
name: evidence
topology:
  nodes:
    outside:
      kind: edge
      interfaces: {eth0: [192.0.2.1/24]}
      prefixes: [198.51.100.0/24]
      routes: [{to: 10.0.0.0/8, via: 192.0.2.2}]
    fw1:
      kind: firewall
      interfaces: {ens3: [192.0.2.2/24, 192.0.2.10/24], ens4: [10.0.0.1/30]}
      routes: [{to: 198.51.100.0/24, via: 192.0.2.1}, {to: 10.0.0.0/8, via: 10.0.0.2}]
    r1:
      kind: router
      interfaces: {ens3: [10.0.0.2/30], ens4: [10.0.12.1/30]}
    r2:
      kind: router
      interfaces: {ens3: [10.0.12.2/30], ens4: [10.1.0.1/24]}
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
    - {endpoints: ["outside:eth0", "fw1:ens3"]}
    - {endpoints: ["fw1:ens4", "r1:ens3"]}
    - {endpoints: ["r1:ens4", "r2:ens3"]}
    - {endpoints: ["r2:ens4", "sw1:p1"]}
    - {endpoints: ["sw1:p2", "lb1:ens3"]}
    - {endpoints: ["sw1:p3", "web1:ens3"]}
"""
RULES = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 192.0.2.10/32 -p tcp -m tcp --dport 8088 -j DNAT --to-destination 10.1.0.11:8080
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -j ACCEPT
COMMIT
"""
R1 = """\
hostname r1
ip route 198.51.100.0/24 10.0.0.1
router bgp 65001
 no bgp ebgp-requires-policy
 neighbor 10.0.12.2 remote-as 65002
 neighbor 10.0.12.2 timers 1 3
 neighbor 10.0.12.2 timers connect 1
 address-family ipv4 unicast
  redistribute static
  redistribute connected
 exit-address-family
"""
R2 = """\
hostname r2
router bgp 65002
 no bgp ebgp-requires-policy
 neighbor 10.0.12.1 remote-as 65001
 neighbor 10.0.12.1 timers 1 3
 neighbor 10.0.12.1 timers connect 1
 address-family ipv4 unicast
  redistribute connected
 exit-address-family
"""
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
  server web1 10.1.0.11:8080
"""


def evidence_lab(folder: Path) -> Lab:
    """The lab's folder, read."""
    for name, text in {
        "lab.yaml": LAB,
        "configs/fw1/iptables.rules": RULES,
        "configs/fw1/sysctl.conf": "net.ipv4.ip_forward = 1\n",
        "configs/r1/frr.conf": R1,
        "configs/r2/frr.conf": R2,
        "configs/lb1/haproxy.cfg": HAPROXY,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return load_lab(folder)


def change_of(lab: Lab, name: str, files: Mapping[str, str], links: str = "") -> Change:
    """A change of some files, by `node/file`, and of links."""
    folder = lab.folder / "changes" / name
    for file, text in files.items():
        path = folder / "configs" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if links:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "change.yaml").write_text(links)
    return read_change(lab, folder)


T = TypeVar("T")
Traffic = Callable[[Shadow], None]


def tried(
    lab: Lab, cases: Mapping[str, tuple[Change, Traffic]], finish: Callable[[Shadow], None]
) -> dict[str, pd.DataFrame]:
    """The counters of a window before each change and of one with it, all on one shadow."""

    def job() -> dict[str, pd.DataFrame]:
        with built(lab.topology, known_devices(), logs) as shadow:
            shadow.wait_ready(60, print)
            with answering(shadow):
                told = {name: _one(shadow, change, traffic) for name, (change, traffic) in cases.items()}
                finish(shadow)
            return told

    with TemporaryDirectory(prefix="evidence-") as folder:
        logs = Path(folder)
        found: dict[str, pd.DataFrame] = Sandbox("evidence", (logs, lab.folder)).call(job)
    return found


def _one(shadow: Shadow, change: Change, traffic: Traffic) -> pd.DataFrame:
    routes = any(file == "frr.conf" for _node, file in change.after)
    parts = [_window(shadow, 1, "baseline", traffic)]
    apply(shadow, change)
    if routes:
        with suppress(NotReady):
            shadow.wait_ready(1.5, print)
    parts.append(_window(shadow, 2, "treatment", traffic))
    revert(shadow, change)
    if routes:
        shadow.wait_ready(60, print)
    return pd.concat(parts, ignore_index=True)


def _window(shadow: Shadow, number: int, role: str, traffic: Traffic) -> pd.DataFrame:
    shadow.forget()
    before = shadow.readings()
    traffic(shadow)
    return counter_rows(number, role, before, shadow.readings())


@contextmanager
def answering(shadow: Shadow) -> Iterator[None]:
    """A web server on web1 that answers `/slow` late, until the block ends."""
    ear = inside(shadow, "web1", lambda: _listening("", 8080))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                line, _ = ear.accept()
            except OSError:
                return
            threading.Thread(target=_answer, args=(line,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        ear.shutdown(socket.SHUT_RDWR)
        ear.close()


def _answer(line: socket.socket) -> None:
    with line, suppress(OSError):
        line.settimeout(2)
        if b"/slow" in line.recv(4096):
            time.sleep(SLOW_SECONDS)
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def _listening(address: str, port: int) -> socket.socket:
    ear = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ear.bind((address, port))
    ear.listen(64)
    return ear


def inside(shadow: Shadow, node: str, make: Callable[[], T]) -> T:
    """What `make` gives in a node's network."""
    space: Namespace = shadow.boxes[node].namespace
    return space.inside(make)


def asks(target: str, port: int, path: str = "/", times: int = 3) -> Traffic:
    """Requests over TCP from the client, one after the other; failures are what is looked for."""

    def traffic(shadow: Shadow) -> None:
        for line in _lines(shadow, times):
            with line, suppress(OSError):
                line.settimeout(0.5)
                line.connect((target, port))
                line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                while line.recv(4096):
                    pass

    return traffic


def came_through(shadow: Shadow, target: str, port: int) -> bool:
    """Whether one request is answered with what the web server says."""
    (line,) = _lines(shadow, 1)
    said = b""
    with line, suppress(OSError):
        line.settimeout(1)
        line.connect((target, port))
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while more := line.recv(4096):
            said += more
    return said.endswith(b"ok")


def _lines(shadow: Shadow, times: int) -> Iterable[socket.socket]:
    return inside(shadow, "outside", lambda: [_from(CLIENT, socket.SOCK_STREAM) for _ in range(times)])


def _from(address: str, kind: int, port: int = 0) -> socket.socket:
    line = socket.socket(socket.AF_INET, kind)
    line.bind((address, port))
    return line


def datagrams(octets: int, times: int, clients: tuple[str, ...] = (CLIENT,), port: int = 5001) -> Traffic:
    """Datagrams to web1 that must not be cut, from one port of every client."""

    def traffic(shadow: Shadow) -> None:
        lines = inside(shadow, "outside", lambda: [_from(client, socket.SOCK_DGRAM, 40_000) for client in clients])
        for line in lines:
            # IP_MTU_DISCOVER, IP_PMTUDISC_DO: never in fragments
            line.setsockopt(socket.IPPROTO_IP, 10, 2)
            for _ in range(times):
                with suppress(OSError):
                    line.sendto(b"x" * octets, (SERVER, port))
                time.sleep(0.002)
        time.sleep(0.1)
        for line in lines:
            line.close()

    return traffic
