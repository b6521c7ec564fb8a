"""A switch: a Linux bridge over all of the node's interfaces.

It knows no other kind; where the machine filters bridged frames, that is the machine's business.
"""

from __future__ import annotations

import re

from testbed.devices.base import Box, Configs, Readiness
from testbed.devices.linux import LinuxNode
from testbed.network.link import kernel_name

BRIDGE_NAME = "br0"


class Bridge(LinuxNode):
    """All ports in one bridge, no spanning tree: a loop in the lab is the lab's own."""

    def start(self, box: Box, configs: Configs) -> None:
        """Make the bridge and put every interface in it."""
        super().start(box, configs)
        box.run(["ip", "link", "add", BRIDGE_NAME, "type", "bridge", "forward_delay", "0"])
        for interface in box.node.interfaces:
            box.run(["ip", "link", "set", kernel_name(interface.name), "master", BRIDGE_NAME])
        box.run(["ip", "link", "set", BRIDGE_NAME, "up"])

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """Every port forwarding."""
        ports = box.run(["bridge", "link"])
        waiting = [i.name for i in box.node.interfaces if not _forwards(ports, kernel_name(i.name))]
        return Readiness(not waiting, f"{box.node.name}: port {waiting[0]} to forward" if waiting else "")


def _forwards(ports: str, name: str) -> bool:
    # the peer's name follows an @, but not where both ends have the same number in their networks
    plain = re.compile(rf"^\d+: {re.escape(name)}[@:].* state forwarding\b", re.M)
    return plain.search(ports) is not None


BRIDGE = Bridge()
