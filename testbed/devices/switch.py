"""A switch: a Linux bridge over all of the node's interfaces.

It knows no other kind; where the machine filters bridged frames, that is the machine's business.
"""

from __future__ import annotations

from testbed.devices.base import Box, Configs, Readiness
from testbed.devices.linux import LinuxNode

BRIDGE_NAME = "br0"


class Bridge(LinuxNode):
    """All ports in one bridge, no spanning tree: a loop in the lab is the lab's own."""

    def start(self, box: Box, configs: Configs) -> None:
        """Make the bridge and put every interface in it."""
        super().start(box, configs)
        box.run(["ip", "link", "add", BRIDGE_NAME, "type", "bridge", "forward_delay", "0"])
        for interface in box.node.interfaces:
            box.run(["ip", "link", "set", interface.name, "master", BRIDGE_NAME])
        box.run(["ip", "link", "set", BRIDGE_NAME, "up"])

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """Every port forwarding."""
        ports = box.run(["bridge", "link"])
        waiting = [i.name for i in box.node.interfaces if not _forwards(ports, i.name)]
        return Readiness(not waiting, f"{box.node.name}: port {waiting[0]} to forward" if waiting else "")


def _forwards(ports: str, name: str) -> bool:
    return any(f" {name}@" in line and "state forwarding" in line for line in ports.splitlines())


BRIDGE = Bridge()
