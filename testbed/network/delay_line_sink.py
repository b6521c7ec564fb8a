"""What brings a direction's frames to the delay line: a hidden veth pair and a filter that redirects into it.

It knows no impairment.  The interface that bears production's name stays as it is, untouched by name, address or
state; every frame that is about to leave it is redirected, behind all packet filters, into a pair whose other end
lies in the line's own namespace, where it is received, stamped by the kernel, and owned by nobody.

    sender's stack ── eth0 clsact egress ── redirect ── sink ══ line's namespace: stamped, held
                      eth0 (past its hooks) ◄──────────────────── when due
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from testbed.errors import NotOurs, Unsupported
from testbed.network.link import Port
from testbed.network.namespace import on_a_thread
from testbed.sandbox import CLONE_NEWNET, unshare

SINK_PREFIX = "sink~"
"""What the names of our hidden interfaces begin with, so that who lists a node's ports can leave them out."""

PRIORITY = 0x7E57
"""Of our filter: a node's own filters are elsewhere."""

CLSACT, CLSACT_EGRESS = 0xFFFF0000, 0xFFFFFFF3
ETH_P_ALL, REDIRECT_TO_EGRESS = 0x0003, 1
WIDEST_MTU, ALL_SEGMENTS = 65_535, 65_535
IFF_UP, IFF_NOARP = 0x1, 0x80


class LineNamespace:
    """The delay line's own network namespace, with no address, no IPv6 and no way out."""

    def __init__(self) -> None:
        def made() -> tuple[int, socket.socket]:
            unshare(CLONE_NEWNET)
            with suppress(FileNotFoundError):
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            line = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), line

        self.net_fd, line = on_a_thread(made)
        self.netlink: Any = IPRoute(fileno=line.detach())
        self._made = 0

    def next_name(self) -> str:
        """A name for the next far end."""
        self._made += 1
        return f"far{self._made}"

    def index(self, name: str) -> int:
        """The number of an interface here."""
        return int(self.netlink.link_lookup(ifname=name)[0])

    def close(self) -> None:
        """Let go of the namespace; what is in it goes with its last user."""
        self.netlink.close()
        os.close(self.net_fd)


@dataclass(frozen=True, slots=True)
class Sink:
    """One direction's way to the line: `lay` and `remove`, `open` and `shut` its filter in between."""

    port: Port
    port_index: int
    name: str
    index: int
    far_index: int
    brought_clsact: bool

    @classmethod
    def laid(cls, port: Port, line: LineNamespace) -> Sink:
        """Make the pair, quiet and up, and redirect nothing yet; raises Unsupported."""
        netlink, port_index = port.namespace.netlink, port.index
        name, far = f"{SINK_PREFIX}{port_index}", line.next_name()
        try:
            netlink.link(
                "add",
                ifname=name,
                kind="veth",
                mtu=WIDEST_MTU,
                peer={"ifname": far, "net_ns_fd": line.net_fd, "mtu": WIDEST_MTU},
            )
            index = int(netlink.link_lookup(ifname=name)[0])
            port.namespace.indexes[name] = index
            port.namespace.inside(lambda: _without_ipv6(name))
            netlink.link("set", index=index, flags=IFF_UP | IFF_NOARP, change=IFF_UP | IFF_NOARP)
            far_index = line.index(far)
            line.netlink.link("set", index=far_index, flags=IFF_UP | IFF_NOARP, change=IFF_UP | IFF_NOARP)
            brought = _with_clsact(netlink, port_index)
        except NetlinkError as refusal:
            raise Unsupported(
                f"{port.namespace.name}:{port.name} needs the delay line, and this kernel refused its way there: "
                f"{refusal}",
                "use a kernel with veth and clsact (NET_SCH_INGRESS), or one with netem",
            ) from None
        return cls(port, port_index, name, index, far_index, brought)

    def take_super_frames(self, wanted: bool) -> None:
        """Whether the kernel may leave segmentation to whom the frame is for, or does it before the sink."""
        segments = ALL_SEGMENTS if wanted else 1
        netlink = self.port.namespace.netlink
        netlink.link("set", index=self.index, gso_max_segs=segments)
        read = netlink.get_links(self.index)[0].get_attr("IFLA_GSO_MAX_SEGS")
        if read != segments:
            raise Unsupported(f"{self._where()} took {read} segments a frame, not {segments}", "use a newer kernel")

    def open(self) -> None:
        """Redirect every frame that leaves the port from now on, and read the filter back; raises Unsupported."""
        action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": self.index}
        try:
            self.port.namespace.netlink.tc(
                "add-filter",
                "u32",
                self.port_index,
                parent=CLSACT_EGRESS,
                prio=PRIORITY,
                protocol=ETH_P_ALL,
                target=0,
                keys=["0x0/0x0+0"],
                action=action,
            )
        except NetlinkError as refusal:
            raise Unsupported(
                f"{self._where()}: this kernel refused the filter of the delay line: {refusal}",
                "use a kernel with cls_u32 and act_mirred, or one with netem",
            ) from None
        if not self._is_open():
            raise Unsupported(f"{self._where()}: the filter of the delay line is not what was asked for", "")

    def shut(self) -> None:
        """Redirect no more; raises NotOurs when the filter at our place is another's."""
        if not self._is_open():
            raise NotOurs(f"{self._where()}: the filter of priority {PRIORITY} is not the delay line's")
        self.port.namespace.netlink.tc(
            "del-filter", index=self.port_index, parent=CLSACT_EGRESS, info=socket.htons(ETH_P_ALL) | PRIORITY << 16
        )

    def remove(self) -> None:
        """Take the pair away, and clsact where nothing else hangs on it."""
        netlink = self.port.namespace.netlink
        if self.brought_clsact and not netlink.get_filters(self.port_index, parent=CLSACT_EGRESS):
            netlink.tc("del", index=self.port_index, kind="clsact", handle=CLSACT, parent=0xFFFFFFF1)
        netlink.link("del", index=self.index)
        self.port.namespace.indexes.pop(self.name, None)

    def _is_open(self) -> bool:
        found = self.port.namespace.netlink.get_filters(self.port_index, parent=CLSACT_EGRESS)
        return any(f["info"] >> 16 == PRIORITY and (REDIRECT_TO_EGRESS, self.index) == _redirected(f) for f in found)

    def _where(self) -> str:
        return f"{self.port.namespace.name}:{self.port.name}"


def _without_ipv6(name: str) -> None:
    with suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


def _with_clsact(netlink: Any, index: int) -> bool:
    """Whether clsact had to be brought; a node's own stays as it is."""
    if any(q.get_attr("TCA_KIND") == "clsact" and q["index"] == index for q in netlink.get_qdiscs(index)):
        return False
    netlink.tc("add", "clsact", index)
    return True


def _redirected(answer: Any) -> tuple[int, int] | None:
    options = answer.get_attr("TCA_OPTIONS")
    actions = options and options.get_attr("TCA_U32_ACT")
    if not actions:
        return None
    for _, action in actions["attrs"]:
        parameters = action.get_attr("TCA_ACT_OPTIONS")
        mirred = parameters and parameters.get_attr("TCA_MIRRED_PARMS")
        if mirred:
            return mirred["eaction"], mirred["ifindex"]
    return None
