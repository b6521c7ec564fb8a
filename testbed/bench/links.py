"""How true and how fast a link's impairments are, engine by engine, beside a bare veth pair of the same run.

Excess is what a frame is held beyond the delay that was set, by the kernel's stamps at both ends.
"""

from __future__ import annotations

from functools import partial
from ipaddress import ip_interface

from testbed.bench.busy import busy_loops
from testbed.bench.result import BenchResult, Reference
from testbed.network.calibration import Wire, calibrated, on_link, percentile
from testbed.network.impairment import Engine, Impairer, has_netem
from testbed.sandbox import Sandbox
from topologies.model import Impairment

ENDS = (ip_interface("10.0.0.1/24"), ip_interface("10.0.0.2/24"))
DELAY_NS = 5_000_000
BUSY_LOOPS = 4
HARDLY_EVER = 1e-9
"""A loss that makes the line go frame by frame, and takes none."""


def bench_links(seed: int = 0) -> BenchResult:
    """Calibrate each engine that this kernel has, idle and with busy loops, and time what the delay line carries."""
    figures: dict[str, float] = {}
    engines = [Engine.DELAY_LINE, *([Engine.NETEM] if has_netem() else [])]
    found = {engine: Sandbox("bench").call(partial(_engine, engine, seed)) for engine in engines}
    for engine, part in found.items():
        figures.update({f"{engine.value.replace(' ', '_')}_{name}": value for name, value in part.items()})
    veth_bps, veth_ns = Sandbox("bench").call(_veth)
    line = found[Engine.DELAY_LINE]
    references = {
        "veth": Reference(veth_bps / 1e6, "Mbit/s", line["throughput_mbps"] * 1e6 / veth_bps),
        "veth_one_way_delay_p50": Reference(veth_ns, "ns", veth_ns / max(1.0, line["excess_p50_ns"])),
    }
    if Engine.NETEM in found:
        netem = found[Engine.NETEM]
        for name, unit in (("excess_p50_ns", "ns"), ("excess_p99_ns", "ns")):
            references[f"netem_{name}"] = Reference(netem[name], unit, netem[name] / max(1.0, line[name]))
        references["netem_throughput"] = Reference(
            netem["throughput_mbps"], "Mbit/s", line["throughput_mbps"] / netem["throughput_mbps"]
        )
    return BenchResult("links", figures, references)


def _engine(engine: Engine, seed: int) -> dict[str, float]:
    """One engine's figures, their units in their names."""
    idle = calibrated(engine, ENDS, seed, quick=False)

    def more(link: Wire) -> dict[str, float]:
        link.datagrams(3, 0.001)
        link.impair(Impairment(delay_ns=DELAY_NS))
        with busy_loops(BUSY_LOOPS):
            delays = link.datagrams(1_000, 0.001).delays_ns
        whole_bps = link.goodput_bps(0.3, 1.0)
        link.impair(Impairment(delay_ns=DELAY_NS, loss_ratio=HARDLY_EVER))
        link.impairer.reports()
        single_bps = link.goodput_bps(0.3, 1.0)
        return {
            "busy_excess_p50_ns": float(percentile(delays, 0.5) - DELAY_NS),
            "busy_excess_p99_ns": float(percentile(delays, 0.99) - DELAY_NS),
            "throughput_mbps": whole_bps / 1e6,
            "frame_by_frame_mbps": single_bps / 1e6,
            "frames_per_second": single_bps / 8 / 1448,
        }

    figures = on_link(more, Impairer(engine, seed), ENDS)
    figures |= {
        "excess_p50_ns": float(idle.excess_p50_ns),
        "excess_p99_ns": float(idle.excess_p99_ns),
        "rate_error_percent": idle.rate_bps.error_percent,
        "loss_error_percent": idle.loss_ratio.error_percent,
    }
    return figures


def _veth() -> tuple[float, float]:
    """Goodput of a bare pair in bit/s, and its one-way delay in ns."""

    def measured(link: Wire) -> tuple[float, float]:
        link.datagrams(3, 0.001)
        delays = link.datagrams(500, 0.001).delays_ns
        return link.goodput_bps(0.3, 1.0), float(percentile(delays, 0.5))

    return on_link(measured, Impairer(Engine.DELAY_LINE), ENDS)
