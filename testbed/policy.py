"""What matters to whom: flow classes with their priority, tolerances and how long to measure, read from policy.yaml.

Plain frozen values. This file may not know replay or analysis: the tables' own column names are the vocabulary, and
a KPI without a tolerance here keeps the one that the analysis gives it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from testbed.errors import InvalidInput
from testbed.plan import FEWEST_PAIRS, MOST_PAIRS
from topologies.located import InvalidLab, Strict, nearest, read_yaml
from topologies.model import IpNetwork, Topology
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
_MOST_PORT = 65_535
_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")


def _ports_between(written: object) -> range:
    """A range of ports as a run keeps it: [first, last]."""
    if isinstance(written, range):
        return written
    if (
        isinstance(written, list)
        and len(written) == 2
        and all(type(p) is int and 0 <= p <= _MOST_PORT for p in written)
    ):
        return range(written[0], written[1] + 1)
    raise _expected("a pair of ports from 0 to 65535")


PortRange = Annotated[
    range, PlainValidator(_ports_between), PlainSerializer(lambda ports: [ports.start, ports.stop - 1])
]


@dataclass(frozen=True, slots=True)
class ClassRule:
    """Flows that match every given condition are of this class; the first rule that matches wins.

    `port` is the destination's, or ranges of it; `label` a glob over the whole label (host name, server name);
    `protocol` IANA's number. `tag` is one of the node at either end; `ends` are that node's networks, once they are
    known.
    """

    name: str
    priority: str = "normal"
    protocol: int | None = None
    port: int | tuple[PortRange, ...] | None = None
    label: str | None = None
    source: IpNetwork | tuple[IpNetwork, ...] | None = None
    destination: IpNetwork | tuple[IpNetwork, ...] | None = None
    application: str | None = None
    tag: str | None = None
    ends: tuple[IpNetwork, ...] | None = None


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
    treatment_windows: int | None = None
    """Windows with the change in force, all in a row; None where pairs of windows are played."""
    pairs: int | None = None
    budget_s: float | None = None
    connect_timeout_s: float = 3.0
    response_timeout_s: float = 5.0
    opened: Literal["report", "fail"] = "report"
    expected: tuple[ClassRule, ...] = ()
    """What an access means that a change opens, and the accesses that may open."""


def tagged(policy: Policy, path: Path, topology: Topology | None) -> Policy:
    """The policy with every tag's networks; InvalidInput for a tag that no node has, and for any without a topology."""

    def resolved(rule: ClassRule) -> ClassRule:
        if rule.tag is None:
            return rule
        if topology is None:
            raise InvalidInput(path, 1, 1, f"a match by the tag {rule.tag!r}", "none: tags are of a lab's nodes")
        nodes = [node for node in topology.nodes if rule.tag in node.tags]
        if not nodes:
            known = {tag for node in topology.nodes for tag in node.tags}
            raise InvalidInput(path, 1, 1, f"the tag {rule.tag!r}, which no node has", nearest(rule.tag, known))
        own = (ip_network(own.ip) for node in nodes for interface in node.interfaces for own in interface.addresses)
        return replace(rule, ends=(*own, *(prefix for node in nodes for prefix in node.prefixes)))

    return replace(policy, classes=tuple(map(resolved, policy.classes)), expected=tuple(map(resolved, policy.expected)))


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
        pairs=written.windows.pairs,
        budget_s=written.windows.budget_s,
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


def _ports(written: object) -> int | tuple[range, ...]:
    """One port, a range such as 8000-8100, or a list of either."""
    if isinstance(written, list) and written:
        each = [_ports(one) for one in written if not isinstance(one, list)]
        if len(each) == len(written):
            return tuple(
                one for ports in each for one in ([range(ports, ports + 1)] if isinstance(ports, int) else ports)
            )
    if isinstance(written, int) and not isinstance(written, bool) and 0 <= written <= _MOST_PORT:
        return written
    between = _RANGE.fullmatch(written) if isinstance(written, str) else None
    if between and int(between[1]) <= int(between[2]) <= _MOST_PORT:
        return (range(int(between[1]), int(between[2]) + 1),)
    raise _expected(f"a port from 0 to {_MOST_PORT}, a range such as '8000-8100', or a list of them")


_Ports = Annotated[
    int | tuple[range, ...],
    PlainValidator(_ports),
    WithJsonSchema({"type": ["integer", "string", "array"], "examples": [443, [80, 443], "8000-8100"]}),
]
_Prefixes = Annotated[
    tuple[Prefix, ...],
    BeforeValidator(lambda written: written if isinstance(written, list) else [written]),
    Field(min_length=1),
]


class _MatchKeys(Strict):
    protocol: _Protocol | None = None
    port: _Ports | None = None
    label: str | None = None
    source: _Prefixes | None = None
    destination: _Prefixes | None = None
    application: str | None = None
    tag: Annotated[str, Field(min_length=1)] | None = None


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
    treatment: _Windows | None = None
    pairs: Annotated[int, Field(ge=FEWEST_PAIRS, le=MOST_PAIRS, strict=True)] | None = None
    budget_s: _Positive | None = None

    @model_validator(mode="after")
    def _one_design(self) -> _WindowKeys:
        if sum(value is not None for value in (self.treatment, self.pairs, self.budget_s)) > 1:
            raise _expected("at most one of treatment, pairs and budget_s")
        return self


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
        source=_one_or_more(wanted.source),
        destination=_one_or_more(wanted.destination),
        application=wanted.application,
        tag=wanted.tag,
    )


def _one_or_more(networks: tuple[IpNetwork, ...] | None) -> IpNetwork | tuple[IpNetwork, ...] | None:
    return networks[0] if networks is not None and len(networks) == 1 else networks


def _tolerance(keys: _ToleranceKeys) -> Tolerance:
    if keys.absolute_ms is not None:
        return Tolerance(keys.relative, keys.absolute_ms * _NS_PER_MS)
    if keys.absolute_us is not None:
        return Tolerance(keys.relative, keys.absolute_us * _NS_PER_US)
    return Tolerance(keys.relative, keys.absolute or 0.0)
