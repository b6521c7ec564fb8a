"""A load balancer: HAProxy in master-worker mode on production's own haproxy.cfg, reloaded hitless.

It knows no other kind.  Statistics come over HAProxy's master socket, which needs no line in the
configuration.
"""

from __future__ import annotations

import csv
import io
import re
import signal
import socket
import time
from collections.abc import Mapping, Sequence

from testbed.devices.base import Box, Complaint, Configs, Readiness, Reading
from testbed.devices.linux import ALL_KINDS, LinuxNode
from testbed.errors import CommandFailed, NotReady

MASTER_SOCKET = "haproxy-master.sock"
RELOAD_SECONDS = 10.0
_AT_LINE = re.compile(r"\[[^\]]*?:(\d+)\]")
COUNTERS = ("stot", "ereq", "econ", "eresp", "wretr", "wredis", "hrsp_4xx", "hrsp_5xx", "cli_abrt", "srv_abrt", "dreq")
GAUGES = ("scur", "smax", "slim", "qcur", "qmax")


class LoadBalancer(LinuxNode):
    """HAProxy in a node of its own, whatever config `haproxy -c` takes."""

    reads = ALL_KINDS | {"haproxy.cfg"}
    directories: Mapping[str, str] = {"haproxy": "/etc/haproxy", "haproxy-state": "/var/lib/haproxy"}

    def check(self, box: Box, configs: Configs) -> Sequence[Complaint]:
        """`haproxy -c` on the file, beside the packet filter's check."""
        complaints = list(super().check(box, configs))
        if "haproxy.cfg" in configs:
            candidate = box.home / "haproxy" / "candidate.cfg"
            candidate.write_bytes(configs["haproxy.cfg"])
            try:
                box.run(["haproxy", "-c", "-f", "/etc/haproxy/candidate.cfg"])
            except CommandFailed as failure:
                alert = next((a for a in failure.stderr.splitlines() if "ALERT" in a), failure.stderr)
                place = _AT_LINE.search(alert)
                said = alert.rsplit("] : ", 1)[-1].strip()
                complaints.append(Complaint("haproxy.cfg", int(place[1]) if place else None, said))
            finally:
                candidate.unlink()
        return complaints

    def start(self, box: Box, configs: Configs) -> None:
        """Master and worker in the foreground."""
        super().start(box, configs)
        (box.home / "haproxy" / "haproxy.cfg").write_bytes(configs.get("haproxy.cfg", b""))
        (box.home / "run" / "haproxy").mkdir(exist_ok=True)
        argv = ["haproxy", "-W", "-db", "-S", f"/run/{MASTER_SOCKET}", "-f", "/etc/haproxy/haproxy.cfg"]
        box.spawn("haproxy", argv)

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """Worker answering and every health check done once and passed."""
        process = box.process("haproxy")
        if process is not None and process.poll() is not None:
            return Readiness(ready=False, waiting_for=f"{box.node.name}: haproxy ended by itself")
        try:
            rows = proxy_rows(box)
        except OSError:
            return Readiness(ready=False, waiting_for=f"{box.node.name}: haproxy to listen")
        for row in rows:
            if row["svname"] in ("FRONTEND", "BACKEND"):
                continue
            checked = row.get("check_status", "") not in ("", "INI")
            if row["status"].startswith("DOWN") or (not checked and row["status"].startswith("UP")):
                what = row.get("check_status") or "no check yet"
                return Readiness(
                    ready=False,
                    waiting_for=f"{box.node.name}: check of {row['pxname']}/{row['svname']} ({row['status']}, {what})",
                )
        return Readiness(ready=bool(rows), waiting_for=f"{box.node.name}: haproxy statistics")

    def reload(self, box: Box, before: Configs, after: Configs) -> None:
        """Hitless: the master hands its listening sockets to a new worker; read back that it did."""
        super().reload(box, before, after)
        if before.get("haproxy.cfg") == after.get("haproxy.cfg"):
            return
        process = box.process("haproxy")
        if process is None or process.poll() is not None:
            raise NotReady(f"{box.node.name}: haproxy to reload", "it is not running")
        try:
            old = _worker(box)
        except OSError as silence:
            raise NotReady(f"{box.node.name}: haproxy to reload", str(silence)) from None
        (box.home / "haproxy" / "haproxy.cfg").write_bytes(after.get("haproxy.cfg", b""))
        process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + RELOAD_SECONDS
        while True:
            try:
                new = _worker(box)
                if new not in ("", old):
                    return
            except OSError:
                new = ""
            if time.monotonic() > deadline:
                raise NotReady(f"{box.node.name}: a new haproxy worker after the reload", f"worker {new or old}")
            time.sleep(0.02)

    def readings(self, box: Box, configs: Configs) -> Sequence[Reading]:
        """Sessions, queues, errors and state of every frontend, backend and server."""
        readings = list(super().readings(box, configs))
        try:
            rows = proxy_rows(box)
        except OSError:
            # a change that ends HAProxy is judged by the flows; its silence is a reading of its own
            return [*readings, Reading("proxy", "haproxy", "status", 1.0, cumulative=False, state="SILENT")]
        for row in rows:
            name = f"{row['pxname']}/{row['svname']}"
            readings.append(Reading("proxy", name, "status", 1.0, cumulative=False, state=row["status"].split()[0]))
            told = [metric for metric in (*COUNTERS, *GAUGES) if row.get(metric, "").isdigit()]
            readings += [Reading("proxy", name, m, float(row[m]), cumulative=m in COUNTERS) for m in told]
        return readings


def proxy_rows(box: Box) -> list[dict[str, str]]:
    """`show stat` of the running worker, a mapping a row; raises OSError when nobody answers."""
    text = ask_master(box, "@1 show stat")
    lines = text.strip().splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith("# pxname")), None)
    if start is None:
        raise ConnectionError(f"no statistics: {text[:80]!r}")
    return list(csv.DictReader(io.StringIO("\n".join([lines[start][2:], *lines[start + 1 :]]))))


def _worker(box: Box) -> str:
    """The process id of the current worker, as the master tells it."""
    section = ""
    for line in ask_master(box, "show proc").splitlines():
        if line.startswith("#"):
            section = line
        elif "worker" in line.split()[1:2] and "old" not in section:
            return line.split()[0]
    return ""


def ask_master(box: Box, command: str) -> str:
    """One command over the master socket; raises OSError when nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(5)
        line.connect(str(box.home / "run" / MASTER_SOCKET))
        line.sendall(f"{command}\n".encode())
        line.shutdown(socket.SHUT_WR)
        parts = []
        while part := line.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


LOADBALANCER = LoadBalancer()
