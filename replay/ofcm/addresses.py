"""Addresses as numbers in columns, both families side by side. Knows no flow and no class."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Network = IPv4Network | IPv6Network

BITS = {4: 32, 6: 128}
_WORD = 64


@dataclass(frozen=True, slots=True)
class Addresses:
    """An address a row: its family (4 or 6) and 128 bits, most significant first; IPv4 fills the first 32."""

    family: Int64
    high: UInt64
    low: UInt64

    def __len__(self) -> int:
        return len(self.family)

    def __getitem__(self, rows: Int64 | Bool | slice) -> Addresses:
        return Addresses(self.family[rows], self.high[rows], self.low[rows])

    def cut(self, length: Int64) -> Addresses:
        """The same with every bit behind its prefix length cleared."""
        in_high, in_low = np.clip(length, 0, _WORD), np.clip(length - _WORD, 0, _WORD)
        return Addresses(self.family, self.high & _ones(in_high), self.low & _ones(in_low))

    def texts(self) -> list[str]:
        """Written as RFC 5952 has it."""
        words = np.stack([self.high, self.low], axis=1).astype(">u8")
        return [
            socket.inet_ntop(socket.AF_INET, word.tobytes()[:4])
            if family == 4
            else socket.inet_ntop(socket.AF_INET6, word.tobytes())
            for family, word in zip(self.family.tolist(), words, strict=True)
        ]

    def inside(self, network: Network) -> Bool:
        """Which of them lie in a network."""
        one = parsed([str(network.network_address)])
        length = np.full(len(self), network.prefixlen, np.int64)
        cut = self.cut(length)
        same: Bool = (cut.family == one.family[0]) & (cut.high == one.high[0]) & (cut.low == one.low[0])
        return same


def parsed(texts: Sequence[str]) -> Addresses:
    """Addresses from text; one loop step a text, so give it distinct ones. Raises ValueError naming a wrong one."""
    raw = bytearray()
    family = np.empty(len(texts), np.int64)
    for row, text in enumerate(texts):
        family[row] = 6 if ":" in text else 4
        try:
            octets = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
        except (OSError, ValueError):
            raise ValueError(f"{text!r} is no IP address") from None
        raw += octets.ljust(16, b"\0")
    words = np.frombuffer(bytes(raw), ">u8").reshape(-1, 2).astype(np.uint64)
    return Addresses(family, words[:, 0], words[:, 1])


def common_bits(left: Addresses, right: Addresses) -> Int64:
    """How many leading bits a row of each has in common (at most 128), whatever the families."""
    high, low = left.high ^ right.high, left.low ^ right.low
    return np.where(high != 0, _leading_zeros(high), _WORD + _leading_zeros(low))


def _leading_zeros(words: UInt64) -> Int64:
    upper, lower = words >> np.uint64(32), words & np.uint64(0xFFFFFFFF)
    # a float64 holds 32 bits exactly, so the exponent is the number of bits in use
    used = np.where(upper != 0, 32 + np.frexp(upper.astype(np.float64))[1], np.frexp(lower.astype(np.float64))[1])
    return _WORD - used.astype(np.int64)


def _ones(count: Int64) -> UInt64:
    shift = np.clip(_WORD - count, 0, _WORD - 1).astype(np.uint64)
    full = np.uint64(0xFFFFFFFFFFFFFFFF)
    return np.where(count == 0, np.uint64(0), full << shift)
