"""What playing cost a player process, and what its nodes' kernels dropped meanwhile: read at both ends of a window.

Knows no flow. Counters are the kernel's own: the process's processor time and run-queue wait (/proc/self/schedstat),
the machine's processor pressure (/proc/pressure/cpu), and per node UDP receive errors and listen queue overflows
(/proc/net/snmp, snmp6, netstat), which are losses that no network made.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from replay.reactor import Namespaces

_SCHEDSTAT = Path("/proc/self/schedstat")
_PRESSURE = Path("/proc/pressure/cpu")
_NET = Path("/proc/self/net")
_UDP_DROPS = frozenset({"Udp:RcvbufErrors", "Udp:MemErrors", "Udp6RcvbufErrors", "Udp6MemErrors"})
_UDP_NO_ROOM = frozenset({"Udp:SndbufErrors", "Udp6SndbufErrors"})
_LISTEN_DROPS = frozenset({"TcpExt:ListenDrops"})
"""Overflows of both queues of a listener are among them."""
_PER_CENT = 100.0


@dataclass(frozen=True, slots=True)
class Effort:
    """One window's cost. Shares are percent of one processor over the window; NaN where this kernel does not tell.

    `reaction_p99_us` is how long, at most, all but 1 % of what arrived waited for the player to look. With several
    player processes shares and waits are those of the one that had it worst, counts are sums.
    """

    player_cpu_percent: float = 0.0
    player_waited_percent: float = 0.0
    cpu_pressure_percent: float = float("nan")
    reaction_p99_us: float = 0.0
    send_blocked: int = 0
    udp_receive_drops: int = 0
    listen_drops: int = 0
    shards: int = 1

    @classmethod
    def of_all(cls, efforts: Iterable[Effort]) -> Effort:
        """The efforts of all player processes of a window as one."""
        each = list(efforts)
        if not each:
            return cls()
        of_one = [f.name for f in fields(cls) if f.name.endswith(("_percent", "_us"))]
        worst = {name: max(getattr(e, name) for e in each) for name in of_one}
        # every process reads the same kernels: their counters are not added up, what each could not send is
        return cls(
            **worst,
            send_blocked=sum(e.send_blocked for e in each),
            udp_receive_drops=max(e.udp_receive_drops for e in each),
            listen_drops=max(e.listen_drops for e in each),
            shards=len(each),
        )


class EffortMeter:
    """Reads the counters when it is made and says what they rose by when it is asked."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._counters = self._read()
        self._since = _Spent.now()

    def effort(self, send_blocked: int, waits: Sequence[tuple[int, int]]) -> Effort:
        """The cost since this meter was made; what the player could not send, and its reactor's waits, are told."""
        spent, counters = _Spent.now(), self._read()
        lasted_ns = max(1, spent.at_ns - self._since.at_ns)
        rose = {name: counters[name] - self._counters.get(name, 0) for name in counters}
        return Effort(
            player_cpu_percent=_PER_CENT * (spent.cpu_ns - self._since.cpu_ns) / lasted_ns,
            player_waited_percent=_PER_CENT * (spent.waited_ns - self._since.waited_ns) / lasted_ns,
            cpu_pressure_percent=_PER_CENT * (spent.pressure_ns - self._since.pressure_ns) / lasted_ns,
            reaction_p99_us=_reaction_p99_us(waits),
            send_blocked=send_blocked + _sum(rose, _UDP_NO_ROOM),
            udp_receive_drops=_sum(rose, _UDP_DROPS),
            listen_drops=_sum(rose, _LISTEN_DROPS),
        )

    def _read(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for node in self._namespaces:
            self._namespaces.enter(node)
            for name, value in _network_counters():
                found[node, name] = value
        return found


@dataclass(frozen=True, slots=True)
class _Spent:
    at_ns: int
    cpu_ns: int
    waited_ns: float
    pressure_ns: float

    @classmethod
    def now(cls) -> _Spent:
        return cls(time.monotonic_ns(), time.process_time_ns(), _waited_ns(), _pressure_ns())


def _reaction_p99_us(waits: Sequence[tuple[int, int]]) -> float:
    """What all but 1 % of the events waited at most, by (how many events, nanoseconds) of every look."""
    left = sum(count for count, _ in waits) * 0.01
    for count, waited_ns in sorted(waits, key=lambda wait: -wait[1]):
        left -= count
        if left <= 0:
            return waited_ns / 1_000
    return 0.0


def _waited_ns() -> float:
    """How long this process has been ready to run and was not running."""
    try:
        return float(_SCHEDSTAT.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return float("nan")


def _pressure_ns() -> float:
    """How long at least one process of this machine has waited for a processor."""
    try:
        return float(_PRESSURE.read_text().split("\n", 1)[0].rpartition("total=")[2]) * 1_000
    except (OSError, ValueError):
        return float("nan")


def _network_counters() -> Iterable[tuple[str, int]]:
    """The counters of the namespace that this thread is in: `Udp:RcvbufErrors`, `Udp6RcvbufErrors` and the like."""
    for file in ("snmp", "netstat"):
        lines = _lines(file)
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            for name, value in zip(names[1:], values[1:], strict=False):
                yield names[0] + name, int(value)
    for name, value in (line for line in _lines("snmp6") if len(line) == 2):
        yield name, int(value)


def _lines(file: str) -> list[list[str]]:
    try:
        return [line.split() for line in (_NET / file).read_text().splitlines()]
    except OSError:
        return []


def _sum(rose: dict[tuple[str, str], int], names: frozenset[str]) -> int:
    return sum(value for (_, name), value in rose.items() if name in names)
