"""What brings a direction's frames to the delay line: a hidden veth pair and a filter that redirects into it.

It knows no impairment.  The interface that bears production's name stays as it is, untouched by name, address or
state; every frame that is about to leave it is redirected, behind all packet filters, into a pair whose other end
lies in the line's own namespace, where it is received, stamped by the kernel, and owned by nobody.

    sender's stack ── eth0 clsact egress ── redirect ── sink ══ line's namespace: stamped, held
                      eth0 (past its hooks) ◄──────────────────── when due

Numbers are those of linux/rtnetlink.h, if_link.h, pkt_cls.h and tc_act/tc_mirred.h.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import NotOurs, Unsupported
from testbed.network.link import Port
from testbed.network.namespace import on_a_thread
from testbed.network.rtnl import (
    CREATE,
    DELETE_FILTER,
    DELETE_LINK,
    DELETE_QDISC,
    EXCLUSIVE,
    GET_FILTER,
    GET_QDISC,
    IFLA_IFNAME,
    IFLA_LINKINFO,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    LOOPBACK,
    NEW_FILTER,
    NEW_LINK,
    NEW_QDISC,
    TCA_KIND,
    TCA_OPTIONS,
    Answer,
    Batch,
    attributes,
    dump,
    link,
    opened,
)
from testbed.sandbox import CLONE_NEWNET, unshare

SINK_PREFIX = "sink~"
"""What the names of our hidden interfaces begin with, so that who lists a node's ports can leave them out."""

PRIORITY = 0x7E57
"""Of our filter: a node's own filters are elsewhere."""

FIRST_INDEX = 1 << 20
"""Sinks are numbered from here: nobody else, nor the kernel by itself, counts so far."""

IFLA_GSO_MAX_SEGS, IFLA_GROUP = 40, 27
FAR_GROUP = 0x7E57
WIDEST_MTU, ALL_SEGMENTS = 65_535, 65_535
UP_AND_SILENT = 0x1 | 0x80

CLSACT, CLSACT_EGRESS, AT_INGRESS = 0xFFFF0000, 0xFFFFFFF3, 0xFFFFFFF1
EVERY_PROTOCOL = socket.htons(0x0003)
TCA_U32_CLASSID, TCA_U32_SEL, TCA_U32_ACT = 1, 5, 7
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
REDIRECT_TO_EGRESS, STOLEN = 1, 4
TERMINAL = 0x1

_LINK = struct.Struct("=BxHiII")
_TRAFFIC = struct.Struct("=BxxxiIII")
_MIRRED = struct.Struct("=IIiiiiI")


class LineNamespace:
    """The delay line's own network namespace, with no address, no IPv6 and no way out."""

    def __init__(self) -> None:
        def made() -> tuple[int, socket.socket]:
            unshare(CLONE_NEWNET)
            with suppress(FileNotFoundError):
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), opened()

        self.net_fd, self.line = on_a_thread(made)
        self._last = LOOPBACK

    def next_index(self) -> int:
        """A number for the next far end."""
        self._last += 1
        return self._last

    def remove_pairs(self) -> None:
        """Remove every pair that ends here in one request; each by itself would have the kernel wait once more."""
        batch = Batch()
        batch.ask(
            "removal of the ways to the line",
            DELETE_LINK,
            0,
            _LINK.pack(0, 0, 0, 0, 0) + _number(IFLA_GROUP, FAR_GROUP),
        )
        batch.send(self.line)

    def close(self) -> None:
        """Let go of the namespace; what is in it goes with its last user."""
        self.line.close()
        os.close(self.net_fd)


@dataclass(frozen=True, slots=True)
class Sink:
    """One direction's way to the line: `open` and `shut` its filter, then `remove` the rest."""

    port: Port
    port_index: int
    index: int
    far_index: int
    brought_clsact: bool

    @classmethod
    def laid(cls, port: Port, line: LineNamespace) -> Sink:
        """Make the pair, quiet and up, and redirect nothing yet; raises Unsupported."""
        near, port_index = port.namespace.line, port.index
        name, index, far_index = f"{SINK_PREFIX}{port_index}", FIRST_INDEX + port_index, line.next_index()
        batch = Batch()
        try:
            pair = _pair((index, name), (far_index, f"far{far_index}"), line.net_fd)
            batch.ask(f"way to the delay line {name}", NEW_LINK, CREATE | EXCLUSIVE, pair)
            batch.send(near)
            port.namespace.inside(lambda: _without_ipv6(name))
            for where, number in ((near, index), (line.line, far_index)):
                batch.ask("interface up", NEW_LINK, 0, _LINK.pack(0, 0, number, UP_AND_SILENT, UP_AND_SILENT))
                batch.send(where)
            brings = not _has_clsact(near, port_index)
            if brings:
                body = _TRAFFIC.pack(0, port_index, CLSACT, AT_INGRESS, 0) + _attribute(TCA_KIND, b"clsact\0")
                batch.ask("clsact", NEW_QDISC, CREATE | EXCLUSIVE, body)
                batch.send(near)
        except OSError as refusal:
            raise Unsupported(
                f"{port.namespace.name}:{port.name} needs the delay line, and this kernel refused its way there: "
                f"{refusal.strerror}",
                "use a kernel with veth and clsact (NET_SCH_INGRESS), or one with netem",
            ) from None
        return cls(port, port_index, index, far_index, brings)

    def take_super_frames(self, wanted: bool) -> None:
        """Whether the kernel may leave segmentation to whom the frame is for, or does it before the sink."""
        segments = ALL_SEGMENTS if wanted else 1
        batch = Batch()
        value = _number(IFLA_GSO_MAX_SEGS, segments)
        batch.ask("segments a frame", NEW_LINK, 0, _LINK.pack(0, 0, self.index, 0, 0) + value)
        batch.send(self.port.namespace.line)
        read = struct.unpack("=I", link(self.port.namespace.line, self.index).attributes[IFLA_GSO_MAX_SEGS])[0]
        if read != segments:
            raise Unsupported(f"{self._where()} took {read} segments a frame, not {segments}", "use a newer kernel")

    def open(self) -> None:
        """Redirect every frame that leaves the port from now on, and read the filter back; raises Unsupported."""
        batch = Batch()
        batch.ask("filter", NEW_FILTER, CREATE | EXCLUSIVE, self._filter() + _every_frame_to(self.index))
        try:
            batch.send(self.port.namespace.line)
        except OSError as refusal:
            raise Unsupported(
                f"{self._where()}: this kernel refused the filter of the delay line: {refusal.strerror}",
                "use a kernel with cls_u32 and act_mirred, or one with netem",
            ) from None
        if self.index not in [_redirected_to(found) for found in self._present()]:
            raise Unsupported(f"{self._where()}: the filter of the delay line is not what was asked for", "")

    def shut(self) -> None:
        """Redirect no more; raises NotOurs when the filter at our place is gone or another's."""
        filters = self._present()
        if self.index not in [_redirected_to(found) for found in filters if _priority(found) == PRIORITY]:
            raise NotOurs(f"{self._where()}: the filter of priority {PRIORITY}")
        batch = Batch()
        if self.brought_clsact and all(_priority(found) == PRIORITY for found in filters):
            batch.ask("removal of clsact", DELETE_QDISC, 0, _TRAFFIC.pack(0, self.port_index, CLSACT, AT_INGRESS, 0))
        else:
            batch.ask("removal of a filter", DELETE_FILTER, 0, self._filter())
        batch.send(self.port.namespace.line)

    def remove(self) -> None:
        """Take the pair away, once nothing is redirected into it."""
        batch = Batch()
        batch.remove(self.index)
        batch.send(self.port.namespace.line)

    def _filter(self) -> bytes:
        information = PRIORITY << 16 | EVERY_PROTOCOL
        return _TRAFFIC.pack(0, self.port_index, 0, CLSACT_EGRESS, information) + _attribute(TCA_KIND, b"u32\0")

    def _present(self) -> list[Answer]:
        """Every filter where ours is or should be."""
        return list(dump(self.port.namespace.line, GET_FILTER, _TRAFFIC.pack(0, self.port_index, 0, CLSACT_EGRESS, 0)))

    def _where(self) -> str:
        return f"{self.port.namespace.name}:{self.port.name}"


def _priority(found: Answer) -> int:
    return found.fields[4] >> 16


def _pair(near: tuple[int, str], far: tuple[int, str], net_fd: int) -> bytes:
    def end(index: int, name: str) -> bytes:
        return (
            _LINK.pack(0, 0, index, 0, 0)
            + _attribute(IFLA_IFNAME, name.encode() + b"\0")
            + _number(IFLA_MTU, WIDEST_MTU)
        )

    peer = end(*far) + _number(IFLA_NET_NS_FD, net_fd) + _number(IFLA_GROUP, FAR_GROUP)
    data = _attribute(2, _attribute(1, peer))
    return end(*near) + _attribute(IFLA_LINKINFO, _attribute(1, b"veth\0") + data)


def _every_frame_to(index: int) -> bytes:
    """A u32 that matches anything, with a mirred that takes it to an interface."""
    one_key_of_nothing = struct.pack("=BBBxHHhhI", TERMINAL, 0, 1, 0, 0, 0, 0, 0) + bytes(16)
    mirred = _MIRRED.pack(0, 0, STOLEN, 0, 0, REDIRECT_TO_EGRESS, index)
    action = _attribute(TCA_ACT_KIND, b"mirred\0") + _attribute(TCA_ACT_OPTIONS, _attribute(TCA_MIRRED_PARMS, mirred))
    options = (
        _attribute(TCA_U32_CLASSID, bytes(4))
        + _attribute(TCA_U32_SEL, one_key_of_nothing)
        + _attribute(TCA_U32_ACT, _attribute(1, action))
    )
    return _attribute(TCA_OPTIONS, options)


def _redirected_to(found: Answer) -> int | None:
    """Where a u32's action takes frames, if it redirects them."""
    options = found.attributes.get(TCA_OPTIONS, b"")
    for action in attributes(attributes(options).get(TCA_U32_ACT, b"")).values():
        parameters = attributes(attributes(action).get(TCA_ACT_OPTIONS, b"")).get(TCA_MIRRED_PARMS)
        if parameters:
            *_, what, index = _MIRRED.unpack_from(parameters)
            return int(index) if what == REDIRECT_TO_EGRESS else None
    return None


def _without_ipv6(name: str) -> None:
    with suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


def _has_clsact(line: socket.socket, index: int) -> bool:
    """A node's own clsact stays as it is."""
    kinds = [queue.attributes.get(TCA_KIND) for queue in dump(line, GET_QDISC) if queue.fields[1] == index]
    return b"clsact\0" in kinds


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))
