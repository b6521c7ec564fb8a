"""The geometry of the chart of windows: how many flows ended as captured, and how fast, from window to window.

May not know HTML or SVG; coordinates are in the units of the chart's view box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.words import quantity
from testbed.verdict_file import WindowEntry, number

WIDTH, LEFT, RIGHT = 960.0, 64.0, 12.0
BARS_TOP, BARS_BASE = 26.0, 126.0
DOTS_TOP, DOTS_BASE = 178.0, 248.0
HEIGHT = 296.0
ROOMY = 16
"""With more windows than this their values stand in the table only: beside each other they would not be legible."""
_LEAST_LABEL = 14.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One window: its bar, its dot and its words."""

    window: int
    role: str
    seconds: str
    flows: int
    as_expected: int
    completed: int
    response: str
    x: float
    centre: float
    width: float
    bar_y: float
    bar_height: float
    dot_y: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The whole chart; `path` is the line through the dots, `spans` are (role, x, width) of neighbouring windows."""

    marks: tuple[Mark, ...]
    spans: tuple[tuple[str, float, float], ...]
    path: str
    top_flows: int
    top_response: str
    roomy: bool
    every: int
    """Of so many windows one has its number below it."""
    width: float = WIDTH
    height: float = HEIGHT


def timeline(windows: Sequence[WindowEntry]) -> Timeline:
    """Lay the windows out from left to right; an empty chart of none."""
    most = max((window.flows for window in windows), default=0)
    responses = [number(window.kpis.get("response_ns")) for window in windows]
    finite = [value for value in responses if math.isfinite(value)]
    top = max(finite, default=0.0) * 1.15
    step = (WIDTH - LEFT - RIGHT) / max(len(windows), 1)
    marks = []
    for index, (window, response) in enumerate(zip(windows, responses, strict=True)):
        share = window.as_expected / most if most else 0.0
        dot = DOTS_BASE - (DOTS_BASE - DOTS_TOP) * response / top if top and math.isfinite(response) else None
        x = LEFT + index * step
        marks.append(
            Mark(
                window=window.window,
                role=window.role,
                seconds="" if window.seconds is None else f"{number(window.seconds):.1f} s",
                flows=window.flows,
                as_expected=window.as_expected,
                completed=window.completed,
                response=quantity(response, "ns"),
                x=round(x + step * 0.14, 1),
                centre=round(x + step / 2, 1),
                width=round(step * 0.72, 1),
                bar_y=round(BARS_BASE - (BARS_BASE - BARS_TOP) * share, 1),
                bar_height=round((BARS_BASE - BARS_TOP) * share, 1),
                dot_y=None if dot is None else round(dot, 1),
            )
        )
    return Timeline(
        tuple(marks),
        _spans(marks, step),
        _path(marks),
        most,
        quantity(top, "ns") if top else "",
        roomy=len(marks) <= ROOMY,
        every=max(1, math.ceil(2 * _LEAST_LABEL / step)),
    )


def _spans(marks: Sequence[Mark], step: float) -> tuple[tuple[str, float, float], ...]:
    spans: list[tuple[str, float, float]] = []
    for mark in marks:
        start = round(mark.centre - step / 2, 1)
        if spans and spans[-1][0] == mark.role:
            role, begun, width = spans[-1]
            spans[-1] = (role, begun, round(width + step, 1))
        else:
            spans.append((mark.role, start, round(step, 1)))
    return tuple(spans)


def _path(marks: Sequence[Mark]) -> str:
    words: list[str] = []
    drawn = False
    for mark in marks:
        if mark.dot_y is not None:
            words.append(f"{'L' if drawn else 'M'}{mark.centre} {mark.dot_y}")
        drawn = mark.dot_y is not None
    return " ".join(words)
