"""Capture files for tests: written by hand, so that the reader is not tested against itself."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures"
START_S = 1_700_000_000
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
"""For every Ethernet header that scapy builds: without them it asks the machine's network who has the address."""


def stored(name: str) -> Path:
    """One of the public captures beside the repository, or a skip where they are absent."""
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


def pcap(frames, order="<", nanoseconds=False, link_type=1, snaplen=65535):
    """A pcap of (seconds since START_S, frame octets) or (seconds, frame, length on the wire)."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)]
    for moment, frame, *wire in frames:
        ns = round(moment * 1_000_000_000)
        fraction = ns % 1_000_000_000 // (1 if nanoseconds else 1000)
        kept = frame[:snaplen]
        wire_octets = wire[0] if wire else len(frame)
        out.append(struct.pack(f"{order}IIII", START_S + ns // 1_000_000_000, fraction, len(kept), wire_octets) + kept)
    return b"".join(out)


def block(kind, body, order="<"):
    """One pcapng block."""
    body += b"\0" * (-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order="<"):
    """A pcapng section header block."""
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type=1, options=b"", order="<"):
    """A pcapng interface description block."""
    return block(1, struct.pack(f"{order}HHI", link_type, 0, 0) + options, order)


def option(code, value, order="<"):
    """One pcapng option."""
    return struct.pack(f"{order}HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def enhanced(number, ticks, frame, order="<"):
    """A pcapng enhanced packet block."""
    header = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, header + frame, order)
