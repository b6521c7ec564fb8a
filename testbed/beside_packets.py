"""Packet mode as a part of every window: its packets leave with the flows, its KPIs join the window's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.window import Role
from replay.packet_mode.flows import address_text
from replay.packet_mode.frames import NO_IP
from replay.packet_mode.kpis import packet_kpis
from replay.packet_mode.plan import PacketPlan
from replay.packet_mode.player import PacketResult
from replay.packet_mode.sender import REFUSED, SENT
from replay.tap import Tapped
from testbed.beside import Part
from testbed.devices.base import Configs
from testbed.measure import translator
from testbed.packet_mode import PacketMode, Play, Sender, packet_mode
from testbed.paths import Atlas, flow_path
from testbed.shadow import Shadow
from testbed.store import RunDirectory

OVERRUN_SECONDS = 30.0
LATENESS_P99_NS = 50_000_000
"""As for flows over sockets: KPIs are the kernel's stamps, but beyond it the order is no longer the capture's."""

SENT_RATIO = 0.99


@dataclass(slots=True)
class BesidePackets:
    """A plan's packets, window after window; `reasons` has what did not arrive, by window and cause."""

    plan: PacketPlan
    mode: PacketMode
    configs: Mapping[str, Configs]
    run: RunDirectory
    reasons: list[dict[str, object]] = field(default_factory=list)
    _play: Play | None = None
    _result: PacketResult | None = None

    def arm(self) -> None:
        """Ask for next hops anew: a change may have moved them."""
        self.mode.arm()

    def begin(self, window: int) -> None:
        """Begin to send."""
        self._play = self.mode.player.play(window, armed=True)

    def end(self) -> None:
        """Wait until the last packet has had time to arrive."""
        if self._play is not None:
            self._result = self._play.wait(self.plan.duration_ns / 1e9 + OVERRUN_SECONDS)
            self._play = None

    def part(self, window: int, role: Role, seen: Tapped, atlas: Atlas) -> Part:
        """KPIs of every flow in packet mode, and how true to plan it was sent."""
        result = self._result
        if result is None:
            raise ValueError("no window was played")
        found = packet_kpis(self.plan, result, seen.paths, seen.drops, self.run.run_id, window, role.value)
        table = found.kpis.assign(path=_paths(self.plan, found.kpis, atlas, self.configs))
        entry: dict[str, object] = {"window": window, "role": role.value}
        entry |= {"not_arrived": dict(found.reasons), "kernels_spared": self.mode.silence.spared()}
        self.reasons.append(entry)
        self.run.amend_json("run.json", {"packet_mode": {"flows": len(table), "windows": self.reasons}})
        self.run.write_table("packets", found.packets.assign(window=window, role=role.value), part=window)
        return Part(
            table,
            offered=len(result.program),
            sent=int((result.fate == SENT).sum()),
            lateness_us=(result.lateness_ns / 1_000).tolist(),
            reason="; ".join(_untrue(result)),
        )


@contextmanager
def beside_packets(
    shadow: Shadow, plan: PacketPlan, run: RunDirectory, sender: Sender = Sender.OWN
) -> Iterator[BesidePackets]:
    """Packet mode on a shadow while the block lasts; raises Unsupported, PacketPlayerFailed."""
    namespaces = {name: box.namespace for name, box in shadow.boxes.items()}
    with packet_mode(namespaces, plan, sender=sender) as mode:
        yield BesidePackets(plan, mode, shadow.configs, run)


def _untrue(result: PacketResult) -> Iterator[str]:
    """Why what was sent is not what was planned."""
    lateness, planned = result.lateness_ns, len(result.program)
    sent = int((result.fate == SENT).sum())
    if len(lateness) and np.percentile(lateness, 99) > LATENESS_P99_NS:
        late_ms = np.percentile(lateness, 99) / 1e6
        yield f"1 % of the packets left more than {late_ms:.1f} ms late (bound {LATENESS_P99_NS / 1e6:.0f} ms)"
    refused = int((result.fate != SENT).sum()) - int((result.fate == REFUSED).sum())
    if planned and refused > (1 - SENT_RATIO) * planned:
        yield f"{refused} of {planned} packets could not be sent, {sent} were"


def _paths(plan: PacketPlan, kpis: pd.DataFrame, atlas: Atlas, configs: Mapping[str, Configs]) -> list[str]:
    """The way of each flow's forward packets, by the routes of the window."""

    translate = translator(configs)
    first = {flow: row for row, flow in reversed(list(enumerate(plan.flow.tolist())))}
    numbers = {flow_id: number for number, flow_id in enumerate(plan.flows["flow_id"].tolist())}
    ways = []
    for flow_id in kpis["flow_id"].tolist():
        row = first.get(numbers[flow_id], -1)
        protocol = int(plan.frames.protocol[row]) if row >= 0 else NO_IP
        if protocol == NO_IP:
            ways.append("")
            continue
        target = address_text(plan.frames.destination[row].tobytes())
        port = int(plan.frames.destination_port[row])
        ways.append(flow_path(atlas, plan.nodes[plan.sender[row]], (target, port), protocol, translate, ""))
    return ways
