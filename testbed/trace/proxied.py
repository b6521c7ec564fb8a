"""What a load balancer did with one flow: frontend, backend and server by its counters, and its log if it has one.

It knows HAProxy's statistics and log lines, no journey.  The counters of a flow that is alone on the shadow are its
own; health checks do not count as sessions.  Log lines are those that the load balancer's node received.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from testbed.devices.base import Box
from testbed.devices.loadbalancer import EARS, FILE, proxy_rows, session_tally
from testbed.devices.session_log import code_in_words
from testbed.shadow import Shadow
from testbed.trace.journey import Decision

SESSIONS = ("lbtot", "stot", "conn_tot", "intercepted")
TROUBLE = {
    "econ": "connects failed",
    "eresp": "bad answers",
    "ereq": "bad requests",
    "dreq": "requests denied",
    "wretr": "retries",
    "wredis": "moved to another server",
    "cli_abrt": "client gave up",
    "srv_abrt": "server gave up",
    "hrsp_5xx": "answers 5xx",
}
_CODE = re.compile(r"\s([A-Za-z-]{2}[A-Za-z-]{0,2})\s\d+/\d+/\d+/\d+/\+?\d+\s\d+/\d+")
QUIET_SECONDS = 0.3
POLL_SECONDS = 0.01
_SECTION = re.compile(r"^(frontend|backend|listen)\s+(\S+)")

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the proxy chose and said."""

    frontend: str
    backend: str
    server: str
    trouble: tuple[str, ...]
    codes: tuple[str, ...]
    log: tuple[str, ...]
    down: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In one sentence."""
        way = " → ".join(f"{kind} {name}" for kind, name in self._parts if name)
        told = [way or "no session", *self.trouble]
        told += [f"log termination code {code} ({code_in_words(code)})" for code in self.codes]
        if not self.server and self.down:
            told.append(f"down: {', '.join(self.down)}")
        return "; ".join(told)

    @property
    def _parts(self) -> tuple[tuple[str, str], ...]:
        return ("frontend", self.frontend), ("backend", self.backend), ("server", self.server)


def proxies(shadow: Shadow) -> list[str]:
    """The nodes on which HAProxy runs."""
    return [name for name, box in shadow.boxes.items() if FILE in shadow.configs[name] and box.process("haproxy")]


def statistics(box: Box) -> Rows:
    """HAProxy's counters now; none when it does not answer."""
    try:
        return proxy_rows(box)
    except OSError:
        return []


def chosen(before: Rows, after: Rows, log: Sequence[str]) -> Chosen:
    """What grew between two readings, by the longest way that a session took."""
    old = {(row["pxname"], row["svname"]): row for row in before}
    grown: dict[tuple[str, str], dict[str, int]] = {}
    for row in after:
        key = row["pxname"], row["svname"]
        was = old.get(key, {})
        grown[key] = {name: _number(row, name) - _number(was, name) for name in (*SESSIONS, *TROUBLE)}
    used = [key for key, more in grown.items() if any(more[name] > 0 for name in SESSIONS)]
    frontend = next((px for px, sv in used if sv == "FRONTEND"), "")
    backend = next((px for px, sv in used if sv == "BACKEND"), "")
    server = next((sv for px, sv in used if sv not in ("FRONTEND", "BACKEND") and px == backend), "")
    trouble = dict.fromkeys(
        f"{said} at {px}/{sv}"
        for (px, sv), more in grown.items()
        for name, said in TROUBLE.items()
        if more[name] > 0 and (px, sv) in used
    )
    codes = dict.fromkeys(match[1] for line in log if (match := _CODE.search(line)))
    down = [f"{r['pxname']}/{r['svname']}" for r in after if r["pxname"] == backend and r["status"].startswith("DOWN")]
    return Chosen(frontend, backend, server, tuple(trouble), tuple(codes), tuple(log), tuple(down))


def decision(node: str, found: Chosen, text: str) -> Decision:
    """The proxy's choice with the line of haproxy.cfg that names the server, or else the backend."""
    line, written = written_at(text, found.backend, found.server)
    name = "/".join(filter(None, (found.frontend, found.backend, found.server)))
    return Decision("proxy", node, name or "haproxy", found.text, written, FILE if line else "", line)


def written_at(text: str, backend: str, server: str) -> tuple[int | None, str]:
    """(line, text) of a server in its backend, or of the backend where the server is not known."""
    section = ""
    fallback: tuple[int | None, str] = (None, "")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if head := _SECTION.match(line):
            section = head[2]
            if section == backend and fallback[0] is None:
                fallback = number, line.strip()
        elif section == backend and server and words[:2] == ["server", server]:
            return number, line.strip()
    return fallback


@contextmanager
def logs_heard(shadow: Shadow, nodes: Sequence[str]) -> Iterator[Mapping[str, list[str]]]:
    """Log lines of these nodes' proxies, complete when the block has ended."""
    heard: dict[str, list[str]] = {node: [] for node in nodes}
    before = {node: session_tally(shadow.boxes[node]).lines for node in nodes}
    yield heard
    for node in nodes:
        heard[node] += _since(shadow.boxes[node], before[node])


def _since(box: Box, lines: int) -> list[str]:
    """What was said since so many lines; HAProxy may tell of a session a moment after its end."""
    deadline = time.monotonic() + QUIET_SECONDS
    known = session_tally(box)
    while known.lines == lines and box.process(EARS) is not None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        known = session_tally(box)
    fresh = known.lines - lines
    return list(known.last)[-fresh:] if fresh > 0 else []


def _number(row: Mapping[str, str], name: str) -> int:
    value = row.get(name, "")
    return int(value) if value.isdigit() else 0


def server_addresses(text: str) -> dict[tuple[str, str], tuple[str, int]]:
    """(backend, server) to the address and port of every `server` line that has both as numbers."""
    found: dict[tuple[str, str], tuple[str, int]] = {}
    section = ""
    for line in text.splitlines():
        words = line.split()
        if head := _SECTION.match(line):
            section = head[2]
        elif section and words[:1] == ["server"] and len(words) > 2:
            address, _, port = words[2].rpartition(":")
            try:
                found[section, words[1]] = str(ip_address(address.strip("[]"))), int(port)
            except ValueError:
                continue
    return found
