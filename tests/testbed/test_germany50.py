"""A public network of fifty routers, each with FRR's own daemons and production's timers, in one shadow."""

from __future__ import annotations

import json
import subprocess
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
    # in an interpreter of its own: the pages of a test session that has grown would be counted with the shadow
    told = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout)
    everything, daemons, routers = seen["everything"], seen["daemons"], seen["routers"]
    assert len(routers) == 50
    assert min(seen["learnt"].values()) >= 50 + 50 + 88 - 1
    assert "1 received" in seen["way"]
    assert everything <= OVERHEAD * daemons, (everything, daemons)
    assert seen["waited_s"] > 5, "OSPF's own timers were not waited for"
    each, own = (octets / len(routers) / 2**20 for octets in (everything, daemons))
    sys.stdout.write(f"\nready after {seen['waited_s']:.0f} s; {each:.1f} MiB a router, {own:.1f} its daemons'\n")


def measured(folder: Path) -> dict[str, object]:
    """What fifty routers need, and whether they reach each other."""
    lab = opened("topohub:sndlib/germany50?delay=off", folder / "lab").lab
    routers = [node.name for node in lab.topology.nodes if node.kind == "router"]

    def job() -> dict[str, object]:
        before = proportional_octets(psutil.process_iter())
        with built(lab.topology, known_devices(), folder / "logs") as shadow:
            waited_s = shadow.wait_ready(CONVERGED_SECONDS, lambda reason: None)
            return {
                "waited_s": waited_s,
                "everything": proportional_octets(psutil.process_iter()) - before,
                "daemons": proportional_octets(p for p in psutil.process_iter() if p.name() in DAEMONS),
                "learnt": {name: len(shadow.boxes[name].kernel.routes()) for name in routers},
                "way": shadow.boxes["h-Aachen"].run(["ping", "-c1", "-W2", _address(lab, "h-Passau")]),
                "routers": routers,
            }

    return Sandbox("germany50", (folder,)).call(job)


def _address(lab, name: str) -> str:
    return str(lab.topology.node(name).interfaces[0].addresses[0].ip)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measured(Path(sys.argv[1]))))
