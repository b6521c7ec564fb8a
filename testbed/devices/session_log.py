"""HAProxy's log of sessions, received where production's syslog would be, and counted by server and termination code.

Knows the log's formats and where `log` lines send it, no statistics and no node.  It imports nothing of the house,
because it also runs as a small program of its own inside a node: HAProxy gives up a log line that nobody takes at once.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

STATE_DIRECTORY = "/var/lib/haproxy"
KEPT_LINES = 32
PAUSE_SECONDS = 0.02
"""Between two writings of the tally: a busy proxy says thousands of lines a second."""

_LOG_OCTETS = 65_536
_SYSLOG_PORT = 514
_CHROOT = re.compile(r"^\s*chroot\s+(\S+)", re.M)
_LOG = re.compile(r"^\s*log\s+(/\S+|\S+:\d+|[0-9.]+)\s", re.M)
_SESSION = re.compile(
    r"\s(?P<backend>[^\s/]+)/(?P<server>\S+)\s[-+\d]+(?:/[-+\d]+){2,4}\s.{1,200}?"
    r"\s(?P<code>[A-Za-z-]{2}[A-Za-z-]{0,2})\s\d+/\d+/\d+/\d+/\+?\d+\s\d+/\d+"
)
_WHO = {
    "C": "the client gave up",
    "S": "the server gave up or refused",
    "P": "the proxy ended it by a rule or a limit of its own",
    "L": "the proxy answered it itself",
    "R": "the proxy had no resource left",
    "I": "the proxy made an error",
    "D": "the server went down",
    "U": "a better server came up",
    "K": "somebody shut the session",
    "c": "the client's timeout",
    "s": "the server's timeout",
}
_WHEN = {
    "R": "before the request was complete",
    "Q": "in the queue for a server",
    "C": "while connecting to the server",
    "H": "before the server's whole answer head",
    "D": "while data flowed",
    "L": "while the last data went to the client",
    "T": "in the tarpit",
}


@dataclass(slots=True)
class Tally:
    """Sessions by `backend/server code`, how many lines there were, and the last of them."""

    sessions: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    last: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def hear(self, line: str) -> None:
        """Count one line; what is no session's only counts as a line."""
        self.lines += 1
        self.last.append(line)
        if found := _SESSION.search(line):
            self.sessions[f"{found['backend']}/{found['server']} {found['code'][:2]}"] += 1

    def text(self) -> str:
        """As the file that others read."""
        return json.dumps({"sessions": self.sessions, "lines": self.lines, "last": list(self.last)})


def read_tally(text: str) -> Tally:
    """A tally from the file; an empty one from anything else."""
    try:
        told = json.loads(text)
        sessions = Counter({str(name): int(count) for name, count in told["sessions"].items()})
        return Tally(sessions, int(told["lines"]), deque(map(str, told["last"]), KEPT_LINES))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return Tally()


def code_in_words(code: str) -> str:
    """`sH` as "the server's timeout, before the server's whole answer head"; `--` as an ordinary end."""
    who, when = _WHO.get(code[:1], ""), _WHEN.get(code[1:2], "")
    if code.startswith("--"):
        return "an ordinary end"
    return ", ".join(filter(None, (who, when))) or "a code that is not known here"


def log_places(text: str) -> list[str]:
    """Where inside the node a haproxy.cfg sends its log: `ADDRESS:PORT` of the loopback, or a socket's path.

    Only what nobody else can stand at: a path below the chroot that is the node's own, or the node's loopback.
    """
    root = _CHROOT.search(text)
    found = []
    for place in _LOG.findall(text):
        if place.startswith("/"):
            if root is not None and root[1] == STATE_DIRECTORY:
                found.append(f"{STATE_DIRECTORY}{place}")
            continue
        address, _, port = place.rpartition(":") if place.count(":") == 1 else (place, "", "")
        try:
            if ip_address(address).is_loopback:
                found.append(f"{address}:{port or _SYSLOG_PORT}")
        except ValueError:
            continue
    return list(dict.fromkeys(found))


def program(places: Sequence[str], output: str) -> list[str]:
    """The command that receives at these places and keeps its tally in a file, until it is ended."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), output, *places]


def _ear(place: str) -> socket.socket:
    if place.startswith("/"):
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.bind(place)
        path.chmod(0o666)
    else:
        address, _, port = place.rpartition(":")
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ear.bind((address, int(port)))
    ear.setblocking(False)
    return ear


def _heard(ears: Iterable[socket.socket], tally: Tally) -> None:
    for ear in ears:
        while True:
            try:
                said = ear.recv(_LOG_OCTETS)
            except BlockingIOError:
                break
            tally.hear(said.decode(errors="replace").strip())


def _ears(places: Iterable[str]) -> list[socket.socket]:
    """A socket at each place where nobody else stands yet."""
    ears = []
    for place in places:
        with suppress(OSError):
            ears.append(_ear(place))
    return ears


def _receive(output: str, places: Sequence[str]) -> None:
    ears = _ears(places)
    tally = Tally()
    fresh = Path(f"{output}.new")
    told, heard = -1, 0
    due = 0.0
    while True:
        now = time.monotonic()
        if told != heard and now >= due:
            fresh.write_text(tally.text(), encoding="utf-8")
            fresh.replace(output)
            told, due = heard, now + PAUSE_SECONDS
        ready, _, _ = select.select(ears, [], [], None if told == heard else max(due - now, 0.0))
        _heard(ready, tally)
        heard = tally.lines


if __name__ == "__main__":
    _receive(sys.argv[1], sys.argv[2:])
