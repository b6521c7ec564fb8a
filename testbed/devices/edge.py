"""The edge stands for everything outside: it answers for whole prefixes, so captured addresses appear unchanged."""

from collections.abc import Mapping

from testbed.devices.linux import SHADOW_SYSCTLS, LinuxNode


class Edge(LinuxNode):
    """A host whose AnyIP prefixes are set by the shadow; it may bind what it answers for."""

    defaults: Mapping[str, str] = {**SHADOW_SYSCTLS, "net.ipv4.ip_nonlocal_bind": "1", "net.ipv6.ip_nonlocal_bind": "1"}


EDGE = Edge()
