"""The shape of a containerlab file (`*.clab.yml`) as pydantic models, as far as a lab can honour it.

Keys that are not listed are kept in `model_extra`, as containerlab has many and each must be named, not refused.
Checks each value alone. This file may not know what becomes of a value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from topologies.schema import Mac, Mtu, Name

Text = Annotated[str, StringConstraints(strict=True)]


def _as_text(written: object) -> object:
    """YAML's numbers and booleans as the words they were, where a value is a word."""
    if isinstance(written, bool):
        return "true" if written else "false"
    return str(written) if isinstance(written, (int, float)) else written


def _as_dict(written: object) -> object:
    """`KEY=VALUE` items as a mapping, and nothing as an empty one."""
    if written is None:
        return {}
    if isinstance(written, list) and all(isinstance(item, str) for item in written):
        return dict(item.partition("=")[::2] for item in written)
    return written


def _nothing_is(empty: Any) -> BeforeValidator:
    return BeforeValidator(lambda written: empty if written is None else written)


Word = Annotated[Text, BeforeValidator(_as_text)]
Words = Annotated[dict[str, Annotated[Word, _nothing_is("")]], BeforeValidator(_as_dict)]
Lines = Annotated[tuple[Word, ...], _nothing_is(())]


class Open(BaseModel):
    """The base of containerlab's models: frozen, unknown keys kept, YAML's merge key (`<<`) carried out."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _merged(cls, written: object) -> object:
        return merged(written)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Keys of the file that no field has; `x-...` are by convention nobody's."""
        return tuple(key for key in self.model_extra or {} if not key.startswith("x-"))


def merged(written: object) -> object:
    """A mapping with what its merge key names put in, where its own keys win (YAML 1.1, merge key)."""
    if not isinstance(written, dict) or "<<" not in written:
        return written
    own = {key: value for key, value in written.items() if key != "<<"}
    others = written["<<"] if isinstance(written["<<"], list) else [written["<<"]]
    for other in others:
        flat = merged(other)
        if not isinstance(flat, dict):
            return written
        own = {**flat, **own}
    return own


class NodeKeys(Open):
    """A node, or the same keys under `defaults`, `kinds` and `groups`."""

    kind: Word | None = None
    image: Word | None = None
    group: Word | None = None
    binds: Lines = ()
    exec: Lines = ()
    env: Words = Field(default_factory=dict)
    labels: Words = Field(default_factory=dict)
    sysctls: Words = Field(default_factory=dict)
    ports: Lines = ()
    cmd: Word | None = None
    entrypoint: Word | None = None
    startup_config: Word | None = Field(default=None, alias="startup-config")


class ShortLink(Open):
    """`endpoints: ["a:eth1", "b:eth1"]`."""

    endpoints: Annotated[tuple[Word, ...], Field(min_length=2, max_length=2)]
    mtu: Mtu | None = None


class EndPoint(Open):
    """One end of a link in its long form."""

    node: Word
    interface: Word
    mac: Mac | None = None
    ipv4: Word | None = None
    ipv6: Word | None = None


class LongLink(Open):
    """`{type: veth, endpoints: [{node, interface}, ...]}`."""

    type: Literal["veth"]
    endpoints: Annotated[tuple[EndPoint, ...], Field(min_length=2, max_length=2)]
    mtu: Mtu | None = None


class OtherLink(Open):
    """A link of a type that leads out of the lab: host, mgmt-net, macvlan, vxlan, vxlan-stitch, dummy."""

    type: Literal["host", "mgmt-net", "macvlan", "vxlan", "vxlan-stitch", "dummy"]


def link_form(written: object) -> str:
    """Which of the three forms a link has, by its `type`."""
    if not isinstance(written, dict):
        return "short"
    kind = written.get("type")
    if kind is None:
        return "short"
    return "long" if kind == "veth" else "other"


AnyLink = Annotated[
    Annotated[ShortLink, Tag("short")] | Annotated[LongLink, Tag("long")] | Annotated[OtherLink, Tag("other")],
    Discriminator(link_form),
]
Level = Annotated[NodeKeys, _nothing_is({})]
Levels = Annotated[dict[Text, Level], BeforeValidator(merged), _nothing_is({})]


class TopologyKeys(Open):
    """`topology:`."""

    defaults: Level = NodeKeys()
    kinds: Levels = Field(default_factory=dict)
    groups: Levels = Field(default_factory=dict)
    nodes: Annotated[dict[Name, Level], BeforeValidator(merged), Field(min_length=1)]
    links: Annotated[tuple[AnyLink, ...], _nothing_is(())] = ()


class ClabFile(Open):
    """A containerlab file."""

    name: Word
    topology: TopologyKeys
