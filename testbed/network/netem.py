"""The kernel's netem in its own words: what is asked of it, octet by octet, and what it says it does.

It knows no link and no queue below it.  Every setting is always said, zeros too: what a change leaves out the kernel
would keep.  Numbers are those of linux/pkt_sched.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from topologies.model import Impairment

REORDER, CORRUPT, LATENCY64, JITTER64, PRNG_SEED = 3, 4, 10, 11, 14
PACKETS = 100_000
"""netem holds a packet for each in flight: too few would be loss that nobody asked for."""

_PARAMETERS = struct.Struct("=IIIIII")
_ATTRIBUTE = struct.Struct("=HH")
WHOLE = 2**32 - 1


def share(ratio: float) -> int:
    """A ratio as netem counts it, in parts of 2^32 - 1."""
    return int(WHOLE * ratio)


@dataclass(frozen=True, slots=True)
class Netem:
    """Delay and its variation in ns, chances in parts of 2^32 - 1."""

    delay_ns: int = 0
    pdv_ns: int = 0
    loss: int = 0
    duplicate: int = 0
    reorder: int = 0
    corrupt: int = 0

    @classmethod
    def of(cls, impairment: Impairment) -> Netem:
        """What of an impairment is netem's."""
        return cls(
            impairment.delay_ns,
            impairment.pdv_ns,
            share(impairment.loss_ratio),
            share(impairment.duplicate_ratio),
            share(impairment.reorder_ratio),
            share(impairment.corrupt_ratio),
        )

    @classmethod
    def read(cls, options: bytes, attributes: Mapping[int, bytes]) -> Netem:
        """From what the kernel says of one: its fixed part and its attributes."""
        _, _, loss, _, duplicate, _ = _PARAMETERS.unpack_from(options)
        return cls(
            _signed(attributes.get(LATENCY64, bytes(8))),
            _signed(attributes.get(JITTER64, bytes(8))),
            loss,
            duplicate,
            _chance(attributes.get(REORDER, bytes(8))),
            _chance(attributes.get(CORRUPT, bytes(8))),
        )

    @staticmethod
    def fixed_octets() -> int:
        """How long the fixed part is; the attributes follow it."""
        return _PARAMETERS.size

    def options(self, seed: int) -> bytes:
        """The request; kernels before 6.7 leave the seed out of what they take."""
        fixed = _PARAMETERS.pack(0, PACKETS, self.loss, 1 if self.reorder else 0, self.duplicate, 0)
        return (
            fixed
            + _attribute(LATENCY64, struct.pack("=q", self.delay_ns))
            + _attribute(JITTER64, struct.pack("=q", self.pdv_ns))
            + _attribute(REORDER, struct.pack("=II", self.reorder, 0))
            + _attribute(CORRUPT, struct.pack("=II", self.corrupt, 0))
            + _attribute(PRNG_SEED, struct.pack("=Q", seed))
        )


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value


def _signed(value: bytes) -> int:
    return int(struct.unpack("=q", value)[0])


def _chance(value: bytes) -> int:
    return int(struct.unpack_from("=I", value)[0])
