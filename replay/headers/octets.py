"""Numbers in network order at many positions of one buffer at once. Knows no header."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replay.columns import Int64, UInt8, UInt16, UInt32


class Octets:
    """Reads at positions, each as wide as it is asked for; what lies beyond the buffer is nobody's and undefined.

    Each read copies whole words out of an unaligned view: one pass over the positions, whatever the width.
    """

    def __init__(self, data: UInt8) -> None:
        self.data = data

    def u1(self, at: Int64) -> UInt8:
        """One octet at each position."""
        octets: UInt8 = self.data[np.minimum(at, len(self.data) - 1)]
        return octets

    def u2(self, at: Int64) -> UInt16:
        """Two octets at each position."""
        return self._copied(at, 2).view(">u2").astype(np.uint16)

    def u4(self, at: Int64) -> UInt32:
        """Four octets at each position."""
        return self._copied(at, 4).view(">u4").astype(np.uint32)

    def words(self, at: Int64, count: int) -> npt.NDArray[Any]:
        """Rows of `count` words of four octets, still in network order, so that addresses can be copied as they are."""
        return self._copied(at, 4 * count).view(">u4").reshape(len(at), count)

    def _copied(self, at: Int64, width: int) -> npt.NDArray[Any]:
        places = len(self.data) - width + 1
        overlapping = np.ndarray((places,), f"V{width}", self.data, strides=(1,))
        return overlapping[np.minimum(at, places - 1)]
