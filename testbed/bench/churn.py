"""Shadows made and unmade again and again, and links changed live: does anything get slower, and is anything left?

`mininet` is stock Mininet making and unmaking the same row.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from testbed.bench.build import our_spans
from testbed.bench.chain import AFTER, chain, name
from testbed.bench.result import BenchResult, Reference
from testbed.bench.stock_mininet import stock_mininet
from testbed.devices.registry import known_devices
from testbed.sandbox import Sandbox
from testbed.shadow import built
from topologies.model import DEFAULT_MTU, Impairment

STOCK_REPEATS = 3
CHANGES = 200


def bench_churn(nodes: int, cycles: int) -> BenchResult:
    """Build and take down the row `cycles` times, then change one link's rate `CHANGES` times in place."""
    before = _namespaces()
    spans = [our_spans(nodes) for _ in range(cycles)]
    whole = [s.build_s + s.teardown_s + s.gone_s for s in spans]
    stock = [stock_mininet(nodes) for _ in range(STOCK_REPEATS)]
    stock_s = statistics.median(s.build_s + s.teardown_s for s in stock)
    quarter = max(1, cycles // 4)
    # the kernel takes namespaces away later, by itself: the first cycles do not feel those before them yet
    early = whole[quarter : 2 * quarter]
    cycle_s = statistics.median(whole)
    return BenchResult(
        "churn",
        {
            "nodes": float(nodes),
            "cycles": float(cycles),
            "cycle_s": round(cycle_s, 4),
            "late_over_early": round(statistics.median(whole[-quarter:]) / statistics.median(early), 3),
            "namespaces_left": float(len(_namespaces() - before)),
            "open_files_left": float(_files_left()),
            "live_change_s": round(_live_change_s(), 6),
        },
        {"mininet": Reference(round(stock_s, 4), "s", round(stock_s / cycle_s, 3))},
    )


def _live_change_s() -> float:
    """Seconds that one live change of a rate takes, read back."""

    def job() -> float:
        with tempfile.TemporaryDirectory() as logs, built(chain(2), known_devices(), Path(logs)) as shadow:
            started = time.monotonic()
            for number in range(CHANGES):
                shadow.reshape(name(0), AFTER, Impairment(rate_bps=1_000_000 * (number + 1)), DEFAULT_MTU)
            return (time.monotonic() - started) / CHANGES

    return Sandbox("churn").call(job)


def _files_left() -> int:
    """Descriptors that one more cycle leaves open in this process."""
    before = _open_files()
    our_spans(2)
    return _open_files() - before


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _namespaces() -> set[str]:
    """Network namespaces that some process is in."""
    found = set()
    for process in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(str(process.readlink()))
        except OSError:
            continue
    return found
