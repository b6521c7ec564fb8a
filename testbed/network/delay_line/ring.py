"""Rings of received frames that the kernel has stamped (packet(7), TPACKET_V2): what the delay line reads.

It knows no direction and no impairment.  A frame comes with the virtio header that says which checksum and which
segmentation the kernel still owes, and with its VLAN tag put back where the kernel took it off.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct

SOL_PACKET = 263
PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, PACKET_VNET_HDR, PACKET_QDISC_BYPASS = 5, 6, 10, 15, 20
TPACKET_V2, ETH_P_ALL, SO_ATTACH_FILTER = 1, 0x0003, 26
VNET_OCTETS = 10
VNET = struct.Struct("<BBHHHH")
"""flags, kind of segmentation, header octets, segment octets, where the checksum begins, where it goes from there."""

NEEDS_CHECKSUM = 1
BLOCK_OCTETS = 131_072
SMALL_OCTETS = 1_900
"""Frames up to this length fit a slot of the small ring."""

_HEAD = struct.Struct("<IIIHHIIHH4xHHi")
_USER, _VLAN_VALID, _TPID_VALID = 1, 16, 64
_DOT1Q = 0x8100

Frame = tuple[int, int, int, bytes]
"""Stamp in ns (real time), interface index, octets on the wire, virtio header and frame."""


class Ring:
    """A packet socket on every interface of the namespace that the calling thread is in.

    `small` takes the frames up to SMALL_OCTETS, the other ring the longer ones.  What finds no free slot is dropped
    by the kernel and counted by `drops`.
    """

    def __init__(self, *, small: bool) -> None:
        slot_octets, blocks = (2_048, 64) if small else (BLOCK_OCTETS, 128)
        self._slot_octets = slot_octets
        self._slots = blocks * BLOCK_OCTETS // slot_octets
        self._next = 0
        # protocol 0: nothing arrives before the filter and the ring are in place
        self.line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self.line.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        self.line.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self._take_only(small=small)
        request = struct.pack("IIII", BLOCK_OCTETS, blocks, slot_octets, self._slots)
        self.line.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        self._memory = mmap.mmap(self.line.fileno(), blocks * BLOCK_OCTETS)
        bind(self.line, 0, ETH_P_ALL)
        self._dropped = 0

    def take(self, most: int) -> list[Frame]:
        """The frames that have arrived, oldest first, and their slots given back."""
        memory, unpack, slot_octets = self._memory, _HEAD.unpack_from, self._slot_octets
        taken: list[Frame] = []
        at = self._next * slot_octets
        end = self._slots * slot_octets
        for _ in range(most):
            status, octets, kept, mac, _, seconds, ns, tag, kind, _, _, index = unpack(memory, at)
            if not status & _USER:
                break
            if kept == octets:
                frame = memory[at + mac - VNET_OCTETS : at + mac + kept]
                if status & _VLAN_VALID:
                    frame = _tagged(frame, kind if status & _TPID_VALID else _DOT1Q, tag)
                    octets += 4
                taken.append((seconds * 1_000_000_000 + ns, index, octets, frame))
            else:
                self._dropped += 1
            memory[at : at + 4] = b"\0\0\0\0"
            at += slot_octets
            if at == end:
                at = 0
        self._next = at // slot_octets
        return taken

    def drops(self) -> int:
        """Frames that found no room, or too little, since the last time this was asked."""
        raw = self.line.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        dropped, self._dropped = self._dropped, 0
        return int(struct.unpack("II", raw)[1]) + dropped

    def _take_only(self, *, small: bool) -> None:
        program = struct.pack(
            "HBBIHBBIHBBIHBBI",
            *(0x80, 0, 0, 0),  # A = length of the frame
            *(0x25, 0, 1, SMALL_OCTETS),  # longer?
            *(0x06, 0, 0, 0 if small else 0x40000),
            *(0x06, 0, 0, 0x40000 if small else 0),
        )
        held = ctypes.create_string_buffer(program, len(program))
        attached = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
        self.line.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)


def opened_transmitter(index: int) -> socket.socket:
    """A socket that puts frames on an interface of the calling thread's namespace past its queues and hooks."""
    line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    line.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    line.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
    bind(line, index, 0)
    line.setblocking(False)
    return line


def bind(line: socket.socket, index: int, protocol: int) -> None:
    """Bind a packet socket by interface number (0: every one), which `socket.bind` cannot; raises OSError."""
    address = struct.pack("HHiHBB8s", socket.AF_PACKET, socket.htons(protocol), index, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(line.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bind a packet socket to interface {index}")


def turned(frame: bytes, bit: int) -> bytes:
    """The frame with one bit turned; a checksum that the kernel still owed is put in first.

    Otherwise the receiver would take the damaged octets for good.  A super-frame is given back as it is.
    """
    flags, segmentation, *_, start, offset = VNET.unpack_from(frame)
    if segmentation:
        return frame
    octets = bytearray(frame)
    if flags & NEEDS_CHECKSUM:
        begin = VNET_OCTETS + start
        words = octets[begin:] + bytes((len(octets) - begin) % 2)
        total = sum(struct.unpack(f">{len(words) // 2}H", words))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into(">H", octets, begin + offset, (~total & 0xFFFF) or 0xFFFF)
        octets[:VNET_OCTETS] = bytes(VNET_OCTETS)
    octets[VNET_OCTETS + bit // 8] ^= 1 << bit % 8
    return bytes(octets)


def _tagged(frame: bytes, kind: int, tag: int) -> bytes:
    """The frame with the VLAN tag that the kernel keeps beside it."""
    flags, segmentation, header, segment, start, offset = VNET.unpack_from(frame)
    if flags & NEEDS_CHECKSUM:
        start += 4
    head = VNET.pack(flags, segmentation, header + 4 if header else 0, segment, start, offset)
    addresses = frame[VNET_OCTETS : VNET_OCTETS + 12]
    return head + addresses + struct.pack(">HH", kind, tag) + frame[VNET_OCTETS + 12 :]
