"""A load balancer: HAProxy in master-worker mode on production's own haproxy.cfg, reloaded hitless.

It knows no other kind.  Statistics come over HAProxy's master socket, which needs no line in the
configuration; certificates that only production has are stood in for at their own paths.
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
from testbed.devices.linux import ALL_KINDS, LinuxNode, changed_files, placed
from testbed.devices.session_log import Tally, log_places, program, read_tally
from testbed.devices.stand_ins import stand_ins, wanted_certificates
from testbed.errors import CommandFailed, NotReady

FILE = "haproxy.cfg"
PLACE = "/etc/haproxy/haproxy.cfg"
MASTER_SOCKET = "haproxy-master.sock"
EARS = "haproxy-log"
TALLY = "haproxy-sessions.json"
RELOAD_SECONDS = 10.0
_AT_LINE = re.compile(r"\[[^\]]*?:(\d+)\]")
COUNTERS = ("stot", "ereq", "econ", "eresp", "wretr", "wredis", "hrsp_4xx", "hrsp_5xx", "cli_abrt", "srv_abrt", "dreq")
GAUGES = ("scur", "smax", "slim", "qcur", "qmax")


class LoadBalancer(LinuxNode):
    """HAProxy in a node of its own, whatever config `haproxy -c` takes."""

    reads = ALL_KINDS | {FILE}
    directories: Mapping[str, str] = {"haproxy-state": "/var/lib/haproxy"}

    def check(self, box: Box, configs: Configs) -> Sequence[Complaint]:
        """`haproxy -c` on the file, beside the packet filter's check."""
        complaints = list(super().check(box, configs))
        if FILE not in configs or complaints:
            return complaints
        files = {**placed(configs), **absent_certificates(box, configs), PLACE: configs[FILE]}
        try:
            box.run(["haproxy", "-c", "-f", PLACE], files=files)
        except CommandFailed as failure:
            alert = next((a for a in failure.stderr.splitlines() if "ALERT" in a), failure.stderr)
            place = _AT_LINE.search(alert)
            said = alert.rsplit("] : ", 1)[-1].strip()
            complaints.append(Complaint(FILE, int(place[1]) if place else None, said))
        return complaints

    def start(self, box: Box, configs: Configs) -> None:
        """Master and worker in the foreground."""
        super().start(box, configs)
        box.put_files({**absent_certificates(box, configs), PLACE: configs.get(FILE, b"")})
        (box.home / "run" / "haproxy").mkdir(exist_ok=True)
        hear_sessions(box, b"", configs.get(FILE, b""))
        box.spawn("haproxy", ["haproxy", "-W", "-db", "-S", f"/run/{MASTER_SOCKET}", "-f", PLACE])

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
        if before.get(FILE) == after.get(FILE) and not changed_files(before, after):
            return
        process = box.process("haproxy")
        if process is None or process.poll() is not None:
            raise NotReady(f"{box.node.name}: haproxy to reload", "it is not running")
        try:
            old = _worker(box)
        except OSError as silence:
            raise NotReady(f"{box.node.name}: haproxy to reload", str(silence)) from None
        box.put_files({**absent_certificates(box, after), PLACE: after.get(FILE, b"")})
        hear_sessions(box, before.get(FILE, b""), after.get(FILE, b""))
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
            rows, states = proxy_rows(box), server_states(box)
        except OSError:
            # a change that ends HAProxy is judged by the flows; its silence is a reading of its own
            return [*readings, Reading("proxy", "haproxy", "status", 1.0, cumulative=False, state="SILENT")]
        for row in rows:
            name = f"{row['pxname']}/{row['svname']}"
            readings.append(Reading("proxy", name, "status", 1.0, cumulative=False, state=row["status"].split()[0]))
            told = [metric for metric in (*COUNTERS, *GAUGES) if row.get(metric, "").isdigit()]
            readings += [Reading("proxy", name, m, float(row[m]), cumulative=m in COUNTERS) for m in told]
        for name, state in states.items():
            readings.append(Reading("proxy", name, "server_state", 1.0, cumulative=False, state=state))
        for name, count in session_tally(box).sessions.items():
            readings.append(Reading("proxy_log", name, "sessions", float(count)))
        for path in absent_certificates(box, configs):
            readings.append(Reading("stand_in", path, "certificate", 1.0, cumulative=False, state="made by the lab"))
        return readings


def hear_sessions(box: Box, before: bytes, after: bytes) -> None:
    """Receive HAProxy's log where its file sends it, if that is inside a node without programs of its own."""
    if box.node.programs:
        return
    old, new = (log_places(text.decode(errors="replace")) for text in (before, after))
    if old == new:
        return
    box.discard(EARS)
    (box.home / "run" / TALLY).unlink(missing_ok=True)
    if new:
        box.spawn(EARS, program(new, f"/run/{TALLY}"))


def session_tally(box: Box) -> Tally:
    """Sessions by server and termination code since the log is heard; empty where it is not."""
    try:
        return read_tally((box.home / "run" / TALLY).read_text(errors="replace"))
    except OSError:
        return Tally()


def absent_certificates(box: Box, configs: Configs) -> dict[str, bytes]:
    """What stands in for certificates that neither the lab nor the machine has, by path; the same at every call."""
    files = placed(configs)
    kept = box.home / "absent-certificates"
    wanted = wanted_certificates(configs.get(FILE, b"").decode(errors="replace"), files)
    if not wanted:
        return {}
    # once put there they exist: what was absent at first is remembered
    known = set(kept.read_text().splitlines()) if kept.exists() else set()
    made = stand_ins(box, wanted, files.keys(), known)
    kept.write_text("\n".join(sorted(known | made.keys())))
    return made


def server_states(box: Box) -> dict[str, str]:
    """Every server's operational and administrative state and weight, as HAProxy numbers them."""
    lines = ask_master(box, "@1 show servers state").strip().splitlines()
    head = next((line[2:].split() for line in lines if line.startswith("# be_id")), [])
    rows = (dict(zip(head, line.split(), strict=False)) for line in lines if line[:1].isdigit())
    return {
        f"{row['be_name']}/{row['srv_name']}": " ".join(
            f"{word}={row.get(f'srv_{key}', '?')}"
            for word, key in (("operational", "op_state"), ("administrative", "admin_state"), ("weight", "uweight"))
        )
        for row in rows
        if {"be_name", "srv_name"} <= row.keys()
    }


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
