"""What one direction of a link does to packets: a token bucket, or netem with a token bucket below it.

Every setting is read back from the kernel.  A kernel that cannot do what is asked is refused; no
link is ever left silently without its impairment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.tcmsg.common import percent2u32, time2tick

from testbed.errors import Unsupported
from testbed.network.link import Port
from topologies.model import Impairment

BUCKET, CHILD_BUCKET, NETEM, BELOW_NETEM = 0x10000, 0x20000, 0x30000, 0x30001
"""Handles, one a kind: the kernel does not let one handle change its kind."""

QUEUE_SECONDS = 0.05
"""Depth of a rate-limited queue where none is given: 50 ms at the rate, at least 32 full frames."""

NETEM_PACKETS = 100_000
"""netem holds a packet for each in flight: too few would be loss that nobody asked for."""


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


@dataclass(frozen=True, slots=True)
class Netem:
    """The parameters of a netem in the kernel's own units: ticks, and shares of 2^32."""

    delay_ticks: int
    jitter_ticks: int
    loss: int
    duplicate: int
    reorder: int
    corrupt: int

    @classmethod
    def of(cls, impairment: Impairment) -> Netem:
        """Delay and its variation to the microsecond, ratios to one in four thousand million."""
        return cls(
            int(time2tick(impairment.delay_ns // 1_000)),
            int(time2tick(impairment.pdv_ns // 1_000)),
            *(
                percent2u32(100 * ratio)
                for ratio in (
                    impairment.loss_ratio,
                    impairment.duplicate_ratio,
                    impairment.reorder_ratio,
                    impairment.corrupt_ratio,
                )
            ),
        )

    def differs_from_nothing(self) -> bool:
        """Whether a netem is needed at all."""
        return self != Netem(0, 0, 0, 0, 0, 0)


def impair(port: Port, impairment: Impairment) -> None:
    """Give what leaves `port` this rate, delay, variation, loss, duplication, reordering and corruption, in place.

    A kind of queue that is there already is changed, not replaced, so packets in it stay.  Raises
    Unsupported when this kernel lacks what is asked for, or did not take it as asked.
    """
    if impairment.rate_bps is not None and not 8 <= impairment.rate_bps < 8 * 2**32:
        raise Unsupported(
            f"{port.namespace.name}:{port.name} asks for {impairment.rate_bps} bit/s",
            "give a rate from 8 bit/s to 34 Gbit/s, or none",
        )
    netem = Netem.of(impairment)
    if netem.differs_from_nothing():
        before = _present(port)[1]
        if (before.reorder and not netem.reorder) or (before.corrupt and not netem.corrupt):
            # a change leaves out what is zero, and the kernel keeps what is left out
            port.namespace.netlink.tc("del", index=port.index, handle=NETEM, root=True)
        _ask(port, impairment, "netem", NETEM, _netem_arguments(impairment))
        if impairment.rate_bps is not None:
            _ask(port, impairment, "tbf", CHILD_BUCKET, _bucket_arguments(impairment))
        elif CHILD_BUCKET in _ours(port):
            port.namespace.netlink.tc("del", index=port.index, handle=CHILD_BUCKET, parent=BELOW_NETEM)
    elif impairment.rate_bps is not None:
        _ask(port, impairment, "tbf", BUCKET, _bucket_arguments(impairment))
    else:
        for handle in _ours(port) & {BUCKET, NETEM}:
            port.namespace.netlink.tc("del", index=port.index, handle=handle, root=True)
    _read_back(port, impairment)


def _ask(port: Port, impairment: Impairment, kind: str, handle: int, arguments: dict[str, Any]) -> None:
    where = {"parent": BELOW_NETEM} if handle == CHILD_BUCKET else {}
    verb = "change" if handle in _ours(port) else "replace"
    try:
        port.namespace.netlink.tc(verb, kind, port.index, handle, **where, **arguments)
    except NetlinkError as refusal:
        raise Unsupported(
            f"{port.namespace.name}:{port.name} asks for {impairment}, and this kernel has no {kind} ({refusal})",
            "use rate limits only" if kind == "netem" else "use a kernel with sch_tbf",
        ) from None


def _netem_arguments(impairment: Impairment) -> dict[str, Any]:
    return {
        "delay": impairment.delay_ns // 1_000,
        "jitter": impairment.pdv_ns // 1_000,
        "loss": 100 * impairment.loss_ratio,
        "duplicate": 100 * impairment.duplicate_ratio,
        "prob_reorder": 100 * impairment.reorder_ratio,
        "prob_corrupt": 100 * impairment.corrupt_ratio,
        "limit": NETEM_PACKETS,
    }


def _bucket_arguments(impairment: Impairment) -> dict[str, Any]:
    bucket = TokenBucket.of(impairment)
    return {"rate": bucket.rate_octets_per_second, "burst": bucket.burst_octets, "limit": bucket.limit_octets}


def _ours(port: Port) -> set[int]:
    """Handles of the queues that are ours on this port."""
    return {q["handle"] for q in port.namespace.netlink.get_qdiscs(port.index)} & {BUCKET, CHILD_BUCKET, NETEM}


def _present(port: Port) -> tuple[int | None, Netem]:
    """The rate in octets per second and the netem that the kernel has on this port."""
    rate, netem = None, Netem(0, 0, 0, 0, 0, 0)
    for qdisc in port.namespace.netlink.get_qdiscs(port.index):
        options = qdisc.get_attr("TCA_OPTIONS")
        if qdisc["handle"] in (BUCKET, CHILD_BUCKET):
            rate = int(options.get_attr("TCA_TBF_PARMS")["rate"])
        elif qdisc["handle"] == NETEM:
            reorder, corrupt = options.get_attr("TCA_NETEM_REORDER"), options.get_attr("TCA_NETEM_CORRUPT")
            netem = Netem(
                options["delay"],
                options["jitter"],
                options["loss"],
                options["duplicate"],
                reorder["prob_reorder"] if reorder else 0,
                corrupt["prob_corrupt"] if corrupt else 0,
            )
    return rate, netem


def _read_back(port: Port, impairment: Impairment) -> None:
    rate = None if impairment.rate_bps is None else TokenBucket.of(impairment).rate_octets_per_second
    wanted, present = (rate, Netem.of(impairment)), _present(port)
    if present != wanted:
        raise Unsupported(f"{port.namespace.name}:{port.name} took {present}, not {wanted}", "use another impairment")
