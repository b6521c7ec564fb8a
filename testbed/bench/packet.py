"""How true to time packet mode sends ten seconds of irregular packets, beside the installed tcpreplay in the same run.

Both send the same capture over the same pair of interfaces; both are judged by the receiver's kernel stamps.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

import numpy as np

from replay.packet_mode.flows import without_session
from replay.packet_mode.frames import Frames, read_frames
from replay.packet_mode.plan import PacketPlan, planned, program
from replay.packet_mode.sender import Timing
from replay.tap import Tap, Taps
from testbed.bench.result import BenchResult, Reference
from testbed.network.addressing import set_addresses
from testbed.network.link import Port, Veth
from testbed.network.mininet_api import ShadowNet
from testbed.network.namespace import Namespace
from testbed.network.next_hop import ways
from testbed.packet_mode import player_of
from testbed.sandbox import SCRATCH, Sandbox
from testbed.tcpreplay import one_sided, replaying, result_of, tcpreplay_version
from topologies.model import Interface

SECONDS = 10.0
PACKETS_PER_SECOND = 2_000
CROWD = 200_000
"""Packets that are all due at once, for the highest rate."""

SNAPLEN = 128
_GRE = 47
_ENDS = {"left": "10.0.0.1", "right": "10.0.0.2"}
_NUMBER_AT = 4
_TCPREPLAY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """How a sender kept to the schedule, by the receiver's stamps: packets, loss, drift of the end, error of gaps."""

    packets: int
    lost: int
    end_drift_us: float
    gap_error_p50_us: float
    gap_error_p99_us: float
    offset_error_p99_us: float

    def figures(self) -> dict[str, float]:
        """By name."""
        return {
            "sent": float(self.packets),
            "lost": float(self.lost),
            "end_drift_us": self.end_drift_us,
            "gap_error_p50_us": self.gap_error_p50_us,
            "gap_error_p99_us": self.gap_error_p99_us,
            "offset_error_p99_us": self.offset_error_p99_us,
        }


def bench_packet(seconds: float = SECONDS, seed: int = 0) -> BenchResult:
    """Send a capture with packet mode and with tcpreplay, then as fast as packet mode can; raises Unsupported."""
    version = tcpreplay_version()
    measured: tuple[Kept, Kept, float, bool] = Sandbox("bench").call(lambda: _on_a_link(seconds, seed))
    ours, theirs, packets_per_second, realtime = measured
    figures = {**ours.figures(), "packets_per_s": packets_per_second, "realtime": float(realtime)}
    figures["seconds"] = seconds
    references = {
        "tcpreplay": Reference(
            theirs.end_drift_us / 1_000, "ms of end drift", abs(theirs.end_drift_us) / max(abs(ours.end_drift_us), 1.0)
        ),
        "tcpreplay_gap_error_p50": Reference(
            theirs.gap_error_p50_us, "us", theirs.gap_error_p50_us / max(ours.gap_error_p50_us, 0.001)
        ),
        "tcpreplay_gap_error_p99": Reference(
            theirs.gap_error_p99_us, "us", theirs.gap_error_p99_us / max(ours.gap_error_p99_us, 0.001)
        ),
        "tcpreplay_version": Reference(
            version[0] + version[1] / 10 + version[2] / 100, "major.minor/10.patch/100", 1.0
        ),
    }
    return BenchResult("packet", figures, references)


def _on_a_link(seconds: float, seed: int) -> tuple[Kept, Kept, float, bool]:
    net = ShadowNet()
    try:
        spaces = {name: net.add(name, {}).namespace for name in _ENDS}
        net.connect([Veth(Port(spaces["left"], "eth0"), Port(spaces["right"], "eth0"))])
        for name, address in _ENDS.items():
            set_addresses(spaces[name], [Interface("eth0", (ip_interface(f"{address}/24"),))])
        plan = _plan(_irregular(seconds, seed))
        ours, realtime = _ours(spaces, plan)
        theirs = _theirs(spaces, plan)
        return ours, theirs, _fastest(spaces), realtime
    finally:
        net.close()


def _irregular(seconds: float, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Exponential gaps: most far shorter than the mean, some many times longer."""
    chance = np.random.default_rng(seed)
    count = int(seconds * PACKETS_PER_SECOND)
    gaps = chance.exponential(1e9 / PACKETS_PER_SECOND, count)
    times: np.ndarray[tuple[int], np.dtype[np.int64]] = (np.cumsum(gaps) * seconds * 1e9 / gaps.sum()).astype(np.int64)
    return times


def _plan(times_ns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> PacketPlan:
    """Numbered GRE packets from left to right at these times."""
    path = SCRATCH / "bench.pcap"
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 101))
        for number, at_ns in enumerate(times_ns.tolist()):
            packet = _gre(number)
            file.write(struct.pack("<IIII", *divmod(at_ns, 10**9), len(packet), len(packet)) + packet)
    captured, _ = read_frames([path])
    owners = {address: name for name, address in _ENDS.items()}
    return planned(captured, without_session(captured), owners.get, epoch_ns=0)


def _gre(number: int) -> bytes:
    payload = struct.pack("!HHI", 0x1000, 0x0800, number) + bytes(80)
    ends = b"".join(bytes(map(int, address.split("."))) for address in _ENDS.values())
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), number & 0xFFFF, 0, 64, _GRE, 0) + ends + payload


def _ours(spaces: dict[str, Namespace], plan: PacketPlan) -> tuple[Kept, bool]:
    with player_of(spaces, plan) as player:
        player.arm()
        realtime = []

        def send() -> None:
            realtime.append(player.play(0, armed=True).wait(_TCPREPLAY_SECONDS).realtime)

        kept = _received(spaces, plan, send)
        return kept, realtime[0]


def _theirs(spaces: dict[str, Namespace], plan: PacketPlan) -> Kept:
    sent = program(plan, ways(spaces, plan.hops()))
    # a node's /run is its own, and the supervisor sees it under the node's home
    written = one_sided(sent, lambda node: spaces[node].home / "run")
    captures = {port: Path("/run") / path.name for port, path in written.items()}

    def send() -> None:
        with replaying(spaces, captures) as started:
            result_of(started[0], _TCPREPLAY_SECONDS)

    return _received(spaces, plan, send)


def _fastest(spaces: dict[str, Namespace]) -> float:
    """Packets a second when all are due at once."""
    plan = _plan(np.zeros(CROWD, np.int64))
    with player_of(spaces, plan, Timing(too_late_ns=60_000_000_000, drain_ns=0)) as player:
        result = player.play(0).wait(_TCPREPLAY_SECONDS)
    return float(len(plan) / max((result.ended_ns - result.started_ns) / 1e9, 1e-9))


def _received(spaces: dict[str, Namespace], plan: PacketPlan, send: Callable[[], None]) -> Kept:
    """Send, and hold what came against the plan, by the numbers in the packets."""
    path = SCRATCH / "received.pcap"
    with Taps([Tap("right", spaces["right"].net_fd, "eth0", SNAPLEN)], blocks=128) as taps:
        taps.start_window()
        send()
        taps.end_window({"right": path})
    came, _ = read_frames([path])
    came = came.taken(np.flatnonzero(came.protocol == _GRE))
    numbers = _numbers(came)
    due_ns, at_ns = plan.offset_ns[numbers], came.time_ns
    drift = (at_ns - at_ns[0]) - (due_ns - due_ns[0])
    gaps = np.abs(np.diff(at_ns) - np.diff(due_ns))
    return Kept(
        packets=len(plan),
        lost=len(plan) - len(np.unique(numbers)),
        end_drift_us=float(drift[-1]) / 1_000,
        gap_error_p50_us=float(np.percentile(gaps, 50)) / 1_000,
        gap_error_p99_us=float(np.percentile(gaps, 99)) / 1_000,
        offset_error_p99_us=float(np.percentile(np.abs(drift), 99)) / 1_000,
    )


def _numbers(came: Frames) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    at = came.transport_at[:, None] + _NUMBER_AT + np.arange(4)
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]] = (
        np.ascontiguousarray(came.data[at]).view(">u4").astype(np.int64).reshape(-1)
    )
    return numbers
