"""The one door to impairments: which engine acts on this kernel, and what each direction runs.

It decides by probing, never by the kernel's version.  A pure rate is a token bucket on every kernel; what else is
asked for is netem's where the kernel has it, and the delay line's where not.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import TracebackType
from typing import Self

from testbed.errors import Unsupported
from testbed.network import qdisc
from testbed.network.delay_line.fate import chance
from testbed.network.delay_line.line import DelayLine, Key, LineReport
from testbed.network.link import Port
from testbed.network.namespace import on_a_thread
from testbed.network.netem import Netem
from testbed.network.rtnl import LOOPBACK, Batch, opened
from testbed.sandbox import CLONE_NEWNET, unshare
from topologies.model import Impairment

__all__ = ["Engine", "Impairer", "LineReport", "has_netem"]


class Engine(Enum):
    """What acts on delay, PDV, loss, duplication, reordering and corruption."""

    AUTO = "auto"
    NETEM = "netem"
    DELAY_LINE = "delay line"


class Impairer:
    """Owner of every impairment of a shadow: `apply` brings a direction from any state to any other, in place.

    The seed makes chance repeatable: every direction has sequences of its own from it.  Netem takes a seed since
    Linux 6.7; the report tells.  Leaving the block takes away everything that was applied.  The thread that first
    applies what the delay line does must outlive the shadow.  Raises Unsupported when `engine` is NETEM and this
    kernel has none.
    """

    def __init__(self, engine: Engine = Engine.AUTO, seed: int = 0) -> None:
        if engine is Engine.AUTO:
            engine = Engine.NETEM if has_netem() else Engine.DELAY_LINE
        elif engine is Engine.NETEM and not has_netem():
            raise Unsupported("this kernel has no netem", "let the engine be chosen, or use a kernel with sch_netem")
        self._engine = engine
        self._seed = seed
        self._line = DelayLine(seed)
        self._queues: dict[Key, tuple[Port, Impairment]] = {}
        self._seeded: dict[Key, bool] = {}

    @property
    def engine(self) -> str:
        """The engine that acts, by name."""
        return self._engine.value

    @property
    def line_pid(self) -> int:
        """The process id of the delay line, 0 while nothing needs it."""
        return self._line.pid

    def apply(self, port: Port, impairment: Impairment) -> None:
        """Have what leaves `port` meet this impairment and no other; idempotent, and packets keep flowing.

        Nothing at all removes every trace, once what is on the way has arrived.  Raises Unsupported when the kernel
        cannot do it or did not take it as asked.
        """
        key = (port.namespace.name, port.name)
        qdisc.refuse_impossible_rate(port, impairment)
        if impairment.reorder_ratio and not impairment.delay_ns:
            raise Unsupported(f"{key[0]}:{key[1]} asks for reordering without a delay", "give a delay to be skipped")
        if self._engine is Engine.NETEM or Netem.of(impairment) == qdisc.NO_NETEM:
            if key in self._line:
                self._line.remove(port)
            self._seeded[key] = qdisc.impair(port, impairment, self._seed_of(key))
            self._queues[key] = (port, impairment)
            return
        self._line.apply(port, impairment)
        # what still waits in a token bucket leaves before it goes
        qdisc.impair(port, Impairment())
        self._queues.pop(key, None)

    def reports(self) -> Mapping[Key, LineReport]:
        """(node, interface) to what an engine did there since the last report; bare token buckets are left out."""
        netem = {
            key: LineReport(Engine.NETEM.value, seeded=self._seeded[key])
            for key, (_, impairment) in self._queues.items()
            if Netem.of(impairment) != qdisc.NO_NETEM
        }
        return {**netem, **self._line.reports()}

    def forget(self) -> None:
        """Begin every sequence of chance anew, so that windows meet the same fates."""
        self._line.restart()
        for key, (port, impairment) in self._queues.items():
            if self._seeded[key] and Netem.of(impairment) != qdisc.NO_NETEM:
                qdisc.impair(port, impairment, self._seed_of(key))

    def abandon(self) -> None:
        """End the delay line's process and leave the rest to namespaces that are about to end."""
        self._line.abandon()
        self._queues.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.close()
        for port, _ in self._queues.values():
            try:
                qdisc.remove(port)
            except (LookupError, OSError):  # an interface that is gone took its queue along
                continue
        self._queues.clear()

    def _seed_of(self, key: Key) -> int:
        return chance(self._seed, *key, "netem").getrandbits(64)


@cache
def has_netem() -> bool:
    """Whether this kernel has netem: asked by making one on a loopback of its own."""

    def tried() -> bool:
        unshare(CLONE_NEWNET)
        line = opened()
        batch = Batch()
        batch.queue("netem", LOOPBACK, qdisc.NETEM, qdisc.ROOT, Netem(delay_ns=1_000_000).options(1))
        try:
            batch.send(line)
        except OSError:
            return False
        else:
            return True
        finally:
            line.close()

    return on_a_thread(tried)
