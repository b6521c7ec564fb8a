"""One window: play the schedule, tap the end points, read the devices, compute every flow's KPIs.

It knows no change and no verdict: what happens meanwhile is a function handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analysis.window import Role
from replay.effort import Effort
from replay.instrument import Instrument, instrument
from replay.kpis import KPI_COLUMNS, kpis
from replay.observed import SERVER
from replay.session import Play, Player, PlayResult
from replay.tap import Taps
from testbed.beside import Beside, joined
from testbed.counters import counter_rows
from testbed.devices.base import Configs
from testbed.link_instrument import LinkInstrument
from testbed.pairs.alike import Leftover, Readings, begin_alike, left_over
from testbed.paths import Atlas, Translate, flow_path
from testbed.placement import translations
from testbed.shadow import Shadow
from testbed.store import RunDirectory

OVERRUN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Slot:
    """A window's place among pairs ("" and -1: none), the shadow it was played on, and what was left when it began."""

    arm: str = ""
    pair: int = -1
    shadow: int = 0
    left: Leftover = field(default_factory=Leftover)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one window gave."""

    window: int
    role: Role
    slot: Slot
    kpis: pd.DataFrame
    instrument: Instrument
    links: LinkInstrument
    started_ns: int
    seconds: float
    daemons_alive: bool

    @property
    def valid(self) -> bool:
        """Whether the window counts."""
        return self.instrument.valid and not self.reason

    @property
    def reason(self) -> str:
        """Why the window does not count; "" when it does."""
        return "; ".join(filter(None, (self.instrument.reason, self.links.reason, self.slot.left.reason)))

    def record(self) -> dict[str, object]:
        """The instrument's record as the judge and verdict.json take it."""
        return {
            "window": self.window,
            "role": self.role.value,
            "arm": self.slot.arm,
            "pair": self.slot.pair,
            "shadow": self.slot.shadow,
            "valid": self.valid,
            "reason": self.reason,
            "started": pd.Timestamp(self.started_ns, unit="ns", tz="UTC").isoformat(),
            "seconds": round(self.seconds, 3),
            "lateness_p50_us": round(self.instrument.lateness_p50_us, 1),
            "lateness_p99_us": round(self.instrument.lateness_p99_us, 1),
            "offered": self.instrument.offered,
            "sent": self.instrument.sent,
            "capture_drops": self.instrument.capture_drops,
            "realtime": self.instrument.realtime,
            "lateness_max_us": round(self.instrument.lateness_max_us, 1),
            **_effort(self.instrument.effort),
            "link_engine": self.links.engine,
            "link_excess_p50_us": round(self.links.excess_p50_us, 1),
            "link_excess_p99_us": round(self.links.excess_p99_us, 1),
            "link_overflowed": self.links.overflowed,
            "link_seeded": self.links.seeded,
            "daemons_alive": self.daemons_alive,
            **self.slot.left.record(),
        }


def _effort(effort: Effort) -> dict[str, object]:
    """What playing cost, for the record; NaN where this kernel does not tell."""
    return {
        "reaction_p99_us": round(effort.reaction_p99_us, 1),
        "player_cpu_percent": round(effort.player_cpu_percent, 1),
        "player_waited_percent": round(effort.player_waited_percent, 1),
        "cpu_pressure_percent": round(effort.cpu_pressure_percent, 1),
        "send_blocked": effort.send_blocked,
        "udp_receive_drops": effort.udp_receive_drops,
        "listen_drops": effort.listen_drops,
        "shards": effort.shards,
    }


NO_PAIR = Slot()


@dataclass(slots=True)
class Begun:
    """A window that has begun and not ended: what the shadow had counted before, and what is being played."""

    number: int
    role: Role
    slot: Slot
    before: Readings
    play: Play | None = None


@dataclass(slots=True)
class Gauge:
    """The measuring side of a run: window after window on one shadow, each written down as it ends.

    Where they are to be `alike`, nothing of an earlier window is left when the next begins, and that is read back.
    Two that measure at the same time share `numbers` and `measured`.
    """

    shadow: Shadow
    player: Player
    taps: Taps
    tapped: tuple[str, ...]
    run: RunDirectory
    window_seconds: float
    beside: Sequence[Beside] = ()
    alike: bool = False
    known: Readings = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def window(self, role: Role, during: Callable[[], None] = lambda: None, slot: Slot = NO_PAIR) -> Measured:
        """Replay the whole schedule once, doing `during` while traffic flows."""
        begun = self.begin(role, slot)
        self.start(begun)
        during()
        return self.end(begun)

    def begin(self, role: Role, slot: Slot = NO_PAIR) -> Begun:
        """Make the shadow ready for a window, and read what it has counted until then."""
        neighbours = begin_alike(self.shadow, self.known or self.shadow.readings()) if self.alike else 0
        self.shadow.forget()
        self.shadow.impairments()
        before = self.shadow.readings()
        if self.alike:
            slot = replace(slot, left=left_over(before, neighbours))
        return Begun(next(self.numbers), role, slot, before)

    def start(self, begun: Begun) -> None:
        """Let traffic flow; returns at once."""
        for other in self.beside:
            other.arm()
        self.taps.start_window()
        for other in self.beside:
            other.begin(begun.number)
        begun.play = self.player.play(begun.number)

    def end(self, begun: Begun) -> Measured:
        """Await the end of a window that was started, and write down what it gave."""
        if begun.play is None:
            raise ValueError(f"window {begun.number} was not started")
        number, role = begun.number, begun.role
        result = begun.play.wait(timeout_s=OVERRUN_SECONDS + self.window_seconds)
        with TemporaryDirectory(prefix="testbed-window-", dir="/run/testbed") as folder:
            for other in self.beside:
                other.end()
            captures = self.taps.end_window({node: Path(folder) / f"{node}.pcap" for node in self.tapped})
            after = self.known = self.shadow.readings()
            links = LinkInstrument.of(self.shadow.impairments())
            table = pd.DataFrame(columns=list(KPI_COLUMNS))
            if len(result.attempts):
                table = kpis(result, captures.paths, self.run.run_id, number, role.value)
            atlas = Atlas.of(self.shadow.topology, after)
            table["path"] = flow_paths(result, atlas, self.shadow.configs)
            parts = [other.part(number, role, captures, atlas) for other in self.beside]
        added = [part.kpis for part in parts if part.kpis is not None]
        if added:
            table = pd.concat([part for part in (table, *added) if len(part)], ignore_index=True)
        slot = begun.slot
        table = table.assign(arm=slot.arm, pair=slot.pair)
        seconds = (result.ended_ns - result.started_ns) / 1e9
        told = joined(instrument(result, captures.dropped), parts)
        measured = Measured(number, role, slot, table, told, links, result.started_ns, seconds, self._daemons_alive())
        self.run.write_table("kpis", table, part=number)
        counters = counter_rows(number, role.value, begun.before, after).assign(arm=slot.arm, pair=slot.pair)
        self.run.write_table("counters", counters, part=number)
        self.measured.append(measured)
        return measured

    def _daemons_alive(self) -> bool:
        boxes = self.shadow.boxes.values()
        return all(process.poll() is None for box in boxes for process in box.processes.values())

    def table(self) -> pd.DataFrame:
        """The KPIs of all windows so far."""
        return pd.concat([m.kpis for m in self.measured], ignore_index=True)

    def records(self) -> list[dict[str, object]]:
        """The instrument's records of all windows so far."""
        return [m.record() for m in self.measured]


def together(parts: Sequence[tuple[Gauge, Role, Slot]], during: Callable[[], None] = lambda: None) -> None:
    """A window on each of these shadows at the same time, doing `during` while traffic flows."""
    begun = [(gauge, gauge.begin(role, slot)) for gauge, role, slot in parts]
    for gauge, one in begun:
        gauge.start(one)
    during()
    for gauge, one in begun:
        gauge.end(one)


def flow_paths(result: PlayResult, atlas: Atlas, configs: Mapping[str, Configs]) -> list[str]:
    """The way of every attempt, in their order, by the route tables that the atlas holds."""
    served = _server_nodes(result)
    known: dict[tuple[str, str, int, int, str], str] = {}
    translate = translator(configs)
    columns = ("flow_id", "node", "target_address", "target_port", "protocol")
    ways = []
    for flow_id, node, address, port, protocol in zip(*(result.attempts[c].tolist() for c in columns), strict=True):
        key = (node, address, port, protocol, served.get(flow_id, ""))
        if key not in known:
            known[key] = flow_path(atlas, node, (address, port), protocol, translate, key[4])
        ways.append(known[key])
    return ways


def translator(configs: Mapping[str, Configs]) -> Translate:
    """What tells where a node's packet filter translates an address to, by the files that it has."""

    def translate(node: str, address: str, port: int, protocol: int) -> str | None:
        rules = configs.get(node, {}).get("iptables.rules" if ":" not in address else "ip6tables.rules", b"")
        return translations(rules, address, port, protocol)

    return translate


def _server_nodes(result: PlayResult) -> dict[str, str]:
    """The node that answered each flow, by the first connection that served it."""
    owners = dict(zip(result.accepted["connection"].tolist(), result.accepted["node"].tolist(), strict=True))
    first = result.transfers[result.transfers["side"] == SERVER].drop_duplicates("flow_id")
    pairs = zip(first["flow_id"].tolist(), first["connection"].tolist(), strict=True)
    return {flow: owners.get(connection, "") for flow, connection in pairs}
