"""What every Linux node has in common: sysctls, packet filter, interfaces and the kernel's route table.

Kinds add their daemons to it.  It knows no daemon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.devices.base import Box, Complaint, Configs, Kernel, Readiness, Reading
from testbed.devices.conntrack import conntrack_readings
from testbed.devices.ip_sets import check_sets, drop_sets, load_sets, swap_sets
from testbed.devices.nft import check_nft, load_nft, nft_readings, reload_nft
from testbed.devices.packet_filter import FAMILIES, check_rules, reload_rules, restore_rules, rule_readings
from testbed.network.placed_files import misplaced

PLACED = "files"
"""`files/etc/motd` is the node's /etc/motd, whatever its kind."""

ALL_KINDS = frozenset({"iptables.rules", "ip6tables.rules", "nftables.conf", "ipset.rules", "sysctl.conf"})

TOLD = frozenset(
    {
        "OutDestUnreachs",
        "FragFails",
        "OutDiscards",
        "InDiscards",
        "OutNoRoutes",
        "Ip6FragFails",
        "Ip6OutNoRoutes",
        "Icmp6OutPktTooBigs",
        "Icmp6OutDestUnreachs",
        "InAddrErrors",
        "InHdrErrors",
        "Ip6InAddrErrors",
        "Ip6InHdrErrors",
        "IPReversePathFilter",
        "ListenDrops",
        "ListenOverflows",
    }
)
"""Of the kernel's counters, those that say why a packet went no further."""

PROGRAM_STATE = (
    "/var/log/nginx",
    "/var/lib/nginx",
    "/var/lib/misc",
    "/var/log/redis",
    "/var/lib/redis",
    "/var/log/postgresql",
    "/var/lib/postgresql",
)
"""Where the usual programs keep what they write, which must be neither the machine's nor another node's."""

MACHINE_WIDE = (
    ".nf_conntrack_max",
    ".nf_conntrack_buckets",
    ".nf_conntrack_expect_max",
    ".gc_thresh1",
    ".gc_thresh2",
    ".gc_thresh3",
)
"""Network settings of which the kernel has one for all namespaces."""

SHADOW_SYSCTLS = {
    # the same five-tuples come back in the next window: their last use must not be in the way
    "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.ip_local_port_range": "61001 65000",
}
FORWARDING = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}


class LinuxNode:
    """A node with a kernel and no daemon; the base of the kinds."""

    reads: frozenset[str] = ALL_KINDS
    directories: Mapping[str, str] = {}
    defaults: Mapping[str, str] = SHADOW_SYSCTLS

    def check(self, box: Box, configs: Configs) -> Sequence[Complaint]:
        """Packet filter syntax, by the restore programs' own test mode, and where the lab's files are to lie."""
        if misplaced_files := check_files(configs):
            return misplaced_files
        sets = check_sets(box, configs)
        rules = [] if sets else check_rules(box, configs)
        return [*sets, *rules, *check_nft(box, configs, placed(configs))]

    def start(self, box: Box, configs: Configs) -> None:
        """Files, then rules, then sysctls: forwarding must not be open before the filter is."""
        if box.node.programs:
            box.hide(PROGRAM_STATE)
        box.put_files(placed(configs))
        load_nft(box, configs)
        load_sets(box, configs)
        restore_rules(box, configs)
        box.set_sysctls({**self.defaults, **parse_sysctls(configs.get("sysctl.conf", b""))})

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """The kernel is ready when its settings were read back, which `start` did."""
        return Readiness(ready=True)

    def reload(self, box: Box, before: Configs, after: Configs) -> None:
        """Put changed files, restore changed rules atomically and set changed sysctls.

        A program of the lab's own is not told: production's would not be either.
        """
        box.put_files(changed_files(before, after))
        reload_nft(box, before, after)
        swap_sets(box, before, after)
        reload_rules(box, before, after)
        drop_sets(box, before, after)
        old, new = (parse_sysctls(c.get("sysctl.conf", b"")) for c in (before, after))
        changed = {name: value for name, value in new.items() if old.get(name) != value}
        gone = old.keys() - new.keys()
        box.restore_sysctls(sorted(gone - self.defaults.keys()))
        box.set_sysctls({**{name: self.defaults[name] for name in gone & self.defaults.keys()}, **changed})

    def readings(self, box: Box, configs: Configs) -> Sequence[Reading]:
        """Rules, interfaces, queues, routes and the kernel's own ICMP and conntrack counters."""
        files = [f for f in FAMILIES if f in configs]
        rules = [*rule_readings(box, files), *nft_readings(box, configs)]
        tracked = conntrack_readings(box) if rules else []
        return [*rules, *tracked, *kernel_readings(box.kernel)]

    def forget(self, box: Box) -> None:
        """Drop cached path MTUs, so that each window discovers them anew."""
        for family in ("-4", "-6"):
            box.run(["ip", family, "route", "flush", "cache"])


def placed(configs: Configs) -> dict[str, bytes]:
    """The files that lie at their own absolute path inside the node."""
    return {name.removeprefix(PLACED): content for name, content in configs.items() if name.startswith(f"{PLACED}/")}


def changed_files(before: Configs, after: Configs) -> dict[str, bytes | None]:
    """What a change does to the placed files: new contents by path, None for what goes."""
    old, new = placed(before), placed(after)
    gone: dict[str, bytes | None] = dict.fromkeys(old.keys() - new.keys())
    return gone | {path: content for path, content in new.items() if old.get(path) != content}


def check_files(configs: Configs) -> list[Complaint]:
    """One complaint for each file that has no place in a node."""
    return [Complaint(f"{PLACED}{path}", None, said) for path in placed(configs) if (said := misplaced(path))]


def parse_sysctls(text: bytes) -> dict[str, str]:
    """The settings in a sysctl.conf that a node's network has of its own; see `machine_sysctls` for the others."""
    whole = machine_sysctls(text)
    return {name: value for name, value in all_sysctls(text).items() if name not in whole}


def machine_sysctls(text: bytes) -> list[str]:
    """Settings of a sysctl.conf that are a whole machine's: a shadow leaves them alone and says so.

    These are vm, kernel and fs, and of the network the limits that all namespaces share.
    """
    names = ((name, name.replace("/", ".")) for name in all_sysctls(text))
    return sorted(name for name, dotted in names if not dotted.startswith("net.") or dotted.endswith(MACHINE_WIDE))


def all_sysctls(text: bytes) -> dict[str, str]:
    """`name = value` lines of a sysctl.conf; comments start with # or ;."""
    settings = {}
    for raw in text.decode(errors="replace").splitlines():
        line = raw.strip()
        if line and line[0] not in "#;" and "=" in line:
            name, value = line.split("=", 1)
            settings[name.strip().lstrip("-")] = value.strip()
    return settings


def kernel_readings(kernel: Kernel) -> list[Reading]:
    """Interfaces, queues, routes and the ICMP and IP counters that tell why packets ended."""
    readings = []
    for port in kernel.ports():
        readings.append(Reading("interface", port.name, "mtu", float(port.mtu_octets), cumulative=False))
        readings.append(Reading("interface", port.name, "up", float(port.up), cumulative=False))
        readings += [Reading("interface", port.name, metric, float(n)) for metric, n in port.counters.items()]
    readings += [Reading("qdisc", name, "drops", float(n)) for name, n in kernel.queue_drops().items()]
    for prefix, way in sorted(kernel.routes().items()):
        readings.append(Reading("route", prefix, "via", 1.0, cumulative=False, state=way))
    for (group, name), value in kernel.protocol_statistics().items():
        if name in TOLD:
            readings.append(Reading("icmp", group.lower(), name, float(value)))
    return readings
