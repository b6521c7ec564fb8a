"""How far an engine is from what it is asked, measured on a link of its own: what a run record publishes as its error.

Datagrams are stamped by the kernel at both ends, so a machine that wakes us late does not count as delay.
It knows no topology; the two nodes it makes are gone when it returns.
"""

from __future__ import annotations

import math
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from testbed.network.addressing import set_addresses
from testbed.network.delay_line.line import LineReport
from testbed.network.impairment import Engine, Impairer
from testbed.network.link import Port, Veth
from testbed.network.mininet_api import ShadowNet
from testbed.network.probe import Probe, probe
from topologies.model import Impairment, Interface, IpInterface

PORT = 9_200
WHOLE_FRAME, ITS_PAYLOAD = 1514, 1448
"""Octets of a full TCP segment on the wire, and what of it is the flow's."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Measured:
    """A value set and the same measured; the field that holds it names the unit."""

    wanted: float
    found: float

    @property
    def error_percent(self) -> float:
        """How far off, in percent of what was wanted."""
        return 100 * (self.found - self.wanted) / self.wanted


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One engine on this machine, now: median and 99th percentile of its excess over a delay, and its errors."""

    engine: str
    excess_p50_ns: int
    excess_p99_ns: int
    rate_bps: Measured
    loss_ratio: Measured
    report: LineReport | None


class Wire:
    """Two nodes and the wire between them, and who impairs what the first sends."""

    def __init__(self, net: ShadowNet, addresses: tuple[IpInterface, IpInterface], impairer: Impairer) -> None:
        self.ends = [net.add(name, {}).namespace for name in ("left", "right")]
        net.connect([Veth(Port(self.ends[0], "eth0"), Port(self.ends[1], "eth0"))])
        for end, address in zip(self.ends, addresses, strict=True):
            set_addresses(end, [Interface("eth0", (address,))])
        self.address = str(addresses[1].ip)
        self.impairer = impairer

    def impair(self, impairment: Impairment) -> None:
        """Change what happens to what the first sends."""
        self.impairer.apply(Port(self.ends[0], "eth0"), impairment)

    def datagrams(self, count: int, gap_s: float) -> Probe:
        """That many from the first end to the second."""
        return probe(self.ends[0], self.ends[1], self.address, count, gap_s)

    def goodput_bps(self, warm_s: float, seconds: float) -> float:
        """What one TCP flow gets through."""
        server = self.ends[1].inside(lambda: socket.create_server((self.address, PORT)))
        with server, self.ends[0].inside(lambda: socket.create_connection((self.address, PORT), 10.0)) as client:
            sink, _ = server.accept()
            with sink, _flooding(client):
                _received(sink, warm_s)
                began_s, octets = time.monotonic(), _received(sink, seconds)
                return octets * 8 / (time.monotonic() - began_s)


def calibrated(
    engine: Engine, addresses: tuple[IpInterface, IpInterface], seed: int = 0, *, quick: bool = True
) -> Calibrated:
    """Measure an engine on two nodes made for it, inside the current sandbox; raises Unsupported where it is missing.

    A quick one takes about three seconds.  The addresses are those of the two ends, of one network.
    """
    datagrams = 500 if quick else 4_000

    def measured(link: Wire) -> Calibrated:
        link.datagrams(3, 0.001)  # neighbours are known afterwards
        delay_ns = 5_000_000
        link.impair(Impairment(delay_ns=delay_ns))
        link.impairer.reports()
        delays = link.datagrams(datagrams, 0.001).delays_ns
        report = link.impairer.reports().get(("left", "eth0"))
        loss = 0.1
        link.impair(Impairment(loss_ratio=loss))
        lost = len(link.datagrams(2 * datagrams, 0.0001).lost)
        rate_bps = 20_000_000
        link.impair(Impairment(rate_bps=rate_bps, delay_ns=1_000_000))
        goodput = link.goodput_bps(0.5, 1.0) * WHOLE_FRAME / ITS_PAYLOAD
        return Calibrated(
            link.impairer.engine,
            round(statistics.median(delays)) - delay_ns,
            percentile(delays, 0.99) - delay_ns,
            Measured(rate_bps, goodput),
            Measured(loss, lost / (2 * datagrams)),
            report,
        )

    return on_link(measured, Impairer(engine, seed), addresses)


def on_link(job: Callable[[Wire], Result], impairer: Impairer, addresses: tuple[IpInterface, IpInterface]) -> Result:
    """The value of `job` on a link that is made for it and gone afterwards."""
    net = ShadowNet()
    try:
        with impairer:
            return job(Wire(net, addresses, impairer))
    finally:
        net.close()


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest value that so large a share does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@contextmanager
def _flooding(client: socket.socket) -> Iterator[None]:
    def send() -> None:
        octets = bytes(262_144)
        try:
            while True:
                client.sendall(octets)
        except OSError:
            return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        client.shutdown(socket.SHUT_RDWR)
        thread.join()


def _received(sink: socket.socket, seconds: float) -> int:
    sink.settimeout(5.0)
    room, octets, until_s = bytearray(1 << 20), 0, time.monotonic() + seconds
    while time.monotonic() < until_s:
        octets += sink.recv_into(room)
    return octets
