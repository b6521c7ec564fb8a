"""What one direction of a link does to packets in the kernel: a token bucket, or netem with one below it.

Every setting is read back from the kernel.  A kernel that cannot do what is asked is refused; no
link is ever left silently without its impairment.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass

from testbed.errors import Unsupported
from testbed.network.link import Port
from testbed.network.netem import PRNG_SEED, Netem
from testbed.network.rtnl import (
    GET_QDISC,
    TCA_OPTIONS,
    TCA_TBF_BURST,
    TCA_TBF_PARMS,
    Batch,
    attributes,
    dump,
)
from topologies.model import Impairment

BUCKET, CHILD_BUCKET, NETEM, BELOW_NETEM = 0x10000, 0x20000, 0x30000, 0x30001
"""Handles, one a kind: the kernel does not let one handle change its kind."""

ROOT = 0xFFFFFFFF
QUEUE_SECONDS = 0.05
"""Depth of a rate-limited queue where none is given: 50 ms at the rate, at least 32 full frames."""

FASTEST_OCTETS_PER_SECOND = 2**32 - 1
DRAIN_SECONDS = 0.5
"""How long a queue that is about to go may still take to empty, beside its delay."""

TCA_STATS2, TCA_STATS_QUEUE = 7, 3
NO_NETEM = Netem()


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """The parameters of a tbf, whose burst is small so that the rate holds at the scale of a packet."""

    rate_octets_per_second: int
    burst_octets: int
    limit_octets: int

    @classmethod
    def of(cls, impairment: Impairment) -> TokenBucket:
        """One millisecond of burst, at least two full frames."""
        rate = (impairment.rate_bps or 0) // 8
        queue = impairment.queue_octets or max(int(rate * QUEUE_SECONDS), 32 * 1514)
        return cls(rate, max(rate // 1000, 3200), min(queue, 2**32 - 1))

    def options(self) -> bytes:
        """The request, as linux/pkt_sched.h lays it out."""
        rate = struct.pack("=BBHhHI", 0, 1, 0, 0, 0, min(self.rate_octets_per_second, FASTEST_OCTETS_PER_SECOND))
        parameters = rate + bytes(12) + struct.pack("=III", self.limit_octets, 0, 0)
        return (
            struct.pack("=HH", 4 + len(parameters), TCA_TBF_PARMS)
            + parameters
            + struct.pack("=HHI", 8, TCA_TBF_BURST, self.burst_octets)
        )


@dataclass(frozen=True, slots=True)
class Present:
    """What of ours the kernel has on a port: handles, rate and limit of the bucket, netem, its seed, packets inside."""

    handles: frozenset[int] = frozenset()
    bucket: tuple[int, int] | None = None
    netem: Netem = NO_NETEM
    seed: int | None = None
    packets: int = 0


def impair(port: Port, impairment: Impairment, seed: int = 0) -> bool:
    """Give what leaves `port` this rate, delay, variation, loss, duplication, reordering and corruption, in place.

    A kind of queue that is there already is changed, not replaced, so packets in it stay; one that goes is emptied
    first.  Tells whether netem took the seed.  Raises Unsupported when this kernel lacks what is asked for, or did
    not take it as asked.
    """
    refuse_impossible_rate(port, impairment)
    netem = Netem.of(impairment)
    before = present(port)
    batch = Batch()
    bucket = None if impairment.rate_bps is None else TokenBucket.of(impairment)
    if netem != NO_NETEM:
        if BUCKET in before.handles:
            _empty(port, before)
            batch.remove_queue(port.index, BUCKET, ROOT)
        batch.queue("netem", port.index, NETEM, ROOT, netem.options(seed))
        if bucket is not None:
            batch.queue("tbf", port.index, CHILD_BUCKET, BELOW_NETEM, bucket.options())
        elif CHILD_BUCKET in before.handles:
            batch.remove_queue(port.index, CHILD_BUCKET, BELOW_NETEM)
    else:
        if NETEM in before.handles:
            _empty(port, before)
            batch.remove_queue(port.index, NETEM, ROOT)
        if bucket is not None:
            batch.queue("tbf", port.index, BUCKET, ROOT, bucket.options())
        elif BUCKET in before.handles:
            _empty(port, before)
            batch.remove_queue(port.index, BUCKET, ROOT)
    _send(port, impairment, batch)
    after = present(port)
    wanted = (netem, bucket and (bucket.rate_octets_per_second, bucket.limit_octets))
    if (after.netem, after.bucket) != wanted:
        raise Unsupported(f"{_where(port)} took {(after.netem, after.bucket)}, not {wanted}", "use another impairment")
    return after.seed == seed


def remove(port: Port) -> None:
    """Take our queues away at once, with what is in them."""
    batch = Batch()
    for handle in present(port).handles & {BUCKET, NETEM}:
        batch.remove_queue(port.index, handle, ROOT)
    batch.send(port.namespace.line)


def refuse_impossible_rate(port: Port, impairment: Impairment) -> None:
    """Raise Unsupported for a rate that no token bucket holds."""
    if impairment.rate_bps is not None and not 8 <= impairment.rate_bps < 8 * 2**32:
        raise Unsupported(
            f"{_where(port)} asks for {impairment.rate_bps} bit/s", "give a rate from 8 bit/s to 34 Gbit/s, or none"
        )


def present(port: Port) -> Present:
    """Our queues on this port, as the kernel tells them."""
    handles, bucket, netem, seed, packets = set(), None, NO_NETEM, None, 0
    index = port.index
    for answer in dump(port.namespace.line, GET_QDISC):
        _family, number, handle, *_ = answer.fields
        if number != index or handle not in (BUCKET, CHILD_BUCKET, NETEM):
            continue
        handles.add(handle)
        packets += _packets(answer.attributes)
        options = answer.attributes[TCA_OPTIONS]
        if handle == NETEM:
            told = attributes(options[Netem.fixed_octets() :])
            netem = Netem.read(options, told)
            seed = struct.unpack("=Q", told[PRNG_SEED])[0] if PRNG_SEED in told else None
        else:
            parameters = attributes(options)[TCA_TBF_PARMS]
            bucket = struct.unpack_from("=8xI12xI", parameters)
    return Present(frozenset(handles), bucket, netem, seed, packets)


def _packets(told: Mapping[int, bytes]) -> int:
    queue = attributes(told.get(TCA_STATS2, b"")).get(TCA_STATS_QUEUE)
    return int(struct.unpack_from("=I", queue)[0]) if queue else 0


def _empty(port: Port, before: Present) -> None:
    """Let what waits in a queue leave in its time, so that its removal loses nothing."""
    batch, fast = Batch(), TokenBucket(FASTEST_OCTETS_PER_SECOND, 2**20, 2**24)
    if NETEM in before.handles:
        batch.queue("netem", port.index, NETEM, ROOT, NO_NETEM.options(0))
    if CHILD_BUCKET in before.handles:
        batch.queue("tbf", port.index, CHILD_BUCKET, BELOW_NETEM, fast.options())
    if BUCKET in before.handles:
        batch.queue("tbf", port.index, BUCKET, ROOT, fast.options())
    batch.send(port.namespace.line)
    deadline = time.monotonic() + DRAIN_SECONDS + (before.netem.delay_ns + before.netem.pdv_ns) / 1e9
    while present(port).packets and time.monotonic() < deadline:
        time.sleep(0.001)


def _send(port: Port, impairment: Impairment, batch: Batch) -> None:
    try:
        batch.send(port.namespace.line)
    except OSError as refusal:
        kind = "netem" if "netem" in str(refusal.strerror) else "tbf"
        raise Unsupported(
            f"{_where(port)} asks for {impairment}, and this kernel has no {kind} ({refusal.strerror})",
            "use rate limits only" if kind == "netem" else "use a kernel with sch_tbf",
        ) from None


def _where(port: Port) -> str:
    return f"{port.namespace.name}:{port.name}"
