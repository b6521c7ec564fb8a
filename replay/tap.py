"""Header-only captures at end points, stamped by the kernel: TPACKET_V3 rings, one process for all.

Knows no flow. During a window whole retired blocks are copied; packets are looked at only when it
is over, when each node's blocks become a nanosecond pcap that the ordinary reader reads. A packet's
original length is the kernel's, so a super-frame (GSO) cut by the snap length counts fully.
Loopback is not tapped; a VLAN tag that the kernel took off is not put back.
"""

import ctypes
import mmap
import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from replay.child import Channel, Child, ChildFailed, ChildOwner, enter_namespace, libc
from replay.promptness import ask_promptness

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_TPACKET_V3 = 2
_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_LOOPBACK_INDEX = 1
_RETIRE_MS = 10
_FRAME_OCTETS = 2_048
_USER = 1
_REAL_TIME_PRIORITY = 10
_PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)
_BLOCK_HEAD = struct.Struct("<IIIIII")
_PACKET_HEAD = struct.Struct("<IIIIIIH")
_RECORD = struct.Struct("<IIII")


class TapFailed(ChildFailed):
    """No capture: this kernel or user cannot open a packet ring there."""


@dataclass(frozen=True, slots=True)
class Tap:
    """Where to listen: a node's interface, or with None all its interfaces but loopback."""

    node: str
    netns_fd: int
    interface: str | None = None
    snaplen: int = 128


@dataclass(frozen=True, slots=True)
class Tapped:
    """One window's captures: a pcap a node, and how many packets the kernel dropped there."""

    paths: Mapping[str, Path]
    drops: Mapping[str, int]

    @property
    def dropped(self) -> int:
        """Drops at all taps together."""
        return sum(self.drops.values())


class Taps(ChildOwner):
    """Taps on several nodes in one process; enter it, then `start_window` and `end_window`.

    Raises TapFailed when a ring cannot be set up. Each ring holds `blocks` blocks of
    `block_octets`: what arrives while the tap process waits for a processor.
    """

    def __init__(self, taps: Sequence[Tap], blocks: int = 64, block_octets: int = 131_072) -> None:
        nodes = [tap.node for tap in taps]
        if len(set(nodes)) != len(nodes):
            raise ValueError(f"two taps on one node: {sorted(nodes)}")
        listening = _Listening(tuple(taps), blocks, block_octets)
        self._child = Child("taps", listening.run, keep=[tap.netns_fd for tap in taps])

    @property
    def pid(self) -> int:
        """The tap process's id."""
        return self._child.pid

    def start(self) -> None:
        """Fork the process; returns when every ring is open."""
        try:
            self._child.start()
        except ChildFailed as error:
            raise TapFailed(str(error)) from error

    def start_window(self) -> None:
        """Keep packets from now on."""
        self._child.send(("start", {}))
        self._child.receive("started", 10.0)

    def end_window(self, paths: Mapping[str, Path], timeout_s: float = 60.0) -> Tapped:
        """Keep no more; write each node's packets since `start_window` to its path."""
        self._child.send(("end", {node: str(path) for node, path in paths.items()}))
        drops = cast("dict[str, int]", self._child.receive("ended", timeout_s))
        return Tapped(dict(paths), drops)


class _Ring:
    """One packet socket and its ring."""

    def __init__(self, tap: Tap, blocks: int, block_octets: int) -> None:
        self.node = tap.node
        self._blocks, self._block_octets = blocks, block_octets
        self._next = 0
        self._spool: IO[bytes] | None = None
        enter_namespace(tap.netns_fd)
        # Protocol 0: nothing arrives before the filter and the ring are in place.
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        _keep_headers(self.sock, tap.snaplen)
        request = struct.pack(
            "IIIIIII",
            block_octets,
            blocks,
            _FRAME_OCTETS,
            blocks * block_octets // _FRAME_OCTETS,
            _RETIRE_MS,
            0,
            0,
        )
        self.sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        self._memory = mmap.mmap(self.sock.fileno(), blocks * block_octets)
        _bind(self.sock, tap.interface)
        self.drops()

    def keep(self) -> None:
        """Spool blocks from now on."""
        self.collect()
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115  lives until `finish`

    def collect(self) -> None:
        """Copy every retired block to the spool, if there is one, and give it back."""
        for _ in range(self._blocks):
            at = self._next * self._block_octets
            _, _, status, _, _, octets = _BLOCK_HEAD.unpack_from(self._memory, at)
            if not status & _USER:
                return
            if self._spool is not None:
                with memoryview(self._memory) as view:
                    self._spool.write(view[at : at + octets])
            struct.pack_into("<I", self._memory, at + 8, 0)
            self._next = (self._next + 1) % self._blocks

    def finish(self, path: str, since_ns: int) -> None:
        """Write what was spooled as a pcap."""
        spool, self._spool = self._spool, None
        if spool is None:
            raise TapFailed(f"tap on {self.node}: no window was started")
        with spool, Path(path).open("wb") as file:
            spool.seek(0)
            file.write(_PCAP_HEADER)
            file.writelines(_records(spool.read(), since_ns))

    def drops(self) -> int:
        """Packets that found no room since the last time this was asked."""
        raw = self.sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        return int(struct.unpack("III", raw)[1])


class _Listening:
    """Lives in the child: all rings, one epoll."""

    def __init__(self, taps: tuple[Tap, ...], blocks: int, block_octets: int) -> None:
        self._taps = taps
        self._blocks, self._block_octets = blocks, block_octets
        self._since_ns = 0

    def run(self, channel: Channel) -> None:
        """Everything the child does until its parent is gone."""
        ask_promptness(_REAL_TIME_PRIORITY)
        rings = [self._opened(tap) for tap in self._taps]
        waiting = select.epoll()
        waiting.register(channel.fileno(), select.EPOLLIN)
        for ring in rings:
            waiting.register(ring.sock.fileno(), select.EPOLLIN)
        channel.send(("ready", None))
        while True:
            events = waiting.poll()
            for ring in rings:
                ring.collect()
            if any(fd == channel.fileno() for fd, _ in events):
                self._obey(channel, rings)

    def _opened(self, tap: Tap) -> _Ring:
        try:
            return _Ring(tap, self._blocks, self._block_octets)
        except OSError as error:
            where = f"{tap.node}:{tap.interface or 'all interfaces'}"
            raise TapFailed(f"cannot tap {where}: {error}") from error

    def _obey(self, channel: Channel, rings: Iterable[_Ring]) -> None:
        command, paths = cast("tuple[str, dict[str, str]]", channel.receive(0))
        if command == "start":
            for ring in rings:
                ring.drops()
                ring.keep()
            self._since_ns = time.time_ns()
            channel.send(("started", None))
            return
        deadline = time.monotonic() + 3 * _RETIRE_MS / 1_000
        while time.monotonic() < deadline:  # until the blocks still being filled have retired
            time.sleep(_RETIRE_MS / 2_000)
            for ring in rings:
                ring.collect()
        drops = {}
        for ring in rings:
            drops[ring.node] = ring.drops()
            ring.finish(paths[ring.node], self._since_ns)
        channel.send(("ended", drops))


def _bind(sock: socket.socket, interface: str | None) -> None:
    """Begin to receive; `socket.bind` cannot say "every interface" for a packet socket."""
    index = socket.if_nametoindex(interface) if interface else 0
    protocol = socket.htons(_ETH_P_ALL)
    address = struct.pack("HHiHBB8s", socket.AF_PACKET, protocol, index, 0, 0, 0, b"")
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _keep_headers(sock: socket.socket, snaplen: int) -> None:
    """Attach a BPF program: nothing of loopback, the first `snaplen` octets of all else."""
    program = struct.pack(
        "HBBIHBBIHBBIHBBI",
        *(0x20, 0, 0, 0xFFFF_F000 + 8),  # A = interface index (SKF_AD_IFINDEX)
        *(0x15, 0, 1, _LOOPBACK_INDEX),  # loopback has index 1 in every namespace
        *(0x06, 0, 0, 0),
        *(0x06, 0, 0, snaplen),
    )
    held = ctypes.create_string_buffer(program, len(program))
    filtered = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtered)


def _records(blocks: bytes, since_ns: int) -> Iterable[bytes]:
    """The pcap records of concatenated TPACKET_V3 blocks (linux/if_packet.h)."""
    view = memoryview(blocks)
    begin = 0
    while begin < len(blocks):
        _, _, _, packets, first, octets = _BLOCK_HEAD.unpack_from(blocks, begin)
        at = begin + first
        for _ in range(packets):
            following, seconds, nanoseconds, kept, whole, _, mac = _PACKET_HEAD.unpack_from(blocks, at)
            if seconds * 1_000_000_000 + nanoseconds >= since_ns:
                yield _RECORD.pack(seconds, nanoseconds, kept, whole)
                yield view[at + mac : at + mac + kept].tobytes()
            at += following
        begin += octets
