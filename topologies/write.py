"""A topology and its files written as a native lab folder, which then can be kept, edited and loaded like any other.

Every importer ends here. This file may not know where a topology came from, nor what a kind of node does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath

from topologies import units
from topologies.imported import Files
from topologies.load import KNOWN_KINDS, LAB_FILE, Lab, load_lab
from topologies.model import DEFAULT_MTU, Impairment, Interface, Link, Node, Route, Topology

Remarks = Mapping[str, Sequence[str]]
"""What is said about nodes, a line each, by node name."""

_PLAIN = re.compile(
    r"[A-Za-z_][A-Za-z0-9_-]*"
    r"|[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?"
    r"|[0-9]+(\.[0-9]+)?([TGMk]?bit|[mun]?s|%)"
    r"|(tcp|udp)/[0-9]+"
)
_SPECIAL = frozenset(["true", "false", "yes", "no", "on", "off", "null", "nan", "inf", "y", "n"])
_RATES = ((10**12, "Tbit"), (10**9, "Gbit"), (10**6, "Mbit"), (10**3, "kbit"), (1, "bit"))
_DURATIONS = ((10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns"))


def write_lab(
    topology: Topology,
    files: Files,
    folder: Path,
    captures: Mapping[str, bytes] | None = None,
    kinds: frozenset[str] = KNOWN_KINDS,
    remarks: Remarks | None = None,
) -> Lab:
    """Write a lab into a folder that is empty or not there, and load it; InvalidLab when it is no valid lab.

    `files` holds every config; the nodes' own `configs` are not looked at.  Raises FileExistsError, and ValueError for
    a file whose name the loader would pass over.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not an empty folder")
    for node, name in files:
        if not writable(name):
            raise ValueError(f"a config of {node} cannot be named {name!r}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LAB_FILE).write_text(lab_text(topology, remarks), encoding="utf-8")
    for (node, name), content in files.items():
        _put(folder / "configs" / node / name, content)
    for name, content in (captures or {}).items():
        _put(folder / "traffic" / name, content)
    return load_lab(folder, kinds)


def writable(name: str) -> bool:
    """Whether a config may have this name: relative, without hidden parts, as the loader reads it."""
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and path.as_posix() == name
        and "\0" not in name
        and not any(part.startswith(".") for part in path.parts)
        and all(len(part.encode("utf-8", "replace")) < 256 for part in path.parts)
    )


def lab_text(topology: Topology, remarks: Remarks | None = None) -> str:
    """A topology as the text of its lab.yaml; `remarks` stand as comments above their nodes."""
    lines = [f"name: {_scalar(topology.name)}", "topology:", "  nodes:"]
    for node in topology.nodes:
        lines += [f"    # {_remark(text)}" for text in (remarks or {}).get(node.name, ())]
        lines += _node(node)
    if topology.links:
        lines.append("  links:")
        lines += [f"    - {_flow(_link(link))}" for link in topology.links]
    return "\n".join(lines) + "\n"


def _remark(text: str) -> str:
    """One line of a comment, whatever the text."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _node(node: Node) -> Iterator[str]:
    yield f"    {_scalar(node.name)}:"
    yield f"      kind: {_scalar(node.kind)}"
    if node.interfaces:
        yield "      interfaces:"
        for interface in node.interfaces:
            yield f"        {_scalar(interface.name)}: {_flow(_interface(interface))}"
    if node.routes:
        yield "      routes:"
        yield from (f"        - {_flow(_route(route))}" for route in node.routes)
    if node.prefixes:
        yield f"      prefixes: {_flow([str(prefix) for prefix in node.prefixes])}"
    if node.listen:
        yield f"      listen: {_flow([f'{service.protocol}/{service.port}' for service in node.listen])}"
    for key, argvs in (("run", node.programs), ("exec", node.commands)):
        if argvs:
            yield f"      {key}:"
            yield from (f"        - {_flow(list(argv))}" for argv in argvs)
    if node.stp:
        yield "      stp: true"
    if node.tags:
        yield f"      tags: {_flow(list(node.tags))}"


def _interface(interface: Interface) -> object:
    addresses = [str(address) for address in interface.addresses]
    further: dict[str, object] = {}
    if interface.mac is not None:
        further["mac"] = interface.mac
    if interface.vlan is not None:
        further["vlan"] = interface.vlan
    if interface.trunk:
        further["trunk"] = list(interface.trunk)
    if interface.vrf is not None:
        further["vrf"] = interface.vrf
    return {"addresses": addresses, **further} if further else addresses


def _route(route: Route) -> dict[str, object]:
    return {"to": str(route.to), "via": str(route.via)}


def _link(link: Link) -> dict[str, object]:
    written: dict[str, object] = {"endpoints": [f"{end.node}:{end.interface}" for end in (link.a, link.b)]}
    if link.mtu != DEFAULT_MTU:
        written["mtu"] = link.mtu
    if link.a.egress == link.b.egress:
        return {**written, **_limits(link.a.egress)}
    for key, end in (("a-to-b", link.a), ("b-to-a", link.b)):
        if end.egress != Impairment():
            written[key] = _limits(end.egress)
    return written


def _limits(egress: Impairment) -> dict[str, object]:
    written: dict[str, object] = {}
    if egress.rate_bps is not None:
        written["rate"] = _in_units(egress.rate_bps, _RATES)
    for key, ns in (("delay", egress.delay_ns), ("pdv", egress.pdv_ns)):
        if ns:
            written[key] = _in_units(ns, _DURATIONS)
    ratios = (
        ("loss", egress.loss_ratio),
        ("duplicate", egress.duplicate_ratio),
        ("reorder", egress.reorder_ratio),
        ("corrupt", egress.corrupt_ratio),
    )
    written |= {key: _percent(value) for key, value in ratios if value}
    if egress.queue_octets is not None:
        written["queue"] = egress.queue_octets
    return written


def _in_units(value: int, scale: Iterable[tuple[int, str]]) -> str:
    return next(f"{value // size}{unit}" for size, unit in scale if value % size == 0)


def _percent(value: float) -> object:
    """A percentage that reads back as exactly this ratio, or else the bare fraction."""
    text = f"{(Decimal(repr(value)) * 100).normalize():f}%"
    try:
        if units.ratio(text) == value:
            return text
    except ValueError:
        pass
    return value


def _flow(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case str():
            return _scalar(value)
        case float():
            return f"{Decimal(repr(value)):f}"
        case _:
            return str(value)


def _scalar(text: str) -> str:
    """Text that YAML reads back as the same text: bare where no rule of YAML gives it another meaning."""
    if _PLAIN.fullmatch(text) and text.lower() not in _SPECIAL:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return f"\\{sign}"
    return sign if sign.isprintable() else f"\\U{ord(sign):08x}"
