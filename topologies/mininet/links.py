"""What the options of a Mininet link do to packets, as one direction of a link of the model.

    bw              Mbit/s                    max_queue_size    packets, counted as 1,500 octets each
    delay, jitter   as tc(8) reads times: `5ms`, and a bare number is in microseconds
    loss            percent

Pure. This file may not know nodes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from topologies.model import Impairment

PACKET_OCTETS = 1_500
_NS = {"": 1_000, "us": 1_000, "usec": 1_000, "usecs": 1_000, "ms": 10**6, "msec": 10**6, "msecs": 10**6,
       "s": 10**9, "sec": 10**9, "secs": 10**9, "ns": 1, "nsec": 1, "nsecs": 1}  # fmt: skip
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
_LARGEST_TIME_NS = 3_600 * 10**9
_OF_ENDS = re.compile(r"(intfName|addr|params)([12])")
_READ = frozenset({"bw", "delay", "jitter", "loss", "max_queue_size", "ip", "mac", "addr", "intfName"})
_OF_LINUX = frozenset({"txo", "rxo", "gro", "fast", "intf", "cls1", "cls2", "speedup"})
"""How Mininet itself builds a link; nothing of it shows in the packets' way."""


def end_options(options: Mapping[str, Any], end: int) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The options of one end (1 or 2), its own laid over the link's; and what of the link is not honoured, with why."""
    own: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for key, value in options.items():
        match = _OF_ENDS.fullmatch(key)
        if match is None:
            own[key] = value
        elif int(match[2]) == end:
            further.update(value if isinstance(value, Mapping) else {match[1]: value})
    own.update({key: value for key, value in further.items() if value is not None})
    notes = [
        (f"option {key}={value!r}", "it has no counterpart in a lab")
        for key, value in sorted(own.items())
        if key not in _READ | _OF_LINUX and value not in (None, False)
    ]
    if own.get("max_queue_size") is not None:
        counted = f"counted as {PACKET_OCTETS} octets a packet"
        notes.append((f"option max_queue_size={own['max_queue_size']!r}", counted))
    return own, notes


def impairment(own: Mapping[str, Any]) -> Impairment:
    """What packets that leave this end meet; ValueError for a value that tc would refuse."""
    rate = _number("bw", own.get("bw"), 1e-6, 1e6)
    loss = _number("loss", own.get("loss"), 0, 100)
    queue = _number("max_queue_size", own.get("max_queue_size"), 1, 1e9)
    delay, pdv = _time_ns("delay", own.get("delay")), _time_ns("jitter", own.get("jitter"))
    return Impairment(
        rate_bps=None if not rate else max(1, round(rate * 1e6)),
        delay_ns=delay,
        pdv_ns=pdv,
        loss_ratio=(loss or 0) / 100,
        queue_octets=None if queue is None else round(queue) * PACKET_OCTETS,
    )


def _number(name: str, written: object, least: float, most: float) -> float | None:
    if written is None:
        return None
    try:
        value = float(str(written).strip().removesuffix("%")) if name == "loss" else float(str(written))
    except ValueError:
        value = math.nan
    if isinstance(written, bool) or not least <= value <= most:
        raise ValueError(f"{name}={written!r}, not a number from {least:g} to {most:g}")
    return value


def _time_ns(name: str, written: object) -> int:
    if written is None:
        return 0
    match = _TIME.fullmatch(str(written).strip().lower())
    if match is None or match[2] not in _NS or float(match[1]) * _NS[match[2]] > _LARGEST_TIME_NS:
        raise ValueError(f"{name}={written!r}, not a time such as '5ms'")
    return round(float(match[1]) * _NS[match[2]])
