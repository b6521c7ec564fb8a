"""What the kernel itself asks for the same row: bare network namespaces and raw netlink, nothing read back.

It knows no node, no device and no Mininet.  No builder can be quicker on one thread.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from dataclasses import dataclass
from ipaddress import ip_network

from testbed.bench.chain import AFTER, BEFORE, RATE_BPS, Cable
from testbed.network.namespace import on_a_thread
from testbed.network.qdisc import BUCKET, ROOT, TokenBucket
from testbed.network.rtnl import LOOPBACK, Batch, End, opened
from testbed.sandbox import CLONE_NEWNET, Sandbox, unshare
from topologies.model import Impairment


@dataclass(frozen=True, slots=True)
class _Bare:
    net_fd: int
    line: socket.socket


def floor_seconds(nodes: int) -> float:
    """Seconds to make the row in a sandbox of its own."""
    return Sandbox("floor").call(lambda: _measured(nodes))


def _measured(nodes: int) -> float:
    started = time.monotonic()
    spaces = [_Bare(*on_a_thread(_bare)) for _ in range(nodes)]
    bucket = TokenBucket.of(Impairment(rate_bps=RATE_BPS))
    default = ip_network("0.0.0.0/0")
    for number, (a, b) in enumerate(itertools.pairwise(spaces)):
        cable, near, far = Cable(number), Batch(), Batch()
        near.veth(End(3, AFTER), End(2, BEFORE), b.net_fd, 1500)
        near.address(3, cable.near)
        far.up(LOOPBACK)
        far.up(2)
        far.address(2, cable.far)
        for index, batch in ((3, near), (2, far)):
            batch.queue("tbf", index, BUCKET, ROOT, bucket.options())
        near.send(a.line)
        far.route(default, cable.near.ip)
        far.send(b.line)
    return time.monotonic() - started


def _bare() -> tuple[int, socket.socket]:
    unshare(CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY), opened()
