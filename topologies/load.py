"""A lab folder read into a Lab: the topology and where its configs, captures, policy and changes lie.

This file may not know what a kind of node does: the kinds that exist are a parameter, and config files stay unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from topologies.check import problems_of
from topologies.located import InvalidLab, Located, Problem, nearest, read_located
from topologies.model import (
    DEFAULT_MTU,
    Impairment,
    Interface,
    IpNetwork,
    Link,
    LinkEnd,
    Node,
    Route,
    Service,
    Topology,
)
from topologies.schema import DefaultKeys, KindKeys, LabFile, LinkKeys, NodeKeys, RouteKeys

LAB_FILE = "lab.yaml"
KNOWN_KINDS = frozenset({"edge", "host", "router", "firewall", "loadbalancer", "bridge", "openvswitch"})
PATCH_SUFFIXES = frozenset({".patch", ".diff"})


@dataclass(frozen=True, slots=True)
class Lab:
    """A network with all that is needed to shadow it; `folder` is absolute, paths below it too."""

    folder: Path
    name: str
    topology: Topology
    policy: Path | None = None
    captures: tuple[Path, ...] = ()
    changes: Mapping[str, Path] = field(default_factory=dict, hash=False)


def load_lab(folder: Path, kinds: frozenset[str] = KNOWN_KINDS) -> Lab:
    """The lab in a folder, checked as a whole; InvalidLab tells every problem with its line."""
    folder = folder.resolve()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise InvalidLab(folder, 1, 1, found, f"a lab folder with a {LAB_FILE}")
    if not (folder / LAB_FILE).is_file():
        raise InvalidLab(folder / LAB_FILE, 1, 1, "no such file", f"a lab folder with a {LAB_FILE}")
    located = read_located(folder / LAB_FILE, LabFile)
    problems = problems_of(located, kinds)
    configs = _configs(folder, located, problems)
    changes = _changes(folder, problems)
    if problems:
        raise InvalidLab.of(problems)
    policy = folder / "policy.yaml"
    return Lab(
        folder=folder,
        name=located.model.name,
        topology=_topology(located.model, configs),
        policy=policy if policy.is_file() else None,
        captures=tuple(sorted(p for p in (folder / "traffic").glob("*.pcap*") if p.is_file())),
        changes=changes,
    )


def _configs(folder: Path, lab: Located[LabFile], problems: list[Problem]) -> dict[str, dict[str, Path]]:
    root = folder / "configs"
    nodes = lab.model.topology.nodes
    found: dict[str, dict[str, Path]] = {}
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            problems.append(Problem(entry, 1, 1, "a file", "a folder named after a node"))
        elif entry.name not in nodes:
            problems.append(
                Problem(entry, 1, 1, f"configs for unknown node {entry.name!r}", nearest(entry.name, nodes))
            )
        else:
            found[entry.name] = _files(folder, entry, problems)
    return found


def _files(folder: Path, of_node: Path, problems: list[Problem]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(of_node.rglob("*")):
        relative = path.relative_to(of_node)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if not path.resolve().is_relative_to(folder):
            problems.append(Problem(path, 1, 1, "a symbolic link out of the lab", "a file inside the lab folder"))
        elif path.is_file():
            files[relative.as_posix()] = path
        elif not path.is_dir():
            problems.append(Problem(path, 1, 1, "neither a file nor a folder", "a config file"))
    return files


def _changes(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    root = folder / "changes"
    found: dict[str, Path] = {}
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        is_patch = entry.is_file() and entry.suffix in PATCH_SUFFIXES
        if entry.name.startswith(".") or not (entry.is_dir() or is_patch):
            continue
        name = entry.stem if is_patch else entry.name
        if name in found:
            problems.append(Problem(entry, 1, 1, f"a second change named {name!r}", "one change a name"))
        else:
            found[name] = entry
    return found


def _topology(lab: LabFile, configs: Mapping[str, Mapping[str, Path]]) -> Topology:
    written = lab.topology
    return Topology(
        name=lab.name,
        nodes=tuple(
            _node(name, keys, written.kinds.get(keys.kind or written.defaults.kind or ""), written.defaults, configs)
            for name, keys in written.nodes.items()
        ),
        links=tuple(_link(keys, written.defaults) for keys in written.links),
    )


def _node(
    name: str,
    keys: NodeKeys,
    of_kind: KindKeys | None,
    defaults: DefaultKeys,
    configs: Mapping[str, Mapping[str, Path]],
) -> Node:
    shared = of_kind or KindKeys()
    listen = dict.fromkeys((*shared.listen, *keys.listen))
    return Node(
        name=name,
        kind=keys.kind or defaults.kind or "",
        interfaces=tuple(
            Interface(n, i.addresses, i.mac and i.mac.lower(), i.vlan, i.trunk, i.vrf)
            for n, i in keys.interfaces.items()
        ),
        routes=tuple(Route(_destination(r), r.via) for r in (*shared.routes, *keys.routes)),
        prefixes=keys.prefixes,
        listen=tuple(Service(protocol, port) for protocol, port in listen),
        configs=dict(configs.get(name, {})),
        programs=keys.run,
        commands=keys.exec,
        stp=keys.stp,
        tags=tuple(dict.fromkeys(keys.tags)),
    )


def _destination(route: RouteKeys) -> IpNetwork:
    return route.to or ip_network("0.0.0.0/0" if route.via.version == 4 else "::/0")


def _link(keys: LinkKeys, defaults: DefaultKeys) -> Link:
    both = keys.over(defaults.over(Impairment()))
    (a_node, a_interface), (b_node, b_interface) = keys.endpoints
    return Link(
        a=LinkEnd(a_node, a_interface, keys.a_to_b.over(both)),
        b=LinkEnd(b_node, b_interface, keys.b_to_a.over(both)),
        mtu=keys.mtu or defaults.mtu or DEFAULT_MTU,
    )
