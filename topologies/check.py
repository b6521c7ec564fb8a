"""Whether the names and addresses of a lab file refer to something: the checks that look at more than one value.

Pure: problems out, nothing raised. This file may not know folders or what a kind of node does.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from topologies.located import Loc, Located, Problem, nearest
from topologies.model import IpAddress, IpNetwork
from topologies.schema import LabFile, NodeKeys, RouteKeys


def problems_of(lab: Located[LabFile], kinds: frozenset[str]) -> list[Problem]:
    """Every reference in the file that does not resolve and every name or address that is used twice."""
    return [*_kinds(lab, kinds), *_links(lab), *_vrfs(lab), *_addresses(lab), *_prefixes(lab), *_routes(lab)]


def _kinds(lab: Located[LabFile], kinds: frozenset[str]) -> Iterator[Problem]:
    topology = lab.model.topology
    for kind in topology.kinds:
        if kind not in kinds:
            yield lab.problem(("topology", "kinds", kind), f"unknown kind {kind!r}", nearest(kind, kinds), at_key=True)
    default = topology.defaults.kind
    if default is not None and default not in kinds:
        yield lab.problem(("topology", "defaults", "kind"), f"unknown kind {default!r}", nearest(default, kinds))
    for name, node in topology.nodes.items():
        loc: Loc = ("topology", "nodes", name)
        if node.kind is None and default is None:
            yield lab.problem(loc, f"node {name!r} without a kind", f"kind, {nearest('', kinds)}", at_key=True)
        elif node.kind is not None and node.kind not in kinds:
            yield lab.problem((*loc, "kind"), f"unknown kind {node.kind!r}", nearest(node.kind, kinds))


def _links(lab: Located[LabFile]) -> Iterator[Problem]:
    nodes = lab.model.topology.nodes
    used: dict[tuple[str, str], int] = {}
    for i, link in enumerate(lab.model.topology.links):
        for side, (node, interface) in enumerate(link.endpoints):
            loc: Loc = ("topology", "links", i, "endpoints", side)
            if node not in nodes:
                yield lab.problem(loc, f"a link to node {node!r}, which does not exist", nearest(node, nodes))
            elif interface not in nodes[node].interfaces:
                found = f"a link to interface {interface!r}, which {node!r} does not have"
                yield lab.problem(loc, found, nearest(interface, nodes[node].interfaces))
            elif (node, interface) in used:
                found = f"a second link at '{node}:{interface}'"
                yield lab.problem(loc, found, f"one link an interface (first at line {used[node, interface]})")
            else:
                used[node, interface] = lab.line(*loc)


def _vrfs(lab: Located[LabFile]) -> Iterator[Problem]:
    for name, node in lab.model.topology.nodes.items():
        for interface, keys in node.interfaces.items():
            if keys.vrf is not None and keys.vrf in node.interfaces:
                loc: Loc = ("topology", "nodes", name, "interfaces", interface, "vrf")
                yield lab.problem(loc, f"the VRF {keys.vrf!r}", "a name that no interface of the node has")


def _addresses(lab: Located[LabFile]) -> Iterator[Problem]:
    owners: dict[IpAddress, str] = {}
    for name, node in lab.model.topology.nodes.items():
        for interface, keys in node.interfaces.items():
            for i, address in enumerate(keys.addresses):
                if address.ip.is_link_local:
                    continue
                if address.ip in owners:
                    loc: Loc = ("topology", "nodes", name, "interfaces", interface, "addresses", i)
                    found = f"the address {address.ip} a second time"
                    yield lab.problem(loc, found, f"an address of one interface alone ({owners[address.ip]} has it)")
                else:
                    owners[address.ip] = f"{name}:{interface}"


def _prefixes(lab: Located[LabFile]) -> Iterator[Problem]:
    owners: dict[IpNetwork, str] = {}
    for name, node in lab.model.topology.nodes.items():
        for i, prefix in enumerate(node.prefixes):
            if prefix in owners:
                loc: Loc = ("topology", "nodes", name, "prefixes", i)
                yield lab.problem(loc, f"the prefix {prefix} a second time", f"one owner ({owners[prefix]} has it)")
            else:
                owners[prefix] = name


def _routes(lab: Located[LabFile]) -> Iterator[Problem]:
    topology = lab.model.topology
    for name, node in topology.nodes.items():
        for i, route in enumerate(node.routes):
            yield from _route(lab, name, node, route, ("topology", "nodes", name, "routes", i))
        kind = node.kind or topology.defaults.kind or ""
        if kind in topology.kinds:
            for i, route in enumerate(topology.kinds[kind].routes):
                yield from _route(lab, name, node, route, ("topology", "kinds", kind, "routes", i))


def _route(lab: Located[LabFile], name: str, node: NodeKeys, route: RouteKeys, loc: Loc) -> Iterator[Problem]:
    if route.to is not None and route.to.version != route.via.version:
        found = f"an IPv{route.via.version} gateway for an IPv{route.to.version} network"
        yield lab.problem((*loc, "via"), found, "both of one family")
        return
    networks = [address.network for keys in node.interfaces.values() for address in keys.addresses]
    own = [network for network in networks if network.version == route.via.version]
    scoped = isinstance(route.via, IPv6Address) and route.via.is_link_local and own
    if not scoped and not any(route.via in network for network in own):
        listed = ", ".join(str(network) for network in own) or "none of this family"
        yield lab.problem((*loc, "via"), f"gateway {route.via}", f"an address inside a network of {name!r}: {listed}")
