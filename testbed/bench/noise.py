"""How noisy the instrument is: one-way delay and connect time of a path on which nothing changes, idle and busy.

Noise is the 99th percentile less the median. The real player, taps and KPIs, as an ordinary user, beside the same
exchange stamped in user space in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from replay.instrument import instrument
from replay.kpis import kpis
from replay.schedule import FORWARD, REVERSE, TCP, FlowScript, Message, Schedule
from replay.session import Listener, Player
from replay.tap import Tap, Taps
from testbed.bench.as_ordinary_user import as_ordinary_user
from testbed.bench.busy import busy_loops
from testbed.bench.result import BenchResult, Reference
from testbed.bench.user_space_stamps import REQUEST_OCTETS, RESPONSE_OCTETS, Stamped, stamped_in_user_space
from testbed.devices.registry import known_devices
from testbed.sandbox import SCRATCH, Sandbox
from testbed.shadow import Shadow, built
from topologies.model import Interface, Link, LinkEnd, Node, Route, Topology

BUSY_LOOPS = 4
FLOWS_PER_S = 200
GAP_NS = 1_000_000_000 // FLOWS_PER_S
PORT, USER_SPACE_PORT = 8_080, 8_081
CLIENT, ROUTER, SERVER = "client", "router", "server"
CLIENT_ADDRESS, SERVER_ADDRESS = "10.0.0.2", "10.0.1.2"
FIRST_SOURCE_PORT = 20_000
NOISE_TARGET_US = 100.0
READY_SECONDS = 30.0
WINDOW_SLACK_S = 30.0

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Noise:
    """Delays of one state of the machine, in ns, and what the player says of itself."""

    one_way_delay_ns: Float
    connect_ns: Float
    user_space: Stamped
    lateness_p99_us: float
    failed: int
    realtime: bool


def bench_noise(seconds: float) -> BenchResult:
    """Measure for `seconds` by each way in each state: idle, then with BUSY_LOOPS busy loops."""

    def run() -> dict[str, Noise]:
        return Sandbox("noise").call(lambda: _measured(seconds))

    found = as_ordinary_user(run) if os.geteuid() == 0 else run()
    figures: dict[str, float] = {"target_us": NOISE_TARGET_US, "busy_loops": BUSY_LOOPS}
    references: dict[str, Reference] = {}
    for state, noise in found.items():
        ours = {"one_way_delay": noise.one_way_delay_ns, "connect": noise.connect_ns}
        theirs = {"one_way_delay": noise.user_space.one_way_delay_ns, "connect": noise.user_space.connect_ns}
        spreads_us = {name: (spread_us(ours[name]), spread_us(theirs[name])) for name in ours}
        worst_us, their_worst_us = (max(pair) for pair in zip(*spreads_us.values(), strict=True))
        figures[f"{state}_noise_us"] = round(worst_us, 1)
        references[f"user_space_{state}"] = _reference(their_worst_us, worst_us)
        for name, (own_us, their_us) in spreads_us.items():
            figures[f"{state}_{name}_noise_us"] = round(own_us, 1)
            figures[f"{state}_{name}_p50_us"] = round(float(np.median(ours[name])) / 1_000, 1)
            references[f"user_space_{state}_{name}"] = _reference(their_us, own_us)
        figures |= {
            f"{state}_flows": len(noise.connect_ns),
            f"{state}_flows_failed": noise.failed,
            f"{state}_lateness_p99_us": round(noise.lateness_p99_us, 1),
            "realtime": int(noise.realtime),
        }
    return BenchResult("noise", figures, references)


def _reference(theirs_us: float, ours_us: float) -> Reference:
    return Reference(round(theirs_us, 1), "µs", round(theirs_us / max(ours_us, 0.1), 2))


def spread_us(delays_ns: Sequence[int] | Float) -> float:
    """The 99th percentile less the median, in µs."""
    middle, high = np.percentile(np.asarray(delays_ns, dtype=np.float64), (50, 99))
    return float(high - middle) / 1_000


def _measured(seconds: float) -> dict[str, Noise]:
    plan = exchanges(max(1, int(seconds * FLOWS_PER_S)))
    with TemporaryDirectory(dir=SCRATCH) as folder, built(path_of_three(), known_devices(), Path(folder)) as shadow:
        spaces = shadow.namespaces()
        taps = Taps([Tap(node, spaces[node]) for node in (CLIENT, SERVER)])
        with Player(plan, spaces, [Listener(SERVER, TCP, PORT)]) as player, taps:
            shadow.wait_ready(READY_SECONDS, lambda _: None)
            player.play(0, only=[plan.scripts[0].flow_id]).wait(WINDOW_SLACK_S + seconds)
            measuring = _Measuring(shadow, player, taps, plan, Path(folder))
            return {state: measuring.state(state, loops) for state, loops in (("idle", 0), ("busy", BUSY_LOOPS))}


@dataclass(frozen=True, slots=True)
class _Measuring:
    shadow: Shadow
    player: Player
    taps: Taps
    plan: Schedule
    folder: Path

    def state(self, name: str, loops: int) -> Noise:
        """One window by the instrument, then the same exchange in user space."""
        spaces, seconds = self.shadow.namespaces(), self.plan.duration_ns / 1e9
        target = (SERVER_ADDRESS, USER_SPACE_PORT)
        with busy_loops(loops):
            self.taps.start_window()
            result = self.player.play(1).wait(seconds + WINDOW_SLACK_S)
            taken = self.taps.end_window({node: self.folder / f"{node}-{name}.pcap" for node in (CLIENT, SERVER)})
            user_space = stamped_in_user_space(
                spaces[CLIENT], spaces[SERVER], CLIENT_ADDRESS, target, len(self.plan.scripts), GAP_NS
            )
        table = kpis(result, taken.paths, "noise", 1, "baseline")
        columns = [table[f"one_way_delay_{way}_ns"].to_numpy(dtype=np.float64) for way in ("forward", "reverse")]
        delays_ns, connect_ns = np.concatenate(columns), table["connect_ns"].to_numpy(dtype=np.float64)
        return Noise(
            delays_ns[np.isfinite(delays_ns)],
            connect_ns[np.isfinite(connect_ns)],
            user_space,
            instrument(result, taken.dropped).lateness_p99_us,
            int((~table["completed"]).sum()),
            result.realtime,
        )


def exchanges(count: int) -> Schedule:
    """Flows of one request and one response each, FLOWS_PER_S of them."""
    said = (Message(FORWARD, 0, b"?" * REQUEST_OCTETS), Message(REVERSE, 0, b"!" * RESPONSE_OCTETS))
    scripts = tuple(
        FlowScript(
            flow_id=f"noise{number}",
            protocol=TCP,
            source_node=CLIENT,
            source=(CLIENT_ADDRESS, FIRST_SOURCE_PORT + number),
            target=(SERVER_ADDRESS, PORT),
            start_ns=number * GAP_NS,
            messages=said,
            close="fin_forward",
            outcome="accepted",
            application="",
            priority="normal",
        )
        for number in range(count)
    )
    return Schedule(scripts, 1.0, count * GAP_NS)


def path_of_three() -> Topology:
    """client – router – server; the router is a firewall without a rule, which forwards as any does."""
    everywhere = ip_network("0.0.0.0/0")

    def host(name: str, address: str, via: str) -> Node:
        return Node(
            name,
            "host",
            (Interface("eth0", (ip_interface(f"{address}/24"),)),),
            (Route(everywhere, ip_interface(via).ip),),
        )

    between = (
        Interface("eth0", (ip_interface("10.0.0.1/24"),)),
        Interface("eth1", (ip_interface("10.0.1.1/24"),)),
    )
    return Topology(
        "noise",
        (
            host(CLIENT, CLIENT_ADDRESS, "10.0.0.1"),
            Node(ROUTER, "firewall", between),
            host(SERVER, SERVER_ADDRESS, "10.0.1.1"),
        ),
        (
            Link(LinkEnd(CLIENT, "eth0"), LinkEnd(ROUTER, "eth0")),
            Link(LinkEnd(SERVER, "eth0"), LinkEnd(ROUTER, "eth1")),
        ),
    )
