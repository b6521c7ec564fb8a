"""Checksums of the Internet: the ones' complement sum, its incremental update, and SCTP's CRC. Pure.

References: RFC 1071, RFC 1624 (equation 3), RFC 9260 appendix A.
"""

from __future__ import annotations

_CRC32C_POLYNOMIAL = 0x82F63B78


def internet_checksum(octets: bytes) -> int:
    """The ones' complement of the ones' complement sum of 16-bit words."""
    if len(octets) % 2:
        octets += b"\0"
    # 2**16 is 1 modulo 2**16 - 1, so the sum of the words is the number itself; only "all zero" sums to zero
    remainder = int.from_bytes(octets, "big") % 0xFFFF
    total = remainder or (0xFFFF if any(octets) else 0)
    return 0xFFFF - total


def updated(checksum: int, before: int, after: int) -> int:
    """The checksum when one 16-bit word it covers changes, so that a wrong one stays exactly as wrong."""
    total = (0xFFFF - checksum) + (0xFFFF - before) + after
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def crc32c(octets: bytes) -> int:
    """Castagnoli's CRC, as SCTP has it in the byte order of its header's little end."""
    value = 0xFFFFFFFF
    for octet in octets:
        value = _CRC32C[(value ^ octet) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    entries = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (_CRC32C_POLYNOMIAL if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_CRC32C = _table()
