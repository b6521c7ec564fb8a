"""A link between two nodes and the engines that this kernel has to impair it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from testbed.network.addressing import set_addresses
from testbed.network.impairment import Engine, Impairer, has_netem
from testbed.network.link import Port, Veth
from testbed.network.mininet_api import ShadowNet
from testbed.network.namespace import Namespace
from testbed.sandbox import Sandbox
from topologies.model import Impairment, Interface

ENGINES = [
    pytest.param(Engine.DELAY_LINE, id="delay-line"),
    pytest.param(
        Engine.NETEM, id="netem", marks=pytest.mark.skipif(not has_netem(), reason="this kernel has no sch_netem")
    ),
]
MS, MBIT = 1_000_000, 1_000_000
USER_MODE = "User Mode Linux" in Path("/proc/cpuinfo").read_text()
"""A kernel whose clock is coarse: a token bucket that wakes late has let tokens go by."""

FOUR, SIX = "10.0.0.2", "2001:db8::2"


@dataclass(frozen=True)
class Wire:
    """h1 ── h2, both on eth0, and who impairs them."""

    h1: Namespace
    h2: Namespace
    impairer: Impairer

    def forth(self, **settings: Any) -> None:
        """Impair what h1 sends."""
        self.impairer.apply(Port(self.h1, "eth0"), Impairment(**settings))

    def back(self, **settings: Any) -> None:
        """Impair what h2 sends."""
        self.impairer.apply(Port(self.h2, "eth0"), Impairment(**settings))


def on_wire(job: Callable[[Wire], Any], engine: Engine, seed: int = 0, mtu: int = 1500) -> Any:
    """The value of `job` on a fresh wire in a sandbox."""

    def made() -> Any:
        net = ShadowNet()
        try:
            ends = [net.add(name, {}).namespace for name in ("h1", "h2")]
            net.connect([Veth(*(Port(end, "eth0") for end in ends), mtu)])
            for number, end in enumerate(ends, start=1):
                own = (ip_interface(f"10.0.0.{number}/24"), ip_interface(f"2001:db8::{number}/64"))
                set_addresses(end, [Interface("eth0", own)])
            with Impairer(engine, seed) as impairer:
                return job(Wire(*ends, impairer))
        finally:
            net.close()

    return Sandbox("wire").call(made)


def traces(space: Namespace) -> str:
    """What a node's kernel shows of qdiscs, filters and devices."""
    filters = space.run(["tc", "filter", "show", "dev", "eth0", "egress"]) if "clsact" in _qdiscs(space) else ""
    devices = sorted(line.split()[0] for line in space.run(["ip", "-br", "link"]).splitlines())
    return "\n".join([_qdiscs(space), filters, *devices])


def _qdiscs(space: Namespace) -> str:
    return space.run(["tc", "qdisc"])
