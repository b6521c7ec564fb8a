"""The edge stands for everything outside: it answers for whole prefixes, so captured addresses appear unchanged.

With an frr.conf it also speaks to its neighbours as any router does, by BGP as a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.devices.base import Box, Complaint, Configs, Readiness, Reading
from testbed.devices.linux import SHADOW_SYSCTLS, LinuxNode
from testbed.devices.router import FRR_FILES, Router


def _speaks(configs: Configs) -> bool:
    return not FRR_FILES.isdisjoint(configs)


class Edge(Router):
    """A host whose AnyIP prefixes are set by the shadow; it may bind what it answers for, and forwards nothing."""

    defaults: Mapping[str, str] = {**SHADOW_SYSCTLS, "net.ipv4.ip_nonlocal_bind": "1", "net.ipv6.ip_nonlocal_bind": "1"}

    def check(self, box: Box, configs: Configs) -> Sequence[Complaint]:
        """A router's check where there is something to speak."""
        return super().check(box, configs) if _speaks(configs) else LinuxNode.check(self, box, configs)

    def start(self, box: Box, configs: Configs) -> None:
        """FRR where there is something to speak."""
        if _speaks(configs):
            super().start(box, configs)
        else:
            LinuxNode.start(self, box, configs)

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """A speaker is ready when its neighbours are."""
        return super().ready(box, configs) if _speaks(configs) else LinuxNode.ready(self, box, configs)

    def reload(self, box: Box, before: Configs, after: Configs) -> None:
        """As a router; an edge that did not speak cannot begin to live."""
        if _speaks(before) or _speaks(after):
            super().reload(box, before, after)
        else:
            LinuxNode.reload(self, box, before, after)

    def readings(self, box: Box, configs: Configs) -> Sequence[Reading]:
        """A router's where it speaks."""
        return super().readings(box, configs) if _speaks(configs) else LinuxNode.readings(self, box, configs)


EDGE = Edge()
