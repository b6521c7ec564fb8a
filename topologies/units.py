"""Quantities as people write them (`10ms`, `5Mbit`, `1%`, `64KiB`) turned into integers and ratios.

This file knows nothing of YAML or labs. Rates follow tc(8) with its trap closed: there `mbit` is megabits but `mbps`
is mega*bytes* a second, so no `...ps` form is accepted here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal

RATE_FORM = "a rate in bits a second such as 100kbit, 5Mbit or 1Gbit"
DURATION_FORM = "a duration such as 250us, 10ms or 1.5s"
RATIO_FORM = "a percentage such as 1% or 0.5%"
OCTETS_FORM = "a size such as 64KB, 64KiB or a number of octets"

_RATE_BPS: Mapping[str, int] = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "tbit": 10**12}
_DURATION_NS: Mapping[str, int] = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9}
_OCTETS: Mapping[str, int] = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,18})?) ?([A-Za-zµ%]{0,4})", re.ASCII)
_LARGEST = 2**63 - 1


def rate_bps(written: object) -> int:
    """Bits a second of `5Mbit`; a bare number has no unit and is refused. ValueError says the form expected."""
    bps = _scaled(written, _RATE_BPS, RATE_FORM)
    if bps < 1:
        raise ValueError(f"{RATE_FORM}, at least 1bit")
    return bps


def duration_ns(written: object) -> int:
    """Nanoseconds of `10ms`; of bare numbers only 0 means the same in every unit. ValueError says the form expected."""
    if _is_number(written) and written == 0:
        return 0
    return _scaled(written, _DURATION_NS, DURATION_FORM)


def ratio(written: object) -> float:
    """A ratio from 0 to 1 of `1%` or of a fraction below 1; a bare 1 could mean either: ValueError."""
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        if math.isfinite(written) and 0 <= written < 1:
            return float(written)
        raise ValueError(f"{RATIO_FORM}, or a fraction from 0 to below 1")
    number, unit = _parts(written, RATIO_FORM)
    if unit != "%" or number > 100:
        raise ValueError(f"{RATIO_FORM}, from 0% to 100%")
    return float(number / 100)


def octets(written: object) -> int:
    """Octets of `64KiB` or of a bare integer. ValueError says the form expected."""
    if isinstance(written, int) and not isinstance(written, bool):
        if 0 < written <= _LARGEST:
            return written
        raise ValueError(f"{OCTETS_FORM}, at least 1")
    size = _scaled(written, _OCTETS, OCTETS_FORM)
    if size < 1:
        raise ValueError(f"{OCTETS_FORM}, at least 1")
    return size


def _scaled(written: object, scale: Mapping[str, int], form: str) -> int:
    number, unit = _parts(written, form)
    factor = scale.get(unit.lower())
    if factor is None:
        raise ValueError(form)
    value = number * factor
    if value > _LARGEST or value != value.to_integral_value():
        raise ValueError(f"{form}, a whole number of the smallest unit that fits in 63 bits")
    return int(value)


def _parts(written: object, form: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        raise ValueError(form)
    return Decimal(match[1]), match[2]


def _is_number(written: object) -> bool:
    return isinstance(written, (int, float)) and not isinstance(written, bool)
