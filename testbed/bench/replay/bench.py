"""How many flows a second are re-enacted on time: the player, uvloop and C in one network, one after the other.

Each contender is asked for more until the 99th percentile of its lateness leaves the bound. A lateness is how long
after its moment a scheduled event (a SYN, a request, a response) was sent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from replay.child import ChildFailed
from testbed.bench.replay.c_pair import compiled, compiler, play_c
from testbed.bench.replay.exchange import Load, Played
from testbed.bench.replay.player_pair import play_ours
from testbed.bench.replay.scene import CLIENT, SERVER, scene
from testbed.bench.replay.uvloop_pair import play_uvloop
from testbed.bench.result import BenchResult, Reference
from testbed.sandbox import Sandbox

TIGHT_US, LOOSE_US = 1_000.0, 10_000.0
"""The bound that the replay is held to, and one that clocks of milliseconds can keep."""

LOWEST, HIGHEST = 500.0, 32_000.0
FINE = 1.19
"""Rates closer than this are one."""

GOAL_FLOWS_PER_S = 1_000.0
CONCURRENT_FLOWS_PER_S = 2_000.0
CONCURRENT_SECONDS = 3.2
CONCURRENT_THINK_NS = 420_000_000


@dataclass(slots=True)
class Contender:
    """Someone who plays loads; what it made of each rate is kept, so that no rate is played for two bounds."""

    play: Callable[[Load], Played]
    seconds: float
    tries: int = 3
    known: dict[float, list[Played]] = field(default_factory=dict)

    def on_time(self, rate: float, bound_us: float) -> bool:
        """Whether a rate is kept up within the bound, in one of a few tries: the machine is shared."""
        load = Load(rate, self.seconds)
        played = self.known.setdefault(rate, [])
        for attempt in range(self.tries):
            if attempt == len(played):
                try:
                    played.append(self.play(load))
                except (ChildFailed, TimeoutError):
                    played.append(Played(np.empty(0, dtype=np.int64), 0, 0))
            if played[attempt].on_time(load, bound_us):
                return True
        return False

    def search(self, bound_us: float) -> Generator[None, None, float]:
        """Look for the highest rate that is kept up, flows/s, a rate a step; 0 when not even the lowest is."""
        good, bad = 0.0, LOWEST
        while bad <= HIGHEST:
            if not self.on_time(bad, bound_us):
                break
            good, bad = bad, bad * 2
            yield
        while good and bad / good > FINE:
            middle = round((good * bad) ** 0.5, 1)
            if self.on_time(middle, bound_us):
                good = middle
            else:
                bad = middle
            yield
        return good

    def p99_us(self, rate: float) -> float:
        """The best p99 that it had at a rate that was played."""
        return min((one.p99_us for one in self.known.get(rate, [])), default=float("inf"))


def sustained(contenders: Mapping[str, Contender], bound_us: float) -> dict[str, float]:
    """Every contender's highest rate within the bound; they take turns, so that a busy machine is busy for all."""
    searches = {name: one.search(bound_us) for name, one in contenders.items()}
    found: dict[str, float] = {}
    while searches:
        for name, one in list(searches.items()):
            try:
                next(one)
            except StopIteration as over:
                found[name] = over.value
                del searches[name]
    return found


def bench_replay(seconds: float = 1.0) -> BenchResult:
    """Measure every contender in one sandbox; steps of so many seconds each."""
    with tempfile.TemporaryDirectory(prefix="testbed-bench-") as folder:
        program = compiled(Path(folder)) if compiler() else None
        return Sandbox("bench", (Path(folder),)).call(lambda: _measured(seconds, program))


def _measured(seconds: float, program: Path | None) -> BenchResult:
    with scene() as spaces:
        realtime: list[bool] = []

        def ours(load: Load) -> Played:
            played, result = play_ours(load, spaces, CLIENT, SERVER)
            realtime.append(result.realtime)
            return played

        contenders = {
            "player": Contender(ours, seconds),
            "uvloop": Contender(lambda load: play_uvloop(load, spaces[CLIENT], spaces[SERVER]), seconds),
        }
        if program is not None:
            contenders["c"] = Contender(lambda load: play_c(program, load, spaces[CLIENT], spaces[SERVER]), seconds)
        tight, loose = (sustained(contenders, bound_us) for bound_us in (TIGHT_US, LOOSE_US))
        found = {name: (tight[name], loose[name]) for name in contenders}
        goal = contenders["player"]
        goal.on_time(GOAL_FLOWS_PER_S, TIGHT_US)
        figures = {
            "flows_per_s": found["player"][0],
            "flows_per_s_10ms": found["player"][1],
            "lateness_p99_us": goal.p99_us(GOAL_FLOWS_PER_S),
            "realtime": float(all(realtime)),
            **{f"{name}_p99_us_at_{LOWEST:.0f}": one.p99_us(LOWEST) for name, one in contenders.items()},
            **_concurrent(spaces),
        }
    return BenchResult("replay", {k: round(v, 1) for k, v in figures.items()}, _references(found))


def _concurrent(spaces: Mapping[str, int]) -> dict[str, float]:
    """Many flows at once: how many were open, and how late their events were."""
    load = Load(CONCURRENT_FLOWS_PER_S, CONCURRENT_SECONDS, CONCURRENT_THINK_NS)
    played, result = play_ours(load, spaces, CLIENT, SERVER)
    done = result.attempts[result.attempts["error"] == "none"]
    moments = np.concatenate([done["started_ns"].to_numpy(), done["ended_ns"].to_numpy()])
    changes = np.repeat([1, -1], len(done))
    peak = int(np.cumsum(changes[np.argsort(moments, kind="stable")]).max(initial=0))
    return {"concurrent": float(peak), "concurrent_p99_us": played.p99_us}


def _references(found: Mapping[str, tuple[float, float]]) -> dict[str, Reference]:
    """The others' rates; one that keeps no rate up counts as the lowest that was tried, in our disfavour.

    Where we keep none up either the ratio is 0: this machine was too busy to tell.
    """
    references = {}
    for name, rates in found.items():
        if name == "player":
            continue
        for suffix, rate, own in zip(("", "_10ms"), rates, found["player"], strict=True):
            references[f"{name}{suffix}"] = Reference(rate, "flows/s", round(own / (rate or LOWEST), 3))
    return references
