"""Mininet topologies made labs: `FILE.py`, `FILE.py:NAME,ARG,KEY=ARG` and Mininet's own as `mininet:NAME,ARG`.

Addresses are those that Mininet would give: 10.0.0.N/8 to host number N, on its lowest port, unless it says otherwise.
This file may not import Mininet: a child process reads the Topo. It may not know how a lab is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import networkx as nx

from topologies.imported import Imported, Note
from topologies.located import InvalidLab
from topologies.mininet.child import ReadNode, ReadTopo, read_topo
from topologies.mininet.links import end_options, impairment
from topologies.model import Interface, IpInterface, Link, LinkEnd, Node, Route, Topology
from topologies.names import free_name

PREFIX = "mininet:"
FIRST_ADDRESS = int(IPv4Address("10.0.0.0"))
PREFIX_LENGTH = 8
PLAIN_CLASSES = frozenset({None, "Node", "Host", "OVSSwitch", "OVSKernelSwitch", "OVSBridge", "LinuxBridge", "Switch"})
_ROUTE = re.compile(r"(?:default )?(?:via )?([0-9a-fA-F.:]+)(?: dev (\S+))?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_READ = frozenset({"ip", "mac", "defaultRoute", "stp"})


@dataclass(slots=True)
class _Ports:
    """The ends of a node's links: interface name, own parameters and Mininet's port number."""

    by_port: dict[int, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)


def split_arguments(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """`NAME,3,depth=2` as Mininet's command line reads it: what looks like a number is one."""
    name, *words = text.split(",")
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            kwargs[key] = _number(value)
        elif word:
            args.append(_number(word))
    return name, args, kwargs


def from_mininet(source: str) -> Imported:
    """The lab of a Mininet source; InvalidLab with the line of the user's file for whatever goes wrong in it."""
    if source.startswith(PREFIX):
        path, shown, asked = None, Path(source), source.removeprefix(PREFIX)
    else:
        file, _, asked = source.partition(".py:") if ".py:" in source else (source.removesuffix(".py"), "", "")
        path = shown = Path(f"{file}.py")
        if not path.is_file():
            raise InvalidLab(path, 1, 1, "no such file", "a Python file with a Mininet Topo")
    name, args, kwargs = split_arguments(asked)
    topo = read_topo(path, shown, name, args, kwargs)
    stem = path.stem if path else name
    return _Builder(shown, topo).lab(free_name(stem, set(), "mininet"))


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(slots=True)
class _Builder:
    """A Topo on its way to becoming a lab."""

    path: Path
    topo: ReadTopo
    notes: list[Note] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    ports: dict[str, _Ports] = field(default_factory=dict)

    def lab(self, name: str) -> Imported:
        if not self.topo.nodes:
            raise InvalidLab(self.path, self.topo.line, 1, "a Topo without nodes", "at least one host or switch")
        for node in self.topo.nodes:
            valid = free_name(node.name, set(self.names.values()), "node")
            if valid != node.name:
                self.note(node.line, f"the name {node.name!r}", f"the node is named {valid}")
            self.names[node.name] = valid
            self.ports[node.name] = _Ports()
        links = [self._link(k) for k in range(len(self.topo.links))]
        looped = self._switches_in_loops()
        if looped:
            what = f"a loop through the switches {', '.join(sorted(looped))}"
            self.note(self.topo.line, what, "every switch runs a spanning tree, or frames would circle for ever")
        hosts = 0
        nodes = []
        for node in self.topo.nodes:
            if not node.switch:
                hosts += 1
            nodes.append(self._node(node, hosts, stp=bool(looped)))
        self._openflow()
        return Imported(Topology(name, tuple(nodes), tuple(links)), {}, tuple(dict.fromkeys(self.notes)))

    def note(self, line: int, what: str, why: str) -> None:
        self.notes.append(Note(self.path, line, what, why))

    def _link(self, k: int) -> Link:
        read = self.topo.links[k]
        ends = []
        for i, end in enumerate(read.ends, 1):
            if end.node not in self.ports:
                raise InvalidLab(self.path, self.topo.line, 1, f"a link to {end.node!r}", "a node of the Topo")
            own, notes = end_options(read.options, i)
            where = f"the link {read.ends[0].node} - {read.ends[1].node}"
            for what, why in notes:
                self.note(self.topo.line, f"{where}: {what}", why)
            interface = str(own.get("intfName") or f"{self.names[end.node]}-eth{end.port}")
            if end.port in self.ports[end.node].by_port:
                found = f"port {end.port} of {end.node} a second time"
                raise InvalidLab(self.path, self.topo.line, 1, found, "each port once")
            self.ports[end.node].by_port[end.port] = (interface, own)
            try:
                limits = impairment(own)
            except ValueError as error:
                raise InvalidLab(self.path, self.topo.line, 1, f"{where}: {error}", "a limit as tc takes it") from None
            ends.append(LinkEnd(self.names[end.node], interface, limits))
        a, b = ends
        return Link(a, b)

    def _switches_in_loops(self) -> set[str]:
        switches = {node.name for node in self.topo.nodes if node.switch}
        graph = nx.MultiGraph()
        graph.add_edges_from(
            (link.ends[0].node, link.ends[1].node)
            for link in self.topo.links
            if {link.ends[0].node, link.ends[1].node} <= switches
        )
        simple = nx.Graph(graph)
        looped = {end for a, b in simple.edges if graph.number_of_edges(a, b) > 1 for end in (a, b)}
        return looped | {node for cycle in nx.cycle_basis(simple) for node in cycle}

    def _node(self, node: ReadNode, number: int, *, stp: bool) -> Node:
        self._unread(node)
        ports = sorted(self.ports[node.name].by_port.items())
        interfaces = []
        for position, (_, (interface, own)) in enumerate(ports):
            first = position == 0 and not node.switch
            address = own.get("ip")
            mac = own.get("mac") or own.get("addr")
            if first:
                default = f"{IPv4Address(FIRST_ADDRESS + number)}/{PREFIX_LENGTH}"
                address = node.options.get("ip", default) or address
                mac = node.options.get("mac") or mac
            addresses = (self._address(node, address),) if address else ()
            interfaces.append(Interface(interface, addresses, self._mac(node, mac)))
        if not ports and "ip" in node.options:
            self.note(node.line, f"{node.name}: ip {node.options['ip']}", "a node without a link has no interface")
        kind = "bridge" if node.switch else "firewall" if node.forwards else "host"
        routes = self._routes(node, interfaces)
        stp = node.switch and (stp or node.options.get("stp") is True)
        return Node(self.names[node.name], kind, tuple(interfaces), routes, stp=stp)

    def _openflow(self) -> None:
        """One note for an option of many switches."""
        asked: dict[str, list[str]] = {}
        for node in self.topo.nodes:
            for key in sorted(node.options.keys() - _READ) if node.switch else ():
                asked.setdefault(key, []).append(node.name)
        for key, switches in asked.items():
            why = "there is no OpenFlow here: a switch learns addresses by itself"
            self.note(self.topo.line, f"{', '.join(switches)}: option {key}", why)

    def _unread(self, node: ReadNode) -> None:
        if not node.switch:
            for key in sorted(node.options.keys() - _READ):
                self.note(node.line, f"{node.name}: option {key}={node.options[key]!r}", "no counterpart in a lab")
        if node.class_name in PLAIN_CLASSES:
            return
        what = f"{node.name}: class {node.class_name}"
        if node.forwards:
            self.note(node.line, what, "its methods are not run; it becomes of kind firewall, a forwarding Linux node")
        elif node.switch:
            self.note(node.line, what, "its methods are not run; it becomes a Linux bridge")
        else:
            self.note(node.line, what, "its methods are not run; it becomes a plain host")

    def _address(self, node: ReadNode, text: object) -> IpInterface:
        try:
            address = ip_interface(str(text))
        except ValueError:
            raise InvalidLab(
                self.path, node.line, 1, f"{node.name}: ip {text!r}", "an address such as 10.0.0.1/8"
            ) from None
        return address if "/" in str(text) else IPv4Interface(f"{address.ip}/{PREFIX_LENGTH}")

    def _mac(self, node: ReadNode, text: object) -> str | None:
        if text is None:
            return None
        mac = str(text).lower()
        if not _MAC.fullmatch(mac):
            raise InvalidLab(self.path, node.line, 1, f"{node.name}: mac {text!r}", "a MAC such as 00:00:00:00:00:01")
        return mac

    def _routes(self, node: ReadNode, interfaces: list[Interface]) -> tuple[Route, ...]:
        written = node.options.get("defaultRoute")
        if not written:
            return ()
        match = _ROUTE.fullmatch(str(written).strip())
        try:
            via = ip_address(match[1]) if match else None
        except ValueError:
            via = None
        what = f"{node.name}: defaultRoute {written!r}"
        networks = [address.network for interface in interfaces for address in interface.addresses]
        if via is None:
            self.note(node.line, what, "only `via ADDRESS` is taken; a route without a gateway has no counterpart")
        elif not any(via in network for network in networks if network.version == via.version):
            self.note(node.line, what, "the gateway is in no network of the node; left out")
        else:
            return (Route(ip_network("0.0.0.0/0" if via.version == 4 else "::/0"), via),)
        return ()
