"""How faithful the replay is: a capture replayed on an unimpaired shadow, captured again there, and compared.

One window, the same player, taps and meter as in a what-if. Every flow is looked at where its own client's packets
pass, in whole frames.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from replay.errors import InvalidCapture
from replay.fidelity import Fidelity, Recording, Replayed, compared, together
from replay.instrument import Instrument, instrument
from replay.meter import PAUSE_NS, meter, read_traffic
from replay.packets import read_packets
from replay.schedule import Schedule, schedule
from replay.session import Listener, Player, PlayerFailed, PlayResult
from replay.silences import shortened, silences
from replay.tap import Tap, Taps
from testbed.bench.fidelity_lab import FAR, NEAR, WIRE, FidelityLab, lab_for
from testbed.bench.fidelity_report import FidelityReport
from testbed.devices.registry import known_devices
from testbed.errors import InvalidInput, NotReady, Unsupported
from testbed.network.probe import probe
from testbed.sandbox import SCRATCH, Sandbox
from testbed.shadow import Shadow, built

WHOLE_FRAMES = 65_535
RING_BLOCK_OCTETS = 1 << 20
READY_SECONDS = 30.0
OVERRUN_SECONDS = 60.0
SHORTEST_SILENCE_NS = 2 * PAUSE_NS
"""A silence that separates two messages of one side must go on doing so when it is shortened."""

CLOCK_SLACK_NS = 1_000_000
"""The player reads two clocks to say when its window was to be over, one after the other."""


def bench_fidelity(capture: Path, speed: float, longest_silence_s: float) -> FidelityReport:
    """Replay a capture once and compare.

    Raises InvalidInput when it is none or holds no flow that can be replayed, Unsupported when it is too much for this
    machine.
    """
    try:
        captured = read_traffic([capture])
    except InvalidCapture as problem:
        raise InvalidInput(problem.path, 1, 1, problem.found, problem.expected) from None
    quiet = silences(captured.segments, max(int(longest_silence_s * speed * 1e9), SHORTEST_SILENCE_NS))
    flows, messages = shortened(captured.flows, captured.messages, quiet)
    with TemporaryDirectory(prefix="testbed-fidelity-") as work:
        lab = lab_for(flows, Path(work))
        kept = flows[~flows["flow_id"].isin(list(lab.left_out))]
        plan = schedule(kept, messages, captured.payloads, lab.edge_of.get, speed)
        if not plan.scripts:
            raise InvalidInput(
                capture,
                1,
                1,
                f"{len(flows)} flows, none that can be replayed",
                "TCP, UDP or ICMP echo flows between two addresses",
            )
        recording = Recording(flows, messages, captured.segments, captured.payloads)
        try:
            fidelity, told, seconds = Sandbox("fidelity", (Path(work),)).call(lambda: _replayed(lab, plan, recording))
        except PlayerFailed as problem:
            raise Unsupported(f"to replay {capture}: {problem}", "replay fewer flows, or slower") from None
    left_out = Counter([*lab.left_out.values(), *(reason for _, reason in plan.unplayable)])
    return FidelityReport(fidelity, told, len(flows), left_out, len(quiet), quiet.total_cut_ns, speed, seconds)


def _replayed(lab: FidelityLab, plan: Schedule, captured: Recording) -> tuple[Fidelity, Instrument, float]:
    """Inside the sandbox: build, play one window, read what the taps at both edges have of it."""
    listeners = [Listener(*service) for service in sorted(plan.services(lab.edge_of.get))]
    with TemporaryDirectory(dir=SCRATCH) as folder:
        room = Path(folder)
        with built(lab.topology, known_devices(), room / "logs") as shadow:
            spaces = shadow.namespaces()
            tapped = [Tap(edge, spaces[edge], None, WHOLE_FRAMES) for edge in (NEAR, FAR)]
            with Player(plan, spaces, listeners) as player, Taps(tapped, 64, RING_BLOCK_OCTETS) as taps:
                shadow.wait_ready(READY_SECONDS, lambda _: None)
                meet_neighbours(shadow)
                taps.start_window()
                result = player.play(0).wait(plan.duration_ns / 1e9 + OVERRUN_SECONDS)
                taken = taps.end_window({edge: room / f"{edge}.pcap" for edge in (NEAR, FAR)})
        replayed = _as_planned(plan, result)
        parts = [
            compared(captured, _taken(taken.paths[edge], plan.speed, captured), replayed, addresses)
            for edge in (NEAR, FAR)
            if (addresses := {script.source[0] for script in plan.scripts if script.source_node == edge})
        ]
    seconds = (result.ended_ns - result.started_ns) / 1e9
    return together(parts), instrument(result, taken.dropped), seconds


def meet_neighbours(shadow: Shadow) -> None:
    """Send a datagram each way and IP version: the first packet waits for its neighbours' addresses, up to a second.

    Raises NotReady when one does not arrive.
    """
    for here, there in ((NEAR, FAR), (FAR, NEAR)):
        for address in shadow.topology.node(there).interface(WIRE).addresses:
            met = probe(shadow.boxes[here].namespace, shadow.boxes[there].namespace, str(address.ip), 1, linger_s=0.01)
            if met.lost:
                raise NotReady(f"a datagram from {here} to {there} ({address.ip})", "it was sent and did not arrive")


def _as_planned(plan: Schedule, result: PlayResult) -> Replayed:
    scripts = {script.flow_id: script for script in plan.scripts}
    over_ns = result.started_ns + plan.duration_ns - CLOCK_SLACK_NS
    worst = result.lateness.groupby("flow_id")["lateness_ns"].max()
    lateness_ns = dict(zip(worst.index.tolist(), worst.tolist(), strict=True))
    return Replayed(scripts, plan.speed, result.started_ns, over_ns, lateness_ns)


def _taken(path: Path, speed: float, captured: Recording) -> Recording:
    """The second capture, by the same meter; what it takes for a pause shrinks as the pauses themselves do."""
    try:
        packets, _ = read_packets([path])
    except InvalidCapture:
        nothing = captured.flows[:0], captured.messages[:0], captured.segments[:0]
        return Recording(*nothing, captured.payloads)
    again = meter(packets, pause_ns=int(PAUSE_NS / speed))
    return Recording(again.flows, again.messages, again.segments, again.payloads)
