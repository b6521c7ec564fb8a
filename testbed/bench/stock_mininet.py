"""The reference that everybody knows: the same row of nodes built by Mininet as it comes, with a shell a node.

It knows nothing of our own building.  Needs the program mnexec, which the index's package lacks and the
distribution's has.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mininet.link import TCLink
from mininet.log import setLogLevel
from mininet.net import Mininet

from testbed.bench.chain import RATE_BPS, Cable, name
from testbed.errors import Unsupported
from testbed.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Stock:
    """How long stock Mininet took."""

    build_s: float
    teardown_s: float


def stock_mininet(nodes: int) -> Stock:
    """Build and stop a row in a sandbox of its own; raises Unsupported without mnexec."""
    if shutil.which("mnexec") is None:
        raise Unsupported(
            "the program mnexec, which stock Mininet starts its nodes with", "install the package mininet"
        )
    return Sandbox("mininet").call(lambda: _measured(nodes))


def _measured(nodes: int) -> Stock:
    started = time.monotonic()
    with _built(nodes):
        built = time.monotonic()
    return Stock(built - started, time.monotonic() - built)


@contextmanager
def _built(nodes: int) -> Iterator[None]:
    # what its commands print is shown as errors, and tc prints hints
    setLogLevel("critical")
    # its own preparation writes the machine's limits
    Mininet.inited = True
    net = Mininet(topo=None, build=False, link=TCLink)
    limits = {"bw": RATE_BPS / 1e6, "use_tbf": True}
    hosts = [net.addHost(name(number), ip=None) for number in range(nodes)]
    try:
        for number, (a, b) in enumerate(itertools.pairwise(hosts)):
            cable = Cable(number)
            net.addLink(a, b, **limits, params1={"ip": str(cable.near)}, params2={"ip": str(cable.far)})
            b.cmd("ip route add default via", str(cable.near.ip))
        yield
    finally:
        for host in hosts:
            host.stop(deleteIntfs=True)
