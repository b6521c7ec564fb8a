"""A load balancer on production's own files: Debian's defaults, absent certificates, reloads that refuse nobody."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from testbed.devices.loadbalancer import ask_master, proxy_rows
from testbed.devices.stand_ins import wanted_certificates
from tests.testbed.labs import connected, files, on_shadow, soon, with_file
from tests.testbed.test_devices import routed

DEBIAN = Path("/etc/haproxy/haproxy.cfg")
TLS = """global
    log /dev/log local0
    chroot /var/lib/haproxy
    stats socket /run/haproxy/admin.sock mode 660 level admin
    user haproxy
    group haproxy
    daemon
    crt-base /etc/ssl/private
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    errorfile 503 /etc/haproxy/errors/503.http
frontend shop
    bind :443 ssl crt shop.example.com.pem crt /etc/haproxy/certs/ alpn h2,http/1.1
    bind :444 ssl crt-list /etc/haproxy/list.txt ca-file /etc/haproxy/clients.pem verify optional
    acl static hdr(host) -i static.example.com
    use_backend web if static
    default_backend web
backend web
    option httpchk GET /
    server w1 10.0.2.2:8080 check inter 200ms agent-check agent-port 8081 agent-inter 200ms weight 100
    server w2 10.0.2.2:8443 ssl verify required ca-file /etc/haproxy/backend-ca.pem disabled
"""
RESPONDER = """import socket, sys
line = socket.create_server(("10.0.2.2", int(sys.argv[1])))
while True:
    asked, _ = line.accept()
    if sys.argv[1] == "8080":
        asked.recv(4096)
    asked.sendall(sys.argv[2].encode())
    asked.close()
"""


def test_absent_certificates_are_stood_in_for_and_real_checks_are_answered(tmp_path):
    lab = routed(tmp_path, "loadbalancer", {"haproxy.cfg": TLS})
    programs = (
        (sys.executable, "-c", RESPONDER, "8080", "HTTP/1.0 200 OK\r\n\r\n"),
        (sys.executable, "-c", RESPONDER, "8081", "50%\n"),
    )
    lab = replace(lab, nodes=tuple(replace(n, programs=programs) if n.name == "h2" else n for n in lab.nodes))

    def job(shadow):
        m, h1 = shadow.boxes["m"], shadow.boxes["h1"].namespace
        soon(lambda: next(row for row in proxy_rows(m) if row["svname"] == "w1")["weight"] == "50")
        readings = [(r.kind, r.object, r.metric, r.state) for r in shadow.readings()["m"]]
        authority = (m.home.parents[1] / "lab-authority" / "ca.pem").read_text()
        context = ssl.create_default_context(cadata=authority)
        answers = []
        for port, name in ((443, "static.example.com"), (444, "shop.example.com"), (443, "10.0.1.1")):
            with context.wrap_socket(connected(h1, "10.0.1.1", port), server_hostname=name) as line:
                line.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answers.append(line.recv(12))
        missing = TLS.replace("errors/503.http", "errors/none.http")
        wrong = shadow.check("m", with_file(shadow, "m", "haproxy.cfg", missing))
        placed = shadow.check(
            "m",
            {
                **with_file(shadow, "m", "haproxy.cfg", missing),
                "files/etc/haproxy/errors/none.http": b"HTTP/1.0 503 x\r\n\r\n",
            },
        )
        ask_master(m, "@1 set server web/w1 state maint")
        states = {r.object: r.state for r in shadow.readings()["m"] if r.metric == "server_state"}
        return readings, answers, list(wrong), list(placed), states

    lab = replace(
        lab,
        nodes=tuple(
            replace(
                n,
                configs={
                    **n.configs,
                    **files(
                        tmp_path,
                        "m",
                        {"files/etc/haproxy/list.txt": "/etc/haproxy/listed.pem [alpn h2] shop.example.com\n"},
                    ),
                },
            )
            if n.name == "m"
            else n
            for n in lab.nodes
        ),
    )
    readings, answers, wrong, placed, states = on_shadow(lab, tmp_path, job)
    assert answers == [b"HTTP/1.0 200"] * 3
    made = {name for kind, name, _, _ in readings if kind == "stand_in"}
    assert made == {
        "/etc/ssl/private/shop.example.com.pem",
        "/etc/haproxy/certs/stand-in.pem",
        "/etc/haproxy/listed.pem",
        "/etc/haproxy/clients.pem",
        "/etc/haproxy/backend-ca.pem",
    }
    assert ("proxy", "web/w1", "status", "UP") in readings
    assert [(c.file, c.line) for c in wrong] == [("haproxy.cfg", 14)]
    assert placed == []
    assert "administrative=1" in states["web/w1"]
    assert not Path("/etc/haproxy/certs").exists()


def test_debian_s_own_configuration_runs_unchanged(tmp_path):
    text = DEBIAN.read_text()

    def job(shadow):
        m = shadow.boxes["m"]
        return m.process("haproxy").poll(), (m.home / "run" / "haproxy" / "admin.sock").exists()

    lab = routed(tmp_path, "loadbalancer", {"haproxy.cfg": text + "frontend any\n    bind :80\n"})
    assert on_shadow(lab, tmp_path, job) == (None, True)


PLAIN = """defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend shop
    bind :80
    http-request return status 200 content-type text/plain lf-file /etc/haproxy/answer.txt
"""


def test_a_reload_refuses_no_new_flow_and_ends_no_old_one(tmp_path):
    lab = routed(tmp_path, "loadbalancer", {"haproxy.cfg": PLAIN, "files/etc/haproxy/answer.txt": "one"})

    def job(shadow):
        h1, ended, outcomes = shadow.boxes["h1"].namespace, threading.Event(), []

        def ask() -> None:
            with connected(h1, "10.0.1.1", 80) as line:
                line.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                text = b""
                while part := line.recv(4096):
                    text += part
                outcomes.append(text.rpartition(b"\r\n")[2])

        def keep_asking() -> None:
            while not ended.is_set():
                try:
                    ask()
                except OSError as error:
                    outcomes.append(error)

        with connected(h1, "10.0.1.1", 80) as held:
            held.sendall(b"GET / HTTP/1.1\r\n")
            askers = [threading.Thread(target=keep_asking) for _ in range(3)]
            for asker in askers:
                asker.start()
            for number in range(4):
                shadow.reconfigure("m", with_file(shadow, "m", "files/etc/haproxy/answer.txt", f"reload {number}"))
            ended.set()
            for asker in askers:
                asker.join()
            held.sendall(b"host: x\r\n\r\n")
            still = held.recv(12)
        return still, [str(o) for o in outcomes if not isinstance(o, bytes) or not o], len(outcomes), set(outcomes)

    still, failures, asked, texts = on_shadow(lab, tmp_path, job)
    assert still == b"HTTP/1.1 200"
    assert failures == []
    assert asked > 20
    assert {b"one", b"reload 3"} <= texts | {b"reload 3"}
    assert b"reload 2" in texts


PIECES = st.sampled_from(
    ["bind :1 ssl ", "crt ", "crt-list ", "/a/b ", "ca-file ", "server x ", "crt-base ", "\n", '"', "#", "\\"]
)


@given(st.lists(PIECES | st.text(max_size=4)).map("".join))
def test_any_text_names_only_absolute_paths(text):
    assert all(want.path.startswith("/") for want in wanted_certificates(text, {"/a/b": text.encode()}))


def test_openssl_is_there():
    assert subprocess.run(["openssl", "version"], capture_output=True, check=True).stdout.startswith(b"OpenSSL")
