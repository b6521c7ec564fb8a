"""A host or server: end points of replayed flows live here, and programs of the lab's own; it forwards nothing.

Programs are given by their argv and run in the foreground as long as the node; their state lies in private
directories.  Every account is the caller's (uid 0 here), and groups cannot be set: nginx wants `master_process
off`, dnsmasq `--no-daemon`, and what refuses to be root (PostgreSQL) runs behind
`unshare --user --map-user=1000 --map-group=1000 --`.
"""

from __future__ import annotations

import time

from testbed.devices.base import Box, Configs, Readiness
from testbed.devices.linux import LinuxNode
from topologies.model import Service

BIND_SECONDS = 5.0
"""How long a program may take to bind a port of the node; after it the port is left to who replays."""


class Host(LinuxNode):
    """A node that answers; that its programs are alive is seen by the shadow for every kind."""

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """With programs: wait a little for the node's ports to be bound by them."""
        if not (box.node.programs and box.node.listen):
            return super().ready(box, configs)
        begun = box.home / "run" / "begun"
        if not begun.exists():
            begun.touch()
        if time.time() - begun.stat().st_mtime < BIND_SECONDS:
            bound = bound_ports(box.run(["ss", "-H", "-l", "-n", "-t", "-u"]))
            for service in box.node.listen:
                if service not in bound:
                    why = f"{box.node.name}: {service.protocol}/{service.port} to be bound by the node's programs"
                    return Readiness(ready=False, waiting_for=why)
        return super().ready(box, configs)


def bound_ports(text: str) -> frozenset[Service]:
    """The ports in the listing that `ss -Hlntu` gives."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        port = words[4].rpartition(":")[2] if len(words) > 4 else ""
        if port.isascii() and port.isdigit() and len(port) <= 5:
            found.add(Service("tcp" if words[0] == "tcp" else "udp", int(port)))
    return frozenset(found)


HOST = Host()
