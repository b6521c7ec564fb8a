"""Rate limits for interfaces that have none yet, all of a namespace at once; read back.

What a build does hundreds of times.  It knows no other impairment and no interface that has a queue already.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from testbed.errors import Unsupported
from testbed.network.link import Port
from testbed.network.namespace import Namespace
from testbed.network.qdisc import BUCKET, ROOT, TokenBucket, refuse_impossible_rate
from testbed.network.rtnl import GET_QDISC, TCA_KIND, TCA_OPTIONS, TCA_TBF_PARMS, Batch, attributes, dump
from topologies.model import Impairment

_PARAMETERS = struct.Struct("=8xI12xI")
"""struct tc_tbf_qopt as far as it is read back: octets a second, and the limit in octets."""


def is_rate_only(impairment: Impairment) -> bool:
    """Whether a token bucket is all that is asked for."""
    return impairment.rate_bps is not None and impairment == Impairment(
        rate_bps=impairment.rate_bps, queue_octets=impairment.queue_octets
    )


def limit_rates(wanted: Sequence[tuple[Port, Impairment]]) -> None:
    """Give each of these new interfaces a tbf; raises Unsupported when the kernel refuses one or takes another."""
    by_namespace: dict[int, tuple[Namespace, dict[int, TokenBucket]]] = {}
    for port, impairment in wanted:
        refuse_impossible_rate(port, impairment)
        _namespace, buckets = by_namespace.setdefault(port.namespace.net_fd, (port.namespace, {}))
        buckets[port.index] = TokenBucket.of(impairment)
    for namespace, buckets in by_namespace.values():
        _limit(namespace, buckets)


def _limit(namespace: Namespace, buckets: Mapping[int, TokenBucket]) -> None:
    batch = Batch()
    for index, bucket in buckets.items():
        batch.queue("tbf", index, BUCKET, ROOT, bucket.options())
    try:
        batch.send(namespace.line)
    except OSError as refusal:
        raise Unsupported(f"{namespace.name} refused the {refusal.strerror}", "use a kernel with sch_tbf") from None
    taken = {
        answer.fields[1]: _PARAMETERS.unpack_from(attributes(answer.attributes[TCA_OPTIONS])[TCA_TBF_PARMS])
        for answer in dump(namespace.line, GET_QDISC)
        if answer.attributes.get(TCA_KIND) == b"tbf\0"
    }
    for index, bucket in buckets.items():
        asked = (bucket.rate_octets_per_second, bucket.limit_octets)
        if taken.get(index) != asked:
            raise Unsupported(f"{namespace.name}: interface {index} took {taken.get(index)}, not {asked}", "")
