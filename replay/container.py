"""Capture files as record tables (pcap, pcapng, either inside gzip or xz): knows no packet header.

The format is decided by content. A tail that was cut off, and blocks that cannot be right, are counted by
reason and end or shorten the reading; they never raise. Formats: the IETF drafts draft-ietf-opsawg-pcap and
draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from replay.columns import Bool, Int64, UInt8
from replay.errors import InvalidCapture

EXPECTED = "a pcap or pcapng capture (plain, gzip or xz)"

_PCAP_HEADER_OCTETS = 24
_RECORD_HEADER_OCTETS = 16
_PATCHED_RECORD_HEADER_OCTETS = 24
# magic as read in big-endian order -> byte order, nanoseconds a fraction, octets of a record header
_PCAP_MAGICS: dict[int, tuple[str, int, int]] = {
    0xA1B2C3D4: (">", 1000, _RECORD_HEADER_OCTETS),
    0xD4C3B2A1: ("<", 1000, _RECORD_HEADER_OCTETS),
    0xA1B23C4D: (">", 1, _RECORD_HEADER_OCTETS),
    0x4D3CB2A1: ("<", 1, _RECORD_HEADER_OCTETS),
    0xA1B2CD34: (">", 1000, _PATCHED_RECORD_HEADER_OCTETS),
    0x34CDB2A1: ("<", 1000, _PATCHED_RECORD_HEADER_OCTETS),
}
_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE, _OBSOLETE_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
_TIME_RESOLUTION_OPTION, _TIME_OFFSET_OPTION = 9, 14
_LATEST_S = (1 << 62) // 1_000_000_000
_LARGEST_UNPACKED_OCTETS = 4 << 30
_UNPACK_STEP_OCTETS = 1 << 20


@dataclass(frozen=True, slots=True)
class Records:
    """Where each captured packet lies in `data`, how much was kept, its length on the wire, when it passed."""

    data: UInt8
    offset: Int64
    captured: Int64
    wire: Int64
    time_ns: Int64
    link_type: Int64

    def __len__(self) -> int:
        return len(self.offset)

    def taken(self, chosen: Int64) -> Records:
        """The chosen records in the chosen order, over the same data."""
        return Records(
            self.data,
            self.offset[chosen],
            self.captured[chosen],
            self.wire[chosen],
            self.time_ns[chosen],
            self.link_type[chosen],
        )


def read_records(path: Path) -> tuple[Records, Counter[str]]:
    """Read one capture file's record table, with the number of records left out by reason.

    Raises InvalidCapture when the file cannot be read or is neither pcap nor pcapng.
    """
    skipped: Counter[str] = Counter()
    data = _content(path, skipped)
    if not len(data):
        raise InvalidCapture(path, "an empty file", EXPECTED)
    magic = int.from_bytes(data[:4].tobytes(), "big")
    if magic == _SECTION_HEADER and len(data) >= 12:
        return _pcapng_records(data, skipped), skipped
    if magic in _PCAP_MAGICS and len(data) >= _PCAP_HEADER_OCTETS:
        return _pcap_records(data, *_PCAP_MAGICS[magic], skipped), skipped
    if magic in _PCAP_MAGICS or magic == _SECTION_HEADER:
        raise InvalidCapture(path, f"a file header cut off after {len(data)} octets", EXPECTED)
    raise InvalidCapture(path, f"a file that begins with {data[:8].tobytes()!r}", EXPECTED)


def _content(path: Path, skipped: Counter[str]) -> UInt8:
    try:
        data = np.fromfile(path, dtype=np.uint8) if path.is_file() else np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise InvalidCapture(path, (error.strerror or str(error)).lower(), EXPECTED) from error
    head = data[:6].tobytes()
    if head[:3] == b"\x1f\x8b\x08":
        with gzip.GzipFile(fileobj=io.BytesIO(data.tobytes())) as packed:
            return _unpacked(path, packed, skipped)
    if head == b"\xfd7zXZ\x00":
        with lzma.LZMAFile(io.BytesIO(data.tobytes())) as packed:
            return _unpacked(path, packed, skipped)
    return data


def _unpacked(path: Path, packed: gzip.GzipFile | lzma.LZMAFile, skipped: Counter[str]) -> UInt8:
    unpacked = bytearray()
    try:
        while piece := packed.read1(_UNPACK_STEP_OCTETS):
            unpacked += piece
            if len(unpacked) > _LARGEST_UNPACKED_OCTETS:
                raise InvalidCapture(path, f"more than {_LARGEST_UNPACKED_OCTETS} octets inside", EXPECTED)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        if not unpacked:
            raise InvalidCapture(path, f"compressed data that cannot be unpacked ({error})", EXPECTED) from error
        skipped["truncated_compression"] += 1
    return np.frombuffer(unpacked, dtype=np.uint8)


def _pcap_records(data: UInt8, order: str, fraction_ns: int, header_octets: int, skipped: Counter[str]) -> Records:
    link_type = int.from_bytes(data[20:24].tobytes(), "little" if order == "<" else "big") & 0xFFFF
    at = _pcap_offsets(data, order, header_octets, skipped)
    fields = _words(data, at, 4, order)
    time_ns = fields[:, 0] * 1_000_000_000 + fields[:, 1] * fraction_ns
    return Records(data, at + header_octets, fields[:, 2], fields[:, 3], time_ns, np.full(len(at), link_type, np.int64))


def _pcap_offsets(data: UInt8, order: str, header_octets: int, skipped: Counter[str]) -> Int64:
    captured_field = struct.Struct(f"{order}8xI").unpack_from
    view = memoryview(data.data)
    offsets: list[int] = []
    at, end = _PCAP_HEADER_OCTETS, len(view)
    while at + header_octets <= end:
        following = at + header_octets + captured_field(view, at)[0]
        if following > end:
            break
        offsets.append(at)
        at = following
    if at != end:
        skipped["truncated_record"] += 1
    return np.array(offsets, dtype=np.int64)


def _words(data: UInt8, at: Int64, count: int, order: str) -> Int64:
    octets = data[at[:, None] + np.arange(4 * count)]
    words: Int64 = octets.view(f"{order}u4").astype(np.int64).reshape(len(at), count)
    return words


@dataclass(slots=True)
class _Interface:
    link_type: int
    resolution: int = 6
    offset_s: int = 0

    def times_ns(self, ticks: npt.NDArray[np.uint64]) -> tuple[Int64, Bool]:
        """Interface ticks as ns since 1970, and which of them are times at all."""
        exponent = self.resolution & 0x7F
        if self.resolution & 0x80:
            shift = np.uint64(min(exponent, 63))
            seconds = ticks >> shift
            fraction = ticks - (seconds << shift)
            kept = min(exponent, 32)
            nanoseconds = ((fraction >> np.uint64(min(exponent, 63) - kept)) * np.uint64(10**9)) >> np.uint64(kept)
        else:
            per_second = np.uint64(10 ** min(exponent, 19))
            seconds, fraction = ticks // per_second, ticks % per_second
            coarser, finer = 10 ** max(exponent - 9, 0), 10 ** max(9 - exponent, 0)
            nanoseconds = fraction // np.uint64(min(coarser, 1 << 63)) * np.uint64(finer)
        possible = seconds < np.uint64(_LATEST_S)
        whole = np.where(possible, seconds, np.uint64(0)).astype(np.int64) + self.offset_s
        possible &= (whole >= 0) & (whole < _LATEST_S)
        return np.where(possible, whole, 0) * 1_000_000_000 + nanoseconds.astype(np.int64), possible


@dataclass(slots=True)
class _Section:
    order: str
    interfaces: list[_Interface]
    enhanced: list[int]
    obsolete: list[int]


def _pcapng_records(data: UInt8, skipped: Counter[str]) -> Records:
    parts = [_packets(data, section, skipped) for section in _sections(memoryview(data.data), skipped)]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.empty(0, np.int64)] * 5
    return Records(data, *columns)


def _sections(view: memoryview, skipped: Counter[str]) -> list[_Section]:
    sections: list[_Section] = []
    at, end, order = 0, len(view), "<"
    while at + 12 <= end:
        if bytes(view[at : at + 4]) == b"\x0a\x0d\x0d\x0a":
            order = ">" if bytes(view[at + 8 : at + 12]) == b"\x1a\x2b\x3c\x4d" else "<"
            sections.append(_Section(order, [], [], []))
        kind, length = struct.unpack_from(f"{order}II", view, at)
        if length < 12 or length % 4 or at + length > end:
            break
        section = sections[-1]
        if kind == _INTERFACE and length >= 20:
            section.interfaces.append(_interface(view[at + 8 : at + length - 4], order))
        elif kind == _ENHANCED_PACKET and length >= 32:
            section.enhanced.append(at)
        elif kind == _OBSOLETE_PACKET and length >= 32:
            section.obsolete.append(at)
        elif kind == _SIMPLE_PACKET:
            skipped["no_timestamp"] += 1
        at += length
    if at != end:
        skipped["truncated_record"] += 1
    return sections


def _interface(body: memoryview, order: str) -> _Interface:
    interface = _Interface(struct.unpack_from(f"{order}H", body)[0])
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        value = bytes(body[at + 4 : at + 4 + length])
        if code == 0:
            break
        if code == _TIME_RESOLUTION_OPTION and len(value) >= 1:
            interface.resolution = value[0]
        elif code == _TIME_OFFSET_OPTION and len(value) >= 8:
            seconds = struct.unpack_from(f"{order}q", value)[0]
            interface.offset_s = max(-_LATEST_S, min(seconds, _LATEST_S))
        at += 4 + length + -length % 4
    return interface


def _packets(data: UInt8, section: _Section, skipped: Counter[str]) -> tuple[Int64, Int64, Int64, Int64, Int64]:
    at = np.array(sorted(section.enhanced + section.obsolete), dtype=np.int64)
    words = _words(data, at, 7, section.order)
    interface = words[:, 2]
    obsolete = np.isin(at, section.obsolete)
    interface[obsolete] = interface[obsolete] >> 16 if section.order == ">" else interface[obsolete] & 0xFFFF
    ticks = (words[:, 3].astype(np.uint64) << np.uint64(32)) | words[:, 4].astype(np.uint64)
    captured, wire = words[:, 5], words[:, 6]
    known = interface < len(section.interfaces)
    inside = captured <= words[:, 1] - 32
    time_ns, link_type = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    possible = np.ones(len(at), np.bool_)
    for number, description in enumerate(section.interfaces):
        mine = np.flatnonzero(interface == number)
        time_ns[mine], possible[mine] = description.times_ns(ticks[mine])
        link_type[mine] = description.link_type
    for reason, bad in (
        ("unknown_interface", ~known),
        ("damaged_record", known & ~inside),
        ("impossible_time", known & inside & ~possible),
    ):
        if bad.any():
            skipped[reason] += int(bad.sum())
    kept = known & inside & possible
    return at[kept] + 28, captured[kept], wire[kept], time_ns[kept], link_type[kept]
