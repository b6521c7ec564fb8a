"""Real programs on a host, each by its argv, and an edge that speaks BGP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.devices.host import bound_ports
from testbed.devices.registry import known_devices
from testbed.errors import NotReady
from testbed.sandbox import Sandbox
from testbed.shadow import built
from tests.testbed.labs import as_nobody, files, link, node, on_shadow, soon, topology
from topologies.model import Service

NGINX = """daemon off;
master_process off;
pid /run/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    server {
        listen 80;
        location / { return 200 "nginx"; }
    }
}
"""
PROGRAMS = (
    ("nginx", "-c", "/etc/nginx/shop.conf"),
    ("dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--address=/shop.test/192.0.2.7", "--pid-file="),
    ("redis-server", "--port", "6379", "--bind", "10.0.0.2", "--dir", "/var/lib/redis", "--protected-mode", "no"),
    ("iperf3", "--server", "--bind", "10.0.0.2"),
)
LISTEN = (Service("tcp", 80), Service("udp", 53), Service("tcp", 6379), Service("tcp", 5201))


def served(folder: Path):
    server = node("h2", {"eth0": ["10.0.0.2/24"]}, configs=files(folder, "h2", {"files/etc/nginx/shop.conf": NGINX}))
    server = replace(server, programs=PROGRAMS, listen=LISTEN)
    return topology([node("h1", {"eth0": ["10.0.0.1/24"]}), server], [link("h1:eth0", "h2:eth0")])


def asked(shadow):
    h1 = shadow.boxes["h1"]
    web = h1.run(["curl", "--silent", "http://10.0.0.2/"])
    name = h1.run(["python3", "-c", ASK_DNS])
    redis = h1.run(["redis-cli", "-h", "10.0.0.2", "ping"])
    speed = h1.run(["iperf3", "--client", "10.0.0.2", "--time", "1", "--json"])
    return web, name.strip(), redis.strip(), '"end"' in speed


ASK_DNS = r"""
import socket
query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04shop\x04test\x00\x00\x01\x00\x01"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
    line.settimeout(2)
    line.sendto(query, ("10.0.0.2", 53))
    print(".".join(str(octet) for octet in line.recv(512)[-4:]))
"""


def test_nginx_dnsmasq_redis_and_iperf3_answer(tmp_path):
    assert on_shadow(served(tmp_path), tmp_path, asked) == ("nginx", "192.0.2.7", "PONG", True)


def test_they_answer_for_an_ordinary_user_too():
    def job(folder: Path):
        def inside():
            with built(served(folder), known_devices(), folder / "logs") as shadow:
                shadow.wait_ready(30, lambda reason: None)
                return asked(shadow)

        return Sandbox("served", (folder,)).call(inside)

    assert as_nobody(job) == ("nginx", "192.0.2.7", "PONG", True)


def test_a_program_that_ends_is_told_by_name(tmp_path):
    lab = topology([replace(node("h1", {}), programs=(("sleep", "0"),))], [])
    with pytest.raises(NotReady, match="h1: the program sleep ended by itself"):
        on_shadow(
            lab,
            tmp_path,
            lambda shadow: soon(lambda: False, 0.3) or shadow.wait_ready(1, lambda reason: None),
            ready=False,
        )


POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
NOT_ROOT = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
DATA = "/var/lib/postgresql/data"


@pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL is not installed")
def test_postgresql_runs_though_it_refuses_to_be_root():
    def job(folder: Path):
        server = replace(
            node("h2", {"eth0": ["10.0.0.2/24"]}),
            commands=((*NOT_ROOT, f"{POSTGRES}/initdb", "--no-sync", "--auth=trust", "-D", DATA),),
            programs=((*NOT_ROOT, f"{POSTGRES}/postgres", "-D", DATA, "-k", "/run", "-h", "10.0.0.2"),),
            listen=(Service("tcp", 5432),),
        )
        lab = topology([node("h1", {"eth0": ["10.0.0.1/24"]}), server], [link("h1:eth0", "h2:eth0")])

        def ask(shadow):
            return shadow.boxes["h1"].run([f"{POSTGRES}/pg_isready", "-h", "10.0.0.2", "-t", "3"])

        return on_shadow(lab, folder, ask)

    assert "accepting connections" in as_nobody(job)


@given(st.text(max_size=60) | st.just("tcp LISTEN 0 5 [::]:80 [::]:* x"))
def test_any_listing_of_ports_is_read(text):
    assert all(0 <= service.port < 100_000 for service in bound_ports(text))


EDGE = """router bgp 65001
 bgp router-id 10.255.0.1
 no bgp ebgp-requires-policy
 neighbor 10.0.0.2 remote-as 65002
 neighbor 10.0.0.2 timers connect 1
 address-family ipv4 unicast
  network 198.51.100.0/24
 exit-address-family
exit
ip route 198.51.100.0/24 blackhole
"""
INSIDE = """router bgp 65002
 bgp router-id 10.255.0.2
 no bgp ebgp-requires-policy
 neighbor 10.0.0.1 remote-as 65001
 neighbor 10.0.0.1 timers connect 1
exit
"""


def test_an_edge_tells_its_prefixes_by_bgp_and_answers_for_them(tmp_path):
    lab = topology(
        [
            node(
                "net",
                {"up": ["10.0.0.1/24"]},
                "edge",
                prefixes=["198.51.100.0/24"],
                configs=files(tmp_path, "net", {"frr.conf": EDGE}),
            ),
            node("r", {"up": ["10.0.0.2/24"]}, "router", configs=files(tmp_path, "r", {"frr.conf": INSIDE})),
        ],
        [link("net:up", "r:up")],
    )

    def job(shadow):
        soon(lambda: "198.51.100.0/24" in shadow.boxes["r"].kernel.routes(), 10)
        return shadow.boxes["r"].kernel.routes(), shadow.boxes["r"].run(["ping", "-c", "1", "198.51.100.77"])

    routes, ping = on_shadow(lab, tmp_path, job)
    assert routes["198.51.100.0/24"] == "10.0.0.1@up"
    assert "1 received" in ping
