"""The shape of lab.yaml as pydantic models, and the JSON Schema that editors complete from.

This file checks each value alone; whether names refer to something is checked in `check`. It may not know the model
that is built from it, nor which kinds of node exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, StrictBool, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from topologies import units
from topologies.located import Strict
from topologies.model import Impairment, IpAddress, IpInterface, IpNetwork

SCHEMA_FILE = Path(__file__).with_name("lab.schema.json")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VRF = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_SERVICE = re.compile(r"(tcp|udp)/([0-9]{1,5})")
_LONGEST_INTERFACE_NAME = 64


def _expected(text: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "{expected}", {"expected": text})


def _quantity(parse: Callable[[object], int] | Callable[[object], float]) -> PlainValidator:
    def validate(written: object) -> int | float:
        try:
            return parse(written)
        except ValueError as error:
            raise _expected(str(error)) from None

    return PlainValidator(validate)


def _text(parse: Callable[[str], object], expected: str) -> PlainValidator:
    def validate(written: object) -> object:
        if not isinstance(written, str):
            raise _expected(expected)
        try:
            return parse(written)
        except ValueError as error:
            hint = f" ({error})" if "host bits" in str(error) else ""
            raise _expected(expected + hint) from None

    return PlainValidator(validate)


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(text)
        return text

    return parse


def _interface_address(text: str) -> IpInterface:
    if "/" not in text:
        raise ValueError(text)
    return ip_interface(text)


def _service(text: str) -> tuple[Literal["tcp", "udp"], int]:
    match = _SERVICE.fullmatch(text)
    if not match or not 0 < int(match[2]) < 65536:
        raise ValueError(text)
    return ("tcp" if match[1] == "tcp" else "udp"), int(match[2])


def _endpoint(text: str) -> tuple[str, str]:
    node, colon, interface = text.partition(":")
    if not colon or not _NAME.fullmatch(node) or not interface_name_ok(interface):
        raise ValueError(text)
    return node, interface


def _interface_name(text: str) -> str:
    if not interface_name_ok(text):
        raise ValueError(text)
    return text


def interface_name_ok(text: str) -> bool:
    """Whether a lab takes this as the name of an interface."""
    return 0 < len(text) <= _LONGEST_INTERFACE_NAME and text.isprintable() and not any(c.isspace() for c in text)


def _destination(text: str) -> IpNetwork | None:
    return None if text == "default" else ip_network(text)


_TEXT_SCHEMA = {"type": "string"}
_NAME_FORM = "a name of letters, digits, '_', '.' and '-' (at most 63, led by a letter or digit)"

Rate = Annotated[int, _quantity(units.rate_bps), WithJsonSchema({**_TEXT_SCHEMA, "examples": ["5Mbit"]})]
Duration = Annotated[
    int, _quantity(units.duration_ns), WithJsonSchema({"type": ["string", "integer"], "examples": ["10ms"]})
]
Ratio = Annotated[float, _quantity(units.ratio), WithJsonSchema({"type": ["string", "number"], "examples": ["1%"]})]
Octets = Annotated[int, _quantity(units.octets), WithJsonSchema({"type": ["string", "integer"], "examples": ["64KB"]})]
Name = Annotated[
    str, _text(_matching(_NAME), _NAME_FORM), WithJsonSchema({**_TEXT_SCHEMA, "pattern": f"^{_NAME.pattern}$"})
]
InterfaceName = Annotated[
    str,
    _text(_interface_name, f"an interface name of at most {_LONGEST_INTERFACE_NAME} characters and no blanks"),
    WithJsonSchema({**_TEXT_SCHEMA, "pattern": rf"^\S{{1,{_LONGEST_INTERFACE_NAME}}}$"}),
]
Mac = Annotated[
    str,
    _text(_matching(_MAC), "a MAC address such as 02:00:00:00:00:01"),
    WithJsonSchema({**_TEXT_SCHEMA, "pattern": f"^{_MAC.pattern}$"}),
]
InterfaceAddress = Annotated[
    IpInterface,
    _text(_interface_address, "an address with its prefix length such as 10.0.0.1/24 or 2001:db8::1/64"),
    WithJsonSchema({**_TEXT_SCHEMA, "examples": ["10.0.0.1/24"]}),
]
Prefix = Annotated[
    IpNetwork,
    _text(ip_network, "a network such as 198.51.100.0/24"),
    WithJsonSchema({**_TEXT_SCHEMA, "examples": ["10.0.0.0/8"]}),
]
Destination = Annotated[
    IpNetwork | None, _text(_destination, "'default' or a network such as 10.0.0.0/8"), WithJsonSchema(_TEXT_SCHEMA)
]
Gateway = Annotated[IpAddress, _text(ip_address, "an address such as 10.0.0.1"), WithJsonSchema(_TEXT_SCHEMA)]
Listen = Annotated[
    tuple[Literal["tcp", "udp"], int],
    _text(_service, "a service such as tcp/443 or udp/53"),
    WithJsonSchema({**_TEXT_SCHEMA, "pattern": "^(tcp|udp)/[0-9]{1,5}$"}),
]
Endpoint = Annotated[
    tuple[str, str],
    _text(_endpoint, "an end point such as 'fw1:ens3'"),
    WithJsonSchema({**_TEXT_SCHEMA, "examples": ["fw1:ens3"]}),
]
Mtu = Annotated[int, Field(ge=68, le=65535, strict=True)]
VlanId = Annotated[int, Field(ge=1, le=4094, strict=True)]
VrfName = Annotated[
    str,
    _text(_matching(_VRF), "a VRF of at most 15 letters, digits, '_' and '-'"),
    WithJsonSchema({**_TEXT_SCHEMA, "pattern": f"^{_VRF.pattern}$"}),
]
Word = Annotated[str, StringConstraints(min_length=1, strict=True)]
Argv = Annotated[tuple[Word, ...], Field(min_length=1)]
Kind = Annotated[str, StringConstraints(min_length=1, strict=True)]


class ImpairmentKeys(Strict):
    """What a link does to packets, as written; an absent key leaves that property as it was."""

    rate: Rate | None = None
    delay: Duration | None = None
    pdv: Duration | None = None
    loss: Ratio | None = None
    duplicate: Ratio | None = None
    reorder: Ratio | None = None
    corrupt: Ratio | None = None
    queue: Octets | None = None

    def over(self, before: Impairment) -> Impairment:
        """The impairment that results when these keys are written over another one."""
        return Impairment(
            rate_bps=before.rate_bps if self.rate is None else self.rate,
            delay_ns=before.delay_ns if self.delay is None else self.delay,
            pdv_ns=before.pdv_ns if self.pdv is None else self.pdv,
            loss_ratio=before.loss_ratio if self.loss is None else self.loss,
            duplicate_ratio=before.duplicate_ratio if self.duplicate is None else self.duplicate,
            reorder_ratio=before.reorder_ratio if self.reorder is None else self.reorder,
            corrupt_ratio=before.corrupt_ratio if self.corrupt is None else self.corrupt,
            queue_octets=before.queue_octets if self.queue is None else self.queue,
        )


class LinkKeys(ImpairmentKeys):
    """A link: keys at this level hold for both directions, `a-to-b` and `b-to-a` for one, and win."""

    endpoints: tuple[Endpoint, Endpoint]
    mtu: Mtu | None = None
    a_to_b: ImpairmentKeys = Field(default=ImpairmentKeys(), alias="a-to-b")
    b_to_a: ImpairmentKeys = Field(default=ImpairmentKeys(), alias="b-to-a")


class DefaultKeys(ImpairmentKeys):
    """What holds for every link and node that does not say otherwise."""

    mtu: Mtu | None = None
    kind: Kind | None = None


class InterfaceKeys(Strict):
    """An interface in its long form; the short form is the list of addresses alone."""

    addresses: tuple[InterfaceAddress, ...] = ()
    mac: Mac | None = None
    vlan: VlanId | None = None
    trunk: tuple[VlanId, ...] = ()
    vrf: VrfName | None = None


class RouteKeys(Strict):
    """A static route; `default` takes its family from the gateway."""

    to: Destination
    via: Gateway


class KindKeys(Strict):
    """What holds for every node of a kind, before the node's own entries."""

    routes: tuple[RouteKeys, ...] = ()
    listen: tuple[Listen, ...] = ()


def _long_form(written: object) -> object:
    return {"addresses": [] if written is None else written} if not isinstance(written, dict) else written


InterfaceEntry = Annotated[
    InterfaceKeys,
    BeforeValidator(_long_form, json_schema_input_type=tuple[InterfaceAddress, ...] | InterfaceKeys | None),
]


class NodeKeys(KindKeys):
    """One node as written."""

    kind: Kind | None = None
    interfaces: dict[InterfaceName, InterfaceEntry] = Field(default_factory=dict)
    prefixes: tuple[Prefix, ...] = ()
    run: tuple[Argv, ...] = ()
    exec: tuple[Argv, ...] = ()
    stp: StrictBool = False
    tags: tuple[Name, ...] = ()


class TopologyKeys(Strict):
    """The network as written, in the shape of containerlab files."""

    defaults: DefaultKeys = DefaultKeys()
    kinds: dict[Kind, KindKeys] = Field(default_factory=dict)
    nodes: Annotated[dict[Name, NodeKeys], Field(min_length=1)]
    links: tuple[LinkKeys, ...] = ()


class LabFile(Strict):
    """lab.yaml."""

    name: Name
    topology: TopologyKeys


def lab_schema() -> dict[str, Any]:
    """The JSON Schema of lab.yaml, for editors and for other programs that write labs."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **LabFile.model_json_schema(by_alias=True)}


def lab_schema_text() -> str:
    """The schema as the packaged file holds it."""
    return json.dumps(lab_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(lab_schema_text(), encoding="utf-8")
