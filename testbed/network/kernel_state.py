"""What the kernel knows of a namespace: interface counters, queues, routes, ICMP and IP statistics.

Read over netlink and /proc, with no process started, since it is read twice in every window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.network.delay_line.sink import SINK_PREFIX
from testbed.network.namespace import Namespace

MAIN_TABLE = 254
IPV4, IPV6 = 2, 10
ROUTE_TYPES = {6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}


@dataclass(frozen=True, slots=True)
class PortState:
    """An interface by production's name: MTU, whether it is up, and its counters (`rx_packets`, `tx_dropped` …)."""

    name: str
    mtu_octets: int
    up: bool
    counters: dict[str, int]


def ports(namespace: Namespace) -> list[PortState]:
    """Every interface but loopback, and but what brings frames to the delay line."""
    found = []
    for link in namespace.netlink.get_links():
        name = _name(link)
        if name == "lo" or name.startswith(SINK_PREFIX):
            continue
        statistics = link.get_attr("IFLA_STATS64") or {}
        wanted = [f"{side}_{what}" for side in ("rx", "tx") for what in ("packets", "bytes", "dropped", "errors")]
        up = link.get_attr("IFLA_OPERSTATE") not in ("DOWN", "LOWERLAYERDOWN")
        found.append(
            PortState(name, link.get_attr("IFLA_MTU"), up, {key: int(statistics.get(key, 0)) for key in wanted})
        )
    return found


def _name(link: Any) -> str:
    """Production's name, which is the alias where the kernel could not bear it."""
    return str(link.get_attr("IFLA_IFALIAS") or link.get_attr("IFLA_IFNAME"))


def _names(namespace: Namespace) -> dict[int, str]:
    return {link["index"]: _name(link) for link in namespace.netlink.get_links()}


def queue_drops(namespace: Namespace) -> dict[str, int]:
    """Packets dropped by each interface's rate limit or impairment."""
    names = _names(namespace)
    drops = {}
    for qdisc in namespace.netlink.get_qdiscs():
        if qdisc.get_attr("TCA_KIND") in ("tbf", "netem"):
            statistics = qdisc.get_attr("TCA_STATS") or {}
            drops[names[qdisc["index"]]] = int(statistics.get("drop", 0))
    return drops


def routes(namespace: Namespace) -> dict[str, str]:
    """The main tables of both families: prefix to `gateway@interface`, or to `blackhole` and its like.

    Of several routes to one prefix the one that the kernel uses: that of the lowest metric.
    """
    names = _names(namespace)
    found: dict[str, str] = {}
    metrics: dict[str, int] = {}
    for family in (IPV4, IPV6):
        for route in namespace.netlink.get_routes(family=family, table=MAIN_TABLE):
            address = route.get_attr("RTA_DST")
            if address and address.startswith(("fe80", "ff00")):
                continue
            prefix = f"{address}/{route['dst_len']}" if address else ("0.0.0.0/0" if family == IPV4 else "::/0")
            metric = int(route.get_attr("RTA_PRIORITY") or 0)
            if metric >= metrics.get(prefix, metric + 1):
                continue
            metrics[prefix] = metric
            hops = route.get_attr("RTA_MULTIPATH") or [route]
            ways = sorted(
                f"{_gateway(hop)}@{names.get(hop.get_attr('RTA_OIF') or hop.get('oif'), '-')}" for hop in hops
            )
            found[prefix] = ROUTE_TYPES.get(route["type"], ",".join(ways))
    return found


def _gateway(hop: Any) -> str:
    via = hop.get_attr("RTA_VIA")
    return str(hop.get_attr("RTA_GATEWAY") or (via and via.get("addr")) or "direct")


def protocol_statistics(namespace: Namespace) -> dict[tuple[str, str], int]:
    """(group, counter) of /proc/net/snmp, netstat and snmp6, as the kernel names them."""

    def read() -> tuple[list[str], list[str]]:
        own = Path("/proc/thread-self/net")
        six = own / "snmp6"
        four = (own / "snmp").read_text() + (own / "netstat").read_text()
        return four.splitlines(), six.read_text().splitlines() if six.exists() else []

    four, six = namespace.inside(read)
    found = {}
    for head, values in zip(four[::2], four[1::2], strict=True):
        group, *names = head.replace(":", "").split()
        found.update({(group, n): int(v) for n, v in zip(names, values.split()[1:], strict=True)})
    for line in six:
        name, value = line.split()
        found["Ip6" if name.startswith("Ip6") else "Icmp6", name] = int(value)
    return found
