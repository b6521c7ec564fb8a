"""A topology's own forwarding walked on paper: longest prefix first, over links and bridges, for tests."""

from __future__ import annotations

from ipaddress import ip_address

MOST_HOPS = 16


def way(topology, source, target):
    """The nodes from the owner of one address to the owner of another; AssertionError where the way ends before."""
    at, wanted = topology.owner(source), ip_address(target)
    passed = [at.name]
    while not _has(at, wanted):
        assert len(passed) <= MOST_HOPS, f"a loop: {passed}"
        assert len(passed) == 1 or at.kind in {"router", "firewall"}, f"{at.name} does not forward: {passed}"
        at = _next(topology, at, wanted)
        passed.append(at.name)
    return passed


def _has(node, address):
    own = any(address == held.ip for interface in node.interfaces for held in interface.addresses)
    return own or any(address in prefix for prefix in node.prefixes)


def _next(topology, node, wanted):
    choices = [(route.to, route.via) for route in node.routes]
    for interface in node.interfaces:
        choices += [(held.network, None) for held in interface.addresses if held.network.num_addresses > 1]
    fitting = [(net, via) for net, via in choices if net.version == wanted.version and wanted in net]
    assert fitting, f"{node.name} has no route to {wanted}"
    _, via = max(fitting, key=lambda one: (one[0].prefixlen, one[1] is None))
    hop = wanted if via is None else via
    for near in _neighbours(topology, node):
        if any(hop == held.ip for interface in near.interfaces for held in interface.addresses):
            return near
    raise AssertionError(f"nobody beside {node.name} has {hop}, on the way to {wanted}")


def _neighbours(topology, node):
    """Nodes that share a wire with this one, through bridges."""
    seen, queue, found = {node.name}, [node.name], []
    while queue:
        name = queue.pop()
        for link in topology.links:
            ends = [link.a.node, link.b.node]
            if name in ends:
                other = topology.node(ends[1 - ends.index(name)])
                if other.name not in seen:
                    seen.add(other.name)
                    found.append(other)
                    if other.kind == "bridge":
                        queue.append(other.name)
    return found
