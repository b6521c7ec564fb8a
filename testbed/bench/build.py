"""How quickly a shadow is there and gone: a row of nodes with addresses, routes and rates, ours against two references.

`mininet` is stock Mininet doing the same; `floor` is the kernel's own share, namespaces and netlink alone.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testbed.bench.as_ordinary_user import as_ordinary_user
from testbed.bench.chain import chain
from testbed.bench.floor import floor_seconds
from testbed.bench.result import BenchResult, Reference
from testbed.bench.stock_mininet import stock_mininet
from testbed.devices.registry import known_devices
from testbed.sandbox import Sandbox
from testbed.shadow import built

REPEATS = 3


@dataclass(frozen=True, slots=True)
class Spans:
    """Seconds to build a shadow, to take it down, and until its sandbox was gone."""

    build_s: float
    teardown_s: float
    gone_s: float


def bench_build(nodes: int, small: int = 100, large: int = 1000) -> BenchResult:
    """Build and take down rows of nodes, each in a sandbox of its own, ours and the floor in turn; medians.

    A row of `large` nodes is held against one of `small`, to see what size itself costs.
    """
    floors, ours, rootless = [], [], []
    for _ in range(REPEATS):
        floors.append(floor_seconds(nodes))
        ours.append(our_spans(nodes))
        if os.geteuid() == 0:
            rootless.append(as_ordinary_user(lambda: our_spans(nodes)))
    stock = stock_mininet(nodes)
    build_s, floor_s = _median(s.build_s for s in ours), statistics.median(floors)
    small_s, large_s = (_median(our_spans(size).build_s for _ in range(REPEATS)) for size in (small, large))
    figures = {
        "nodes": float(nodes),
        "build_s": build_s,
        "teardown_s": _median(s.teardown_s + s.gone_s for s in ours),
        f"nodes_{small}_s": small_s,
        f"nodes_{large}_s": large_s,
        f"nodes_{large}_over_{small}": large_s / small_s,
    }
    if rootless:
        rootless_s = _median(s.build_s for s in rootless)
        figures |= {"rootless_build_s": rootless_s, "rootless_over_root": rootless_s / build_s}
    return BenchResult(
        "build",
        {key: round(value, 4) for key, value in figures.items()},
        {
            "mininet": Reference(round(stock.build_s, 4), "s", round(stock.build_s / build_s, 3)),
            "floor": Reference(round(floor_s, 4), "s", round(floor_s / build_s, 3)),
        },
    )


def our_spans(nodes: int) -> Spans:
    """Build the row once and take it down."""
    topology, devices = chain(nodes), known_devices()

    def job() -> tuple[float, float, float]:
        with tempfile.TemporaryDirectory() as logs:
            started = time.monotonic()
            with built(topology, devices, Path(logs)):
                ready = time.monotonic()
            return started, ready, time.monotonic()

    started, ready, down = Sandbox("build").call(job)
    return Spans(ready - started, down - ready, time.monotonic() - down)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
