"""What a series is at this hour of the day or of the week: the baseline that a reading is held against.

Hour of day from three days on, hour of week from three weeks on, each only where it would have helped: where the
readings so far, each against the *other* cycles, stray less than they do around one level. Until then, and where it
does not help, the median of all readings so far. Knows times and numbers only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from analysis.detect.port import Floats, Reading
from analysis.detect.ranked import Ranked

HOUR_NS = 3_600_000_000_000
DAY_HOURS, WEEK_HOURS = 24, 168
CYCLES = (DAY_HOURS, WEEK_HOURS)
CYCLES_NEEDED = 3
CYCLES_KEPT = {DAY_HOURS: 28, WEEK_HOURS: 12}
HELPS = 0.9
"""A season is taken up when it shrinks the median stray to this or less: noise alone never shrinks it."""
COVERED = 0.5
"""And when at least so many of the readings have another cycle to be held against: a gap is no season."""
_SAMPLES_AN_HOUR = 64
_HOURS_KEPT = WEEK_HOURS * CYCLES_KEPT[WEEK_HOURS]


class _Hour:
    """An even sample of the values of one hour: with too many, every other one is let go."""

    __slots__ = ("_every", "_seen", "values")

    def __init__(self) -> None:
        self.values: list[float] = []
        self._seen = 0
        self._every = 1

    def push(self, value: float) -> None:
        if self._seen % self._every == 0:
            self.values.append(value)
            if len(self.values) > _SAMPLES_AN_HOUR:
                self.values = self.values[::2]
                self._every *= 2
        self._seen += 1


class Season:
    """The baseline of a series; `cycle_hours` is 24, 168, or 0 while there is none."""

    def __init__(self, memory: int) -> None:
        self.cycle_hours = 0
        self._all = Ranked(memory)
        self._hours: dict[int, _Hour] = {}
        self._first_ns: int | None = None
        self._wait = dict.fromkeys(CYCLES, CYCLES_NEEDED)
        self._level: tuple[int, float | None] = (0, None)

    def baseline(self, time_ns: int) -> float | None:
        """What is expected at this time; None before the first reading."""
        if self.cycle_hours:
            hour = time_ns // HOUR_NS
            if self._level[0] != hour or self._level[1] is None:
                self._level = hour, self._slot_median(hour, self._earlier)
            if self._level[1] is not None:
                return self._level[1]
        return self._all.median()

    def learn(self, reading: Reading) -> None:
        """Take a finite reading in."""
        hour = reading.time_ns // HOUR_NS
        self._hours.setdefault(hour, _Hour()).push(reading.value)
        if len(self._hours) > _HOURS_KEPT:
            del self._hours[min(self._hours)]
        self._all.push(reading.value)
        if self._first_ns is None or reading.time_ns < self._first_ns:
            self._first_ns = reading.time_ns

    def renewed(self, time_ns: int, past: Callable[[], Sequence[Reading]]) -> Floats | None:
        """Residuals of the past readings, when a longer season has just been taken up; else None.

        It is asked about at three cycles, then again at six, twelve and so on: a series may take a season up late.
        Each past reading is held against the other cycles, so that its own value does not flatter it.
        """
        if self._first_ns is None:
            return None
        elapsed_hours = (time_ns - self._first_ns) // HOUR_NS
        for cycle in CYCLES:
            if cycle > self.cycle_hours and elapsed_hours >= cycle * self._wait[cycle]:
                while elapsed_hours >= cycle * self._wait[cycle]:
                    self._wait[cycle] *= 2
                readings = past()
                residuals = self._against_others(readings, cycle)
                if residuals is not None:
                    self.cycle_hours, self._level = cycle, (0, None)
                    return residuals
        return None

    def _against_others(self, readings: Sequence[Reading], cycle: int) -> Floats | None:
        values = np.array([reading.value for reading in readings])
        levels: dict[int, float | None] = {}
        for hour in {reading.time_ns // HOUR_NS for reading in readings}:
            levels[hour] = self._slot_median(hour, self._others, cycle)
        middle = float(np.median(values))
        found = [levels[reading.time_ns // HOUR_NS] for reading in readings]
        if sum(level is not None for level in found) < COVERED * len(found):
            return None
        residuals = values - np.array([middle if level is None else level for level in found])
        flat = float(np.median(np.abs(values - middle)))
        return residuals if float(np.median(np.abs(residuals))) < HELPS * flat else None

    def _slot_median(
        self, hour: int, which: Callable[[int, int], Sequence[int]], cycle: int | None = None
    ) -> float | None:
        hours = (self._hours.get(other) for other in which(hour, cycle or self.cycle_hours))
        values = list(chain.from_iterable(found.values for found in hours if found is not None))
        return float(np.median(values)) if values else None

    @staticmethod
    def _earlier(hour: int, cycle: int) -> Sequence[int]:
        return [hour - cycle * back for back in range(1, CYCLES_KEPT[cycle] + 1)]

    @staticmethod
    def _others(hour: int, cycle: int) -> Sequence[int]:
        return [hour + cycle * step for step in range(-CYCLES_KEPT[cycle], CYCLES_KEPT[cycle] + 1) if step]
