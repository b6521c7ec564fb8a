"""What matters to whom: flow classes with their priority, tolerances and how long to measure, read from policy.yaml.

Plain frozen values. This file may not know replay or analysis: the tables' own column names are the vocabulary, and
a KPI without a tolerance here keeps the one that the analysis gives it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from testbed.errors import InvalidInput
from topologies.located import InvalidLab, Strict, nearest, read_yaml
from topologies.model import IpNetwork
from topologies.schema import Prefix

PROTOCOLS: Mapping[str, int] = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
DELAY_KPIS = frozenset(
    {
        "connect_ns",
        "first_response_ns",
        "response_ns",
        "one_way_delay_forward_ns",
        "one_way_delay_reverse_ns",
        "pdv_ns",
        "duration_ns",
    }
)
KPIS = DELAY_KPIS | {"loss_ratio", "retransmits", "delivered_octets", "goodput_bps"}
_NS_PER_MS, _NS_PER_US = 1_000_000, 1_000


@dataclass(frozen=True, slots=True)
class ClassRule:
    """Flows that match every given condition are of this class; the first rule that matches wins.

    `port` is the destination's, `label` a glob over the whole label (host name, server name), `protocol` IANA's number.
    """

    name: str
    priority: str = "normal"
    protocol: int | None = None
    port: int | None = None
    label: str | None = None
    source: IpNetwork | None = None
    destination: IpNetwork | None = None
    application: str | None = None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a KPI may worsen: beyond both `relative` of its baseline and `absolute`, in the KPI's own unit."""

    relative: float
    absolute: float


@dataclass(frozen=True, slots=True)
class Policy:
    """A lab's policy; the defaults hold for a lab without one. Unmatched flows are class `other`, priority normal."""

    classes: tuple[ClassRule, ...] = ()
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict, hash=False)
    speed: float = 5.0
    baseline_windows: int = 3
    treatment_windows: int = 3
    connect_timeout_s: float = 3.0
    response_timeout_s: float = 5.0
    opened: Literal["report", "fail"] = "report"
    expected: tuple[ClassRule, ...] = ()
    """What an access means that a change opens, and the accesses that may open."""


def read_policy(path: Path | None) -> Policy:
    """The policy in a file, or the defaults for None; InvalidInput tells every problem with its line."""
    if path is None:
        return Policy()
    try:
        written = read_yaml(path, _PolicyFile)
    except InvalidLab as error:
        raise InvalidInput.of(error) from None
    return Policy(
        classes=tuple(_rule(keys) for keys in written.classes),
        tolerances={kpi: _tolerance(keys) for kpi, keys in written.tolerances.items()},
        speed=written.replay.speed,
        baseline_windows=written.windows.baseline,
        treatment_windows=written.windows.treatment,
        connect_timeout_s=written.replay.connect_timeout_s,
        response_timeout_s=written.replay.response_timeout_s,
        opened=written.access.opened,
        expected=tuple(
            _rule(_ClassKeys(name=f"expected {number}", match=keys))
            for number, keys in enumerate(written.access.expected)
        ),
    )


def _expected(text: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "{expected}", {"expected": text})


def _protocol(written: object) -> int:
    if isinstance(written, int) and not isinstance(written, bool) and 0 <= written <= 255:
        return written
    if isinstance(written, str) and written in PROTOCOLS:
        return PROTOCOLS[written]
    raise _expected(f"a protocol, one of: {', '.join(PROTOCOLS)}, or a number from 0 to 255")


def _among(choices: frozenset[str]) -> AfterValidator:
    def validate(written: str) -> str:
        if written not in choices:
            raise _expected(nearest(written, choices))
        return written

    return AfterValidator(validate)


def _number(written: float) -> float:
    if isinstance(written, bool) or not math.isfinite(written):
        raise _expected("a finite number")
    return written


_Protocol = Annotated[int, PlainValidator(_protocol), WithJsonSchema({"type": ["string", "integer"]})]
_Number = Annotated[float, Field(ge=0, strict=True), AfterValidator(_number)]
_Positive = Annotated[float, Field(gt=0, le=1e6, strict=True), AfterValidator(_number)]
_Windows = Annotated[int, Field(ge=1, le=1000, strict=True)]


class _MatchKeys(Strict):
    protocol: _Protocol | None = None
    port: Annotated[int, Field(ge=0, le=65535, strict=True)] | None = None
    label: str | None = None
    source: Prefix | None = None
    destination: Prefix | None = None
    application: str | None = None


class _ClassKeys(Strict):
    name: Annotated[str, Field(min_length=1)]
    priority: Literal["critical", "high", "normal", "low"] = "normal"
    match: _MatchKeys = _MatchKeys()


class _ToleranceKeys(Strict):
    relative: _Number
    absolute: _Number | None = None
    absolute_ms: _Number | None = None
    absolute_us: _Number | None = None

    @model_validator(mode="after")
    def _one_absolute(self) -> _ToleranceKeys:
        given = [value for value in (self.absolute, self.absolute_ms, self.absolute_us) if value is not None]
        if len(given) != 1:
            raise _expected("exactly one of absolute, absolute_ms and absolute_us")
        return self


class _ReplayKeys(Strict):
    speed: _Positive = 5.0
    connect_timeout_s: _Positive = 3.0
    response_timeout_s: _Positive = 5.0


class _WindowKeys(Strict):
    baseline: _Windows = 3
    treatment: _Windows = 3


class _AccessKeys(Strict):
    opened: Literal["report", "fail"] = "report"
    expected: tuple[_MatchKeys, ...] = ()


class _PolicyFile(Strict):
    classes: tuple[_ClassKeys, ...] = ()
    tolerances: dict[Annotated[str, _among(KPIS)], _ToleranceKeys] = Field(default_factory=dict)
    replay: _ReplayKeys = _ReplayKeys()
    windows: _WindowKeys = _WindowKeys()
    access: _AccessKeys = _AccessKeys()

    @model_validator(mode="after")
    def _consistent(self) -> _PolicyFile:
        names = [keys.name for keys in self.classes]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise _expected(f"every class name once ({twice!r} comes twice)")
        for kpi, keys in self.tolerances.items():
            if keys.absolute is None and kpi not in DELAY_KPIS:
                raise _expected(f"'absolute' without a time unit for {kpi}, which is no time")
        return self


def _rule(keys: _ClassKeys) -> ClassRule:
    wanted = keys.match
    return ClassRule(
        name=keys.name,
        priority=keys.priority,
        protocol=wanted.protocol,
        port=wanted.port,
        label=wanted.label,
        source=wanted.source,
        destination=wanted.destination,
        application=wanted.application,
    )


def _tolerance(keys: _ToleranceKeys) -> Tolerance:
    if keys.absolute_ms is not None:
        return Tolerance(keys.relative, keys.absolute_ms * _NS_PER_MS)
    if keys.absolute_us is not None:
        return Tolerance(keys.relative, keys.absolute_us * _NS_PER_US)
    return Tolerance(keys.relative, keys.absolute or 0.0)
