"""A firewall: a forwarding Linux node whose rules are real iptables and ip6tables."""

from collections.abc import Mapping

from testbed.devices.base import Box
from testbed.devices.linux import FORWARDING, SHADOW_SYSCTLS, LinuxNode


class Firewall(LinuxNode):
    """Forwarding is on, as any firewall's is, unless its sysctl.conf says otherwise."""

    defaults: Mapping[str, str] = {**SHADOW_SYSCTLS, **FORWARDING}

    def forget(self, box: Box) -> None:
        """Also drop tracked connections: a rule on NEW must see the next window's flows as new."""
        super().forget(box)
        box.run(["conntrack", "-F"])


FIREWALL = Firewall()
