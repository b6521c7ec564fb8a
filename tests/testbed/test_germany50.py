"""A public network of fifty routers, each with FRR's own daemons and production's timers, in one shadow."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from testbed.devices.registry import known_devices
from testbed.sandbox import Sandbox
from testbed.shadow import built
from topologies.sources import opened

DAEMONS = frozenset({"zebra", "mgmtd", "staticd", "ospfd"})
CONVERGED_SECONDS = 300.0
OVERHEAD = 1.15


def proportional_octets(processes) -> int:
    """Memory of processes, shared pages counted in parts."""
    return sum(process.memory_full_info().pss for process in processes)


@pytest.mark.slow
def test_fifty_ospf_routers_converge_and_cost_little_more_than_their_daemons(tmp_path):
    lab = opened("topohub:sndlib/germany50?delay=off", tmp_path / "lab").lab
    routers = [node.name for node in lab.topology.nodes if node.kind == "router"]

    def job():
        before = proportional_octets(psutil.process_iter())
        with built(lab.topology, known_devices(), tmp_path / "logs") as shadow:
            waited_s = shadow.wait_ready(CONVERGED_SECONDS, lambda reason: None)
            everything = proportional_octets(psutil.process_iter()) - before
            daemons = proportional_octets(p for p in psutil.process_iter() if p.name() in DAEMONS)
            learnt = {name: len(shadow.boxes[name].kernel.routes()) for name in routers}
            way = shadow.boxes["h-Aachen"].run(["ping", "-c1", "-W2", _address(lab, "h-Passau")])
        return waited_s, everything, daemons, learnt, way

    waited_s, everything, daemons, learnt, way = Sandbox("germany50", (Path(tmp_path),)).call(job)
    assert len(routers) == 50
    assert min(learnt.values()) >= 50 + 50 + 88 - 1
    assert "1 received" in way
    assert everything <= OVERHEAD * daemons, (everything, daemons)
    assert waited_s > 5, "OSPF's own timers were not waited for"
    each, own = (octets / len(routers) / 2**20 for octets in (everything, daemons))
    sys.stdout.write(f"\nready after {waited_s:.0f} s; {each:.1f} MiB a router, {own:.1f} of them its daemons'\n")


def _address(lab, name: str) -> str:
    return str(lab.topology.node(name).interfaces[0].addresses[0].ip)
