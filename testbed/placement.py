"""Which node plays each end of a captured flow, and which flows the shadow's own devices will make again.

Pure: a flow table and a topology in, a decision per flow out.  It knows no socket and no namespace.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import pandas as pd

from replay.session import Listener
from testbed.devices.packet_filter import parse_rules
from testbed.errors import InvalidInput
from topologies.load import Lab
from topologies.model import Node, Topology

TCP, UDP = 6, 17
PROTOCOLS = {"tcp": TCP, "udp": UDP}
END_POINTS = frozenset({"edge", "host"})
"""Kinds that begin flows of their own; what a proxy or a NAT says, it will say again by itself."""

ADDRESSES = ["flow_id", "source_address", "destination_address", "destination_port"]
_SERVER_LINE = re.compile(r"^\s*server\s+\S+\s+(\S+)")
_DNAT = re.compile(r"-j DNAT --to-destination (\S+)")
_WANTED = re.compile(r"(?<!\S)(! )?(-d|-p|--dports?) (\S+)")


@dataclass(frozen=True, slots=True)
class Placed:
    """The flows to replay, and the rest with the reason by flow_id."""

    flows: pd.DataFrame
    left_out: Mapping[str, str]

    @property
    def reasons(self) -> dict[str, int]:
        """How many flows were left out, by reason, the most frequent first."""
        return dict(Counter(self.left_out.values()).most_common())


def place(flows: pd.DataFrame, topology: Topology, captures: tuple[Path, ...]) -> Placed:
    """Split flows into those whose client the shadow plays and those its devices make again.

    Raises InvalidInput when an end point belongs to no node: a flow silently not replayed would be
    a flow silently not judged.
    """
    owners = _owners(flows, topology)
    broadcasts = _broadcasts(topology)
    left_out: dict[str, str] = {}
    for flow_id, source_address, target_address, port in flows[ADDRESSES].to_numpy().tolist():
        if of_one_wire(source_address) or of_one_wire(target_address) or target_address in broadcasts:
            left_out[flow_id] = "multicast, broadcast or link-local"
            continue
        source = owners[source_address]
        for address in (source_address, target_address):
            if owners[address] is None:
                raise InvalidInput(
                    captures[0],
                    1,
                    1,
                    f"address {address}, which no node of the lab owns (flow to {target_address}:{port})",
                    "an interface address or a prefix of some node for every end point",
                )
        if source is not None and source.kind not in END_POINTS:
            left_out[flow_id] = f"made by {source.name} itself"
    kept = flows[~flows["flow_id"].isin(list(left_out))].reset_index(drop=True)
    return Placed(kept, left_out)


def node_of(topology: Topology, address: str) -> str | None:
    """The name of the node that owns an address."""
    owner = topology.owner(address)
    return owner.name if owner else None


def listeners(lab: Lab, flows: pd.DataFrame, configs: Mapping[str, Mapping[str, bytes]]) -> list[Listener]:
    """Every port on which some node must answer.

    What the lab declares, what load balancers forward to, what firewalls translate to, what was seen
    to answer at an end point's own address, and what was told by datagrams without an answer: silence is
    no refusal.  Where a node's own programs answer, nobody else does.
    """
    answering = frozenset(node.name for node in lab.topology.nodes if node.programs)
    wanted: set[tuple[str, int, int]] = set()
    for node in lab.topology.nodes:
        wanted.update((node.name, PROTOCOLS[s.protocol], s.port) for s in node.listen)
    for address, port in _forwarded(configs):
        owner = _end_point(lab.topology, address)
        if owner:
            wanted.add((owner, TCP, port))
    silent = (flows["outcome"] == "unanswered") & (flows["protocol"] == UDP)
    answered = flows[(flows["outcome"] == "accepted") | silent]
    for address, protocol, port in (
        answered[["destination_address", "protocol", "destination_port"]].to_numpy().tolist()
    ):
        owner = _end_point(lab.topology, address)
        if owner and protocol in (TCP, UDP):
            wanted.add((owner, int(protocol), int(port)))
    return [Listener(*each) for each in sorted(wanted) if each[0] not in answering]


def translations(rules: bytes, flow_address: str, port: int, protocol: int) -> str | None:
    """The address a DNAT rule gives a destination, or None; the first rule that matches decides."""
    found = translated(rules, flow_address, port, protocol)
    return found[0] if found else None


def translated(rules: bytes, flow_address: str, port: int, protocol: int) -> tuple[str, int] | None:
    """The same with the port, which many rules leave as it is."""
    name = {TCP: "tcp", UDP: "udp"}.get(protocol, "")
    for rule in parse_rules(rules.decode(errors="replace")):
        target = _DNAT.search(rule.text)
        if rule.table != "nat" or target is None:
            continue
        try:
            if all(
                _holds(key, value, flow_address, name, port) != bool(negated)
                for negated, key, value in _WANTED.findall(rule.text)
            ):
                return _first_address(target[1]), _first_port(target[1], port)
        except ValueError:
            # a name where we expect a number: another rule may still tell
            continue
    return None


def _holds(key: str, value: str, address: str, protocol: str, port: int) -> bool:
    if key == "-d":
        return ip_address(address) in ip_network(value, strict=False)
    return value == protocol if key == "-p" else _has_port(value, port)


def _has_port(text: str, port: int) -> bool:
    """Whether a port is in `80`, `80,443` or `8000:8080`, as iptables writes them."""
    ranges = [part.partition(":") for part in text.split(",")]
    return any(int(low or 0) <= port <= (int(high or 65_535) if colon else int(low)) for low, colon, high in ranges)


def _first_address(text: str) -> str:
    """The address in `ADDRESS[-ADDRESS][:PORT]`, where one of IPv6 with a port stands in brackets; or ValueError."""
    bracketed = re.match(r"\[([^\]]+)\]", text)
    inner = bracketed[1] if bracketed else text.rsplit(":", 1)[0] if text.count(":") == 1 else text
    return str(ip_address(inner.split("-")[0]))


def _first_port(text: str, otherwise: int) -> int:
    """The port in `ADDRESS:PORT[-PORT]`, if there is one."""
    named = re.search(r"\]:(\d+)" if text.startswith("[") else r"^[^:]+:(\d+)", text)
    return int(named[1]) if named else otherwise


def of_one_wire(text: str) -> bool:
    """Whether an address means something on one wire only, so that no session across the network has it as its end."""
    address = ip_address(text)
    return address.is_multicast or address.is_link_local or address.is_unspecified or text == "255.255.255.255"


def _broadcasts(topology: Topology) -> frozenset[str]:
    """The last address of every IPv4 network that has one for everybody on it."""
    held = [own.network for node in topology.nodes for interface in node.interfaces for own in interface.addresses]
    return frozenset(str(net.broadcast_address) for net in held if net.version == 4 and net.prefixlen < 31)


def _owners(flows: pd.DataFrame, topology: Topology) -> dict[str, Node | None]:
    addresses = set(flows["source_address"]) | set(flows["destination_address"])
    return {address: topology.owner(address) for address in addresses}


def _end_point(topology: Topology, address: str) -> str | None:
    owner = topology.owner(address)
    return owner.name if owner and owner.kind in END_POINTS else None


def _forwarded(configs: Mapping[str, Mapping[str, bytes]]) -> list[tuple[str, int]]:
    """Address and port of every `server` line of every haproxy.cfg."""
    found = []
    for files in configs.values():
        for line in files.get("haproxy.cfg", b"").decode(errors="replace").splitlines():
            server = _SERVER_LINE.match(line)
            if server is None:
                continue
            address, _, port = server[1].rpartition(":")
            try:
                found.append((str(ip_address(address.strip("[]"))), int(port)))
            except ValueError:
                continue
    return found
