"""expect.yaml as it is written: every value checked alone and against the lab, each mistake at its line and column.

May not know what was seen of what is declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from analysis.kpi import KPIS as JUDGED
from analysis.kpi import Direction, Kpi, Tolerance
from replay.flow_priority import OTHER_CLASS
from testbed.errors import InvalidInput
from testbed.expectations.model import Expectations, Fate, Intent, Match, Service, Waiver
from topologies.located import InvalidLab, Loc, Located, Problem, Strict, nearest, read_located, shown
from topologies.model import IpAddress, IpNetwork, Topology
from topologies.schema import Prefix

NAME = "expect.yaml"
PROTOCOLS = {"tcp": (6,), "udp": (17,), "icmp": (1, 58)}
PRIORITY = Literal["critical", "high", "normal", "low"]
FATES = tuple(fate.value for fate in Fate)

_MOST_PORT = 65_535
_SERVICE = re.compile(r"([a-z]+)(?:/([0-9]{1,5})(?:-([0-9]{1,5}))?)?")
_ARROW = re.compile(r"\s*(?:->|→)\s*")
_ALLOWED = re.compile(r"([+\-−])\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(\S*)")
_OR = re.compile(r"\s+or\s+")
_UNITS = {
    "ns": {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9},
    "ratio": {"points": 0.01},
    "bps": {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9},
    "octets": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    "count": {"": 1.0},
}


def _expected(text: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "{expected}", {"expected": text})


def _listed(written: object) -> object:
    return written if isinstance(written, list) else [written]


def _service(written: object) -> Service:
    form = "a service such as tcp/443, udp/5000-5100, tcp or icmp"
    parts = _SERVICE.fullmatch(written) if isinstance(written, str) else None
    if parts is None:
        raise _expected(form)
    word, low, high = parts.groups()
    if word not in PROTOCOLS:
        raise _expected(f"{form}; the protocol is {nearest(word, PROTOCOLS)}")
    if low is None:
        return Service(PROTOCOLS[word])
    first, last = int(low), int(high or low)
    if word == "icmp" or not 0 < first <= last <= _MOST_PORT:
        raise _expected(f"{form}, ports from 1 to {_MOST_PORT}, the lower one first")
    return Service(PROTOCOLS[word], (first, last))


def _becomes(written: object) -> tuple[Fate | None, Fate]:
    form = "what it becomes, such as 'denied -> permitted', or only 'permitted'"
    words = _ARROW.split(written.strip()) if isinstance(written, str) else []
    if not 1 <= len(words) <= 2:
        raise _expected(f"{form}; {nearest('', FATES)}")
    for word in words:
        if word not in FATES:
            raise _expected(f"{form}; {shown(word)} is {nearest(word, FATES)}")
    before, after = (None if len(words) == 1 else Fate(words[0])), Fate(words[-1])
    if before is after:
        raise _expected(f"{form}, two that differ")
    return before, after


def _day(written: object) -> date:
    try:
        if isinstance(written, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", written, re.ASCII):
            return date.fromisoformat(written)
    except ValueError:
        pass
    raise _expected("a day that there is, such as 2027-01-31: the last one on which it is in force")


def _written(text: str) -> str:
    if not text.strip():
        raise _expected("some text")
    return text


def _number_as_text(written: object) -> object:
    """YAML takes `+2` for a number."""
    return f"+{written}" if isinstance(written, int) and not isinstance(written, bool) else written


def _address(written: object) -> IpAddress:
    try:
        if isinstance(written, str):
            return ip_address(written)
    except ValueError:
        pass
    raise _expected("an address such as 10.0.0.1")


_Words = Annotated[str, AfterValidator(_written)]
_Allowed = Annotated[_Words, BeforeValidator(_number_as_text)]
_Names = Annotated[tuple[_Words, ...], BeforeValidator(_listed), Field(min_length=1)]
_Prefixes = Annotated[tuple[Prefix, ...], BeforeValidator(_listed), Field(min_length=1)]
_Service = Annotated[Service, PlainValidator(_service), WithJsonSchema({"type": "string", "examples": ["tcp/443"]})]
_Services = Annotated[tuple[_Service, ...], BeforeValidator(_listed), Field(min_length=1)]
_Priorities = Annotated[tuple[PRIORITY, ...], BeforeValidator(_listed), Field(min_length=1)]
_Becomes = Annotated[
    tuple[Fate | None, Fate],
    PlainValidator(_becomes),
    WithJsonSchema({"type": "string", "examples": ["denied -> permitted"]}),
]
_Day = Annotated[date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
_Address = Annotated[IpAddress, PlainValidator(_address), WithJsonSchema({"type": "string"})]


class _MatchKeys(Strict):
    service: _Services | None = None
    source: _Prefixes | None = None
    destination: _Prefixes | None = None
    flow_class: _Names | None = Field(default=None, alias="class")
    tag: _Words | None = None
    priority: _Priorities | None = None
    label: _Words | None = None
    application: _Words | None = None


class _IntentKeys(Strict):
    name: _Words | None = None
    match: _MatchKeys = _MatchKeys()
    becomes: _Becomes | None = None
    via: _Names | None = None
    not_via: _Names | None = None
    backend: _Names | None = None
    translated_to: _Address | None = None
    kpis: dict[str, _Allowed] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_something(self) -> _IntentKeys:
        said = (self.becomes, self.via, self.not_via, self.backend, self.translated_to)
        if not self.kpis and all(part is None for part in said):
            raise _expected("what may change: at least one of becomes, via, not_via, backend, translated_to, kpis")
        return self


class _PatternKeys(Strict):
    finding_id: _Words | None = Field(default=None, alias="id")
    kpi: _Words | None = None
    flow_class: _Words | None = Field(default=None, alias="class")
    node: _Words | None = None
    file: _Words | None = None
    text: _Words | None = None

    @model_validator(mode="after")
    def _fits_not_all(self) -> _PatternKeys:
        if not self.given():
            raise _expected("at least one of id, kpi, class, node, file and text; a waiver for everything is none")
        return self

    def given(self) -> dict[str, str]:
        return {str(name): str(text) for name, text in self.model_dump(by_alias=True).items() if text is not None}


class _WaiverKeys(Strict):
    finding: _PatternKeys
    owner: _Words
    reason: _Words
    expires: _Day


class _ExpectFile(Strict):
    must: tuple[_IntentKeys, ...] = ()
    may: tuple[_IntentKeys, ...] = ()
    waivers: tuple[_WaiverKeys, ...] = ()


def read_expectations(
    path: Path, topology: Topology, classes: Iterable[str], today: date, shown_as: str | None = None
) -> Expectations:
    """The file, checked against the lab's nodes and the policy's class names; InvalidInput tells every problem.

    `today` decides which waivers are still in force, `shown_as` is how people know the file.
    """
    try:
        located = read_located(path, _ExpectFile)
        checked = _Checked(located, topology, frozenset((*classes, OTHER_CLASS)))
        return checked.expectations(shown_as or str(path), today)
    except InvalidLab as error:
        raise InvalidInput.of(error) from None


class _Checked:
    """The model of a file, held against a lab; problems are gathered so that all of them are told at once."""

    def __init__(self, located: Located[_ExpectFile], topology: Topology, classes: frozenset[str]) -> None:
        self._located, self._topology, self._classes = located, topology, classes
        self._nodes = frozenset(node.name for node in topology.nodes)
        self._lines = located.path.read_text("utf-8-sig", "replace").splitlines()
        self._problems: list[Problem] = []

    def expectations(self, file: str, today: date) -> Expectations:
        """All of it; InvalidLab when anything does not fit the lab."""
        model = self._located.model
        groups: tuple[tuple[Literal["must", "may"], tuple[_IntentKeys, ...]], ...] = (
            ("must", model.must),
            ("may", model.may),
        )
        intents = [self._intent(group, at, keys) for group, written in groups for at, keys in enumerate(written)]
        waivers = [
            Waiver(
                f"waiver {at + 1}",
                keys.owner,
                keys.reason,
                keys.expires,
                self._located.line("waivers", at),
                keys.finding.given(),
            )
            for at, keys in enumerate(model.waivers)
        ]
        names = [intent.name for intent in intents]
        for at, name in enumerate(names):
            if name in names[:at]:
                self._problems.append(
                    Problem(self._located.path, intents[at].line, 1, f"a second {shown(name)}", "every name once")
                )
        if self._problems:
            raise InvalidLab.of(self._problems)
        return Expectations(file, today, tuple(intents), tuple(waivers))

    def _intent(self, group: Literal["must", "may"], at: int, keys: _IntentKeys) -> Intent:
        loc: Loc = (group, at)
        for name, nodes in (("via", keys.via), ("not_via", keys.not_via), ("backend", keys.backend)):
            self._among((*loc, name), nodes or (), self._nodes, "a node of the lab")
        if keys.translated_to is not None and self._topology.owner(keys.translated_to) is None:
            self._problem((*loc, "translated_to"), str(keys.translated_to), "an address that a node of the lab has")
        line = self._located.line(*loc)
        return Intent(
            name=keys.name or f"{group} {at + 1}",
            demanded=group == "must",
            match=self._match((*loc, "match"), keys.match),
            line=line,
            text=self._lines[line - 1].strip().removeprefix("- ") if line <= len(self._lines) else "",
            becomes=keys.becomes,
            via=keys.via or (),
            not_via=keys.not_via or (),
            backend=keys.backend or (),
            translated_to=keys.translated_to,
            bounds=dict(self._bounds((*loc, "kpis"), keys.kpis)),
        )

    def _match(self, loc: Loc, keys: _MatchKeys) -> Match:
        self._among((*loc, "class"), keys.flow_class or (), self._classes, "a class of the policy")
        return Match(
            keys.service,
            keys.source,
            keys.destination,
            keys.flow_class,
            keys.priority,
            None if keys.tag is None else self._ends((*loc, "tag"), keys.tag),
            keys.label,
            keys.application,
        )

    def _ends(self, loc: Loc, tag: str) -> tuple[IpNetwork, ...]:
        nodes = [node for node in self._topology.nodes if tag in node.tags]
        known = {tag for node in self._topology.nodes for tag in node.tags}
        self._among(loc, (tag,), known, "a tag of some node")
        own = [ip_network(one.ip) for node in nodes for i in node.interfaces for one in i.addresses]
        return (*own, *(prefix for node in nodes for prefix in node.prefixes))

    def _bounds(self, loc: Loc, written: dict[str, str]) -> Iterator[tuple[str, Tolerance]]:
        for name, text in written.items():
            if name not in JUDGED:
                self._problems.append(
                    self._located.problem((*loc, name), f"the KPI {shown(name)}", nearest(name, JUDGED), at_key=True)
                )
                continue
            bound = _bound(text, JUDGED[name])
            if bound is None:
                self._problem((*loc, name), text, _bound_form(JUDGED[name]))
            else:
                yield name, bound

    def _among(self, loc: Loc, names: Sequence[str], known: Iterable[str], what: str) -> None:
        for name in names:
            if name not in (choices := frozenset(known)):
                self._problem(loc, name, f"{what}, {nearest(name, choices)}")

    def _problem(self, loc: Loc, found: str, expected: str) -> None:
        self._problems.append(self._located.problem(loc, shown(found), expected))


def _bound(text: str, kpi: Kpi) -> Tolerance | None:
    """`+20 %`, `+5 ms` or `+20 % or +2 ms`, of which the larger counts; None for anything else."""
    relative = absolute = None
    for part in _OR.split(text.strip()):
        found = _ALLOWED.fullmatch(part)
        if found is None or (found[1] == "+") is not (kpi.direction is Direction.LOWER):
            return None
        value, unit = float(found[2]), found[3]
        if unit == "%" and relative is None:
            relative = value / 100
        elif unit in _UNITS[kpi.unit] and absolute is None:
            absolute = value * _UNITS[kpi.unit][unit]
        else:
            return None
    return Tolerance(relative or 0.0, absolute or 0.0)


def _bound_form(kpi: Kpi) -> str:
    sign = "+" if kpi.direction is Direction.LOWER else "-"
    units = ", ".join(unit or "a bare number" for unit in _UNITS[kpi.unit])
    which = {"ns": "5 ms", "ratio": "0.5 points", "bps": "1 Mbit/s", "octets": "2 kB", "count": "2"}[kpi.unit]
    return (
        f"how far {kpi.label} may worsen: '{sign}20 %', '{sign}{which}' or '{sign}20 % or {sign}{which}' "
        f"(a share, or one of: {units})"
    )
