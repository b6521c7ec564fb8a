"""Background load: iperf3 between two nodes of a shadow, first calibrated, then beside a window's flows.

It knows namespaces and a rate, no flow and no verdict.  What the load came to is told by both ends of iperf3 and by the
counters of the interfaces, and a load that was not reached is told as such: a window under half of the load that was
asked for is another experiment.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from testbed.errors import NotReady, Unsupported
from testbed.network.kernel_state import ports
from testbed.network.namespace import Namespace
from topologies.units import rate_bps

PORT = 5201
REACHED_RATIO = 0.95
"""What of the asked rate must arrive for the load to count as reached."""

CALIBRATION_SECONDS = 1.0
FORM = "SOURCE>TARGET:RATE or RATE, such as h1>web1:20M, h1>web1@8443:100Mbit/udp or h1>web1:1G/tcp/4"

_CONNECT_MILLISECONDS = 3_000
_BLOCK_OCTETS = 8_192
"""What TCP hands over at once: at 20 Mbit/s every 3 ms, where iperf3's own 128 KiB would come every 52 ms."""

_TALK_OCTETS = 6_000
"""More than what iperf3 says of itself before it begins to send."""

_LISTEN_SECONDS = 5.0
_END_SECONDS = 8.0
_MOST_STREAMS = 128
_LAST_PORT = 65_535
_SHORT_RATE = re.compile(r"(\d+(?:\.\d+)?)([KMGT])", re.IGNORECASE)
_WRITTEN = re.compile(
    r"(?:(?P<source>[^>@:/]+)>(?P<target>[^>@:/]+)(?:@(?P<port>\d{1,5}))?:)?"
    r"(?P<rate>[^/]+)(?:/(?P<protocol>tcp|udp))?(?:/(?P<parallel>\d{1,3}))?"
)
_LISTENING = "0A"
"""A state of a TCP socket in /proc/net/tcp."""

_TABLES = (Path("/proc/thread-self/net/tcp"), Path("/proc/thread-self/net/tcp6"))


class InvalidLoad(ValueError):
    """A load that cannot be: caught to end with exit code 2 and the form expected."""

    def __init__(self, written: str, expected: str = "") -> None:
        super().__init__(f"found {written!r}, expected {FORM}" + (f", {expected}" if expected else ""))


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for; source and target are empty where the testbed is to choose them.

    `speaks_as` and `speaks_to` are addresses of theirs, the kernel's choice where empty: an edge stands for many
    clients, and the way back may be known to theirs alone.
    """

    rate_bps: int
    source: str = ""
    target: str = ""
    protocol: str = "tcp"
    parallel: int = 1
    port: int = PORT
    speaks_as: str = ""
    speaks_to: str = ""

    def __str__(self) -> str:
        streams = f" in {self.parallel} streams" if self.parallel > 1 else ""
        return f"{self.rate_bps / 1e6:g} Mbit/s of {self.protocol} from {self.source} to {self.target}{streams}"


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a load: bit/s asked for, sent, arrived (payload), and seen at the target's interfaces (frames).

    `loss_ratio` is UDP's by iperf3, None for TCP, which has `retransmits`. `error` is what iperf3 or the network said.
    """

    asked_bps: int
    sent_bps: float
    arrived_bps: float
    interface_bps: float
    loss_ratio: float | None
    retransmits: int | None
    seconds: float
    error: str = ""

    @property
    def reached(self) -> bool:
        """Whether the load was what it should have been."""
        return not self.error and self.arrived_bps >= REACHED_RATIO * self.asked_bps

    def told(self) -> str:
        """For people."""
        asked, arrived = self.asked_bps / 1e6, self.arrived_bps / 1e6
        said = f"{arrived:.3g} of {asked:g} Mbit/s arrived"
        lost = f", {self.loss_ratio:.2%} lost" if self.loss_ratio else ""
        return f"{said}{lost}" + (f": {self.error}" if self.error else "")

    def record(self) -> dict[str, object]:
        """For run.json."""
        return {**asdict(self), "reached": self.reached}


def load_of(written: str) -> Load:
    """Read a load as it is written on a command line; raises InvalidLoad, which says the form expected."""
    match = _WRITTEN.fullmatch(written.strip())
    if match is None:
        raise InvalidLoad(written)
    port, parallel = int(match["port"] or PORT), int(match["parallel"] or 1)
    if not 0 < port <= _LAST_PORT:
        raise InvalidLoad(written, f"with a port from 1 to {_LAST_PORT}")
    if not 0 < parallel <= _MOST_STREAMS:
        raise InvalidLoad(written, f"with 1 to {_MOST_STREAMS} streams")
    short = _SHORT_RATE.fullmatch(match["rate"])
    try:
        rate = rate_bps(f"{short[1]}{short[2]}bit" if short else match["rate"])
    except ValueError as form:
        raise InvalidLoad(written, f"where RATE is a number and K, M, G or T, or {form}") from None
    source, target = (match["source"] or "").strip(), (match["target"] or "").strip()
    return Load(rate, source, target, match["protocol"] or "tcp", parallel, port)


class Background:
    """A load between two nodes; enter it to begin, leave it to end, then `carried` tells what it came to.

    Raises Unsupported without iperf3, NotReady when its server does not listen.
    """

    def __init__(self, load: Load, source: Namespace, target: Namespace, address: str) -> None:
        self.load = load
        self.carried: Carried | None = None
        self._source, self._target, self._address = source, target, address
        self._held = ExitStack()
        self._server: _Program | None = None
        self._client: _Program | None = None
        self._octets = 0
        self._began_s = 0.0

    def calibrate(self, seconds: float = CALIBRATION_SECONDS) -> Carried:
        """Run the load alone and tell what the path carries; raises Unsupported when that is nothing."""
        with self:
            time.sleep(seconds)
        carried = self.carried
        if carried is None or not carried.arrived_bps:
            why = carried.error if carried and carried.error else "nothing arrived"
            raise Unsupported(
                f"no background load of {self.load}: {why}",
                f"the network between must let TCP port {self.load.port} pass (and UDP for udp): choose another with "
                f"{self.load.source}>{self.load.target}@PORT:RATE",
            )
        return carried

    def start(self) -> None:
        """Begin; returns when the load flows, or when it is plain that it does not."""
        path = shutil.which("iperf3")
        if path is None:
            raise Unsupported("a background load needs iperf3, which is not installed", "install iperf3")
        load, port = self.load, ("--port", str(self.load.port))
        if _has(self._target, load.port, _LISTENING):
            raise NotReady(
                f"iperf3 on {self._target.name} to listen on port {load.port}", "somebody else listens there"
            )
        quiet = ("--json", "--interval", "0")
        self._server = _Program(self._target, [path, "--server", "--bind", self._address, *port, "--one-off", *quiet])
        self._held.callback(self._server.close)
        _wait_until_listening(self._server, self._target, load.port)
        kind = ("--udp",) if load.protocol == "udp" else ("--length", str(_BLOCK_OCTETS))
        bind = ("--bind", load.speaks_as) if load.speaks_as else ()
        each = max(1, load.rate_bps // load.parallel)
        self._client = _Program(
            self._source,
            [
                *(path, "--client", self._address, *port, *bind, *kind, *quiet, "--bitrate", str(each)),
                *("--parallel", str(load.parallel), "--time", "86400"),
                *("--connect-timeout", str(_CONNECT_MILLISECONDS)),
            ],
        )
        self._held.callback(self._client.close)
        self._wait_until_flowing(self._client)
        self._octets, self._began_s = _received_octets(self._target), time.monotonic()

    def _wait_until_flowing(self, client: _Program) -> None:
        """iperf3 first talks over a connection of its own; what is sent afterwards is more than that."""
        before = _received_octets(self._target)
        deadline = time.monotonic() + _CONNECT_MILLISECONDS / 1_000 + 1.0
        while client.running() and time.monotonic() < deadline:
            if _received_octets(self._target) - before > _TALK_OCTETS:
                return
            time.sleep(0.01)

    def stop(self) -> Carried:
        """End both programs by their ids and read what they counted."""
        if self._client is None or self._server is None:
            raise ValueError("not started")
        seconds = time.monotonic() - self._began_s
        octets = _received_octets(self._target) - self._octets
        try:
            client = self._client.ended(signal.SIGINT)
            # the server ends with its only client; where none came it must be told
            server = self._server.ended(None if client.get("start", {}).get("connected") else signal.SIGINT)
        finally:
            self._held.close()
        self._client = self._server = None
        self.carried = _carried(self.load, client, server, octets * 8 / seconds)
        return self.carried

    def abandon(self) -> None:
        """Let go of whatever still runs, without asking what it counted; harmless when nothing does."""
        self._held.close()
        self._client = self._server = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.abandon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Program:
    """One iperf3, known by its id, whose only output is its report."""

    def __init__(self, namespace: Namespace, command: Sequence[str]) -> None:
        self._report: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  lives until `close`
        self._process = subprocess.Popen(
            namespace.argv(command),
            stdin=subprocess.DEVNULL,
            stdout=self._report,
            stderr=subprocess.STDOUT,
            pass_fds=(namespace.net_fd, namespace.mount_fd),
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def ended(self, by: signal.Signals | None) -> dict[str, Any]:
        """Its report, after it has ended; asked to by a signal, or by force where that does not help."""
        if by is not None and self.running():
            self._process.send_signal(by)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._report.seek(0)
        return read_report(self._report.read())

    def close(self) -> None:
        """Make sure it is gone."""
        if self.running():
            self._process.kill()
            self._process.wait()
        self._report.close()


def read_report(octets: bytes) -> dict[str, Any]:
    """A report of iperf3; one that cannot be read is a report of that error."""
    try:
        report = json.loads(octets)
    except (ValueError, RecursionError):
        said = " ".join(octets.decode(errors="replace").split())[:200]
        return {"error": f"iperf3 gave no report: {said or 'nothing'}"}
    return report if isinstance(report, dict) else {"error": f"iperf3 gave no report: {str(report)[:200]}"}


def _carried(load: Load, client: Mapping[str, Any], server: Mapping[str, Any], interface_bps: float) -> Carried:
    """Both reports as one: sent by the client's word, arrived by the server's, over the client's time.

    A client that is ended by a signal says so as an error, and its server's times are none: neither is a failure.
    """
    sent, came = _part(client, "sum_sent"), _part(server, "sum_received")
    seconds = _number(sent, "seconds")
    packets, lost = _number(_part(server, "sum"), "packets"), _number(_part(server, "sum"), "lost_packets")
    error = str(client.get("error", ""))
    if "interrupt" in error:
        error = "" if seconds else f"no connection to TCP port {load.port} came about"
    is_udp = load.protocol == "udp"
    return Carried(
        asked_bps=load.rate_bps,
        sent_bps=_number(sent, "bytes") * 8 / seconds if seconds else 0.0,
        arrived_bps=_number(came, "bytes") * 8 / seconds if seconds else 0.0,
        interface_bps=interface_bps,
        loss_ratio=lost / packets if is_udp and packets else None,
        retransmits=None if is_udp else int(_number(sent, "retransmits")),
        seconds=seconds,
        error=error,
    )


def _part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    end = report.get("end")
    part = end.get(name) if isinstance(end, dict) else None
    return part if isinstance(part, dict) else {}


def _number(part: Mapping[str, Any], name: str) -> float:
    value = part.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value)


def _received_octets(namespace: Namespace) -> int:
    return sum(port.counters["rx_bytes"] for port in ports(namespace))


def _wait_until_listening(server: _Program, namespace: Namespace, port: int) -> None:
    """Look at the namespace's sockets, as a connection would use the server up; raises NotReady with what it said."""
    deadline = time.monotonic() + _LISTEN_SECONDS
    while server.running() and time.monotonic() < deadline:
        if _has(namespace, port, _LISTENING):
            return
        time.sleep(0.005)
    said = server.ended(signal.SIGINT).get("error", "it does not listen")
    raise NotReady(f"iperf3 on {namespace.name} to listen on port {port}", str(said))


def _has(namespace: Namespace, port: int, state: str) -> bool:
    """Whether a namespace has a TCP socket on that port in that state."""
    wanted = f"{port:04X}"
    tables = namespace.inside(lambda: [path.read_text(encoding="ascii") for path in _TABLES if path.exists()])
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    return any(line[3] == state and line[1].rpartition(":")[2] == wanted for line in lines)
