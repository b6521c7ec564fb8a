"""Which node plays each end of a captured flow, and which flows the shadow's own devices will make again.

Pure: a flow table and a topology in, a decision per flow out.  It knows no socket and no namespace.
"""

from __future__ import annotations

import re
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

_SERVER_LINE = re.compile(r"^\s*server\s+\S+\s+(\S+)")
_DNAT = re.compile(r"-j DNAT --to-destination (\S+)")


@dataclass(frozen=True, slots=True)
class Placed:
    """The flows to replay, and the rest with the reason by flow_id."""

    flows: pd.DataFrame
    left_out: Mapping[str, str]


def place(flows: pd.DataFrame, topology: Topology, captures: tuple[Path, ...]) -> Placed:
    """Split flows into those whose client the shadow plays and those its devices make again.

    Raises InvalidInput when an end point belongs to no node: a flow silently not replayed would be
    a flow silently not judged.
    """
    owners = _owners(flows, topology)
    left_out: dict[str, str] = {}
    for row in flows.itertuples():
        source, target = owners[row.source_address], owners[row.destination_address]
        for address, node in ((row.source_address, source), (row.destination_address, target)):
            if node is None and not ip_address(address).is_multicast:
                raise InvalidInput(
                    captures[0],
                    1,
                    1,
                    f"address {address}, which no node of the lab owns (flow to {row.destination_address}:"
                    f"{row.destination_port})",
                    "an interface address or a prefix of some node for every end point",
                )
        if source is None or target is None:
            left_out[row.flow_id] = "multicast"
        elif source.kind not in END_POINTS:
            left_out[row.flow_id] = f"made by {source.name} itself"
    kept = flows[~flows["flow_id"].isin(list(left_out))].reset_index(drop=True)
    return Placed(kept, left_out)


def node_of(topology: Topology, address: str) -> str | None:
    """The name of the node that owns an address."""
    owner = topology.owner(address)
    return owner.name if owner else None


def listeners(lab: Lab, flows: pd.DataFrame, configs: Mapping[str, Mapping[str, bytes]]) -> list[Listener]:
    """Every port on which some node must answer.

    What the lab declares, what load balancers forward to, what firewalls translate to, and what was
    seen to answer at an end point's own address.
    """
    wanted: set[tuple[str, int, int]] = set()
    for node in lab.topology.nodes:
        wanted.update((node.name, PROTOCOLS[s.protocol], s.port) for s in node.listen)
    for address, port in _forwarded(configs):
        owner = _end_point(lab.topology, address)
        if owner:
            wanted.add((owner, TCP, port))
    for row in flows[flows["outcome"] == "accepted"].itertuples():
        owner = _end_point(lab.topology, row.destination_address)
        if owner and row.protocol in (TCP, UDP):
            wanted.add((owner, int(row.protocol), int(row.destination_port)))
    return [Listener(*each) for each in sorted(wanted)]


def translations(rules: bytes, flow_address: str, port: int, protocol: int) -> str | None:
    """The address a DNAT rule gives a destination, or None; the first rule that matches decides."""
    name = {TCP: "tcp", UDP: "udp"}.get(protocol, "")
    for rule in parse_rules(rules.decode(errors="replace")):
        target = _DNAT.search(rule.text)
        if rule.table != "nat" or target is None:
            continue
        destination = re.search(r"-d (\S+)", rule.text)
        ports = re.search(r"--dports? (\S+)", rule.text)
        wanted = re.search(r"-p (\S+)", rule.text)
        if destination and ip_address(flow_address) not in ip_network(destination[1], strict=False):
            continue
        if (wanted and wanted[1] != name) or (ports and str(port) not in ports[1].split(",")):
            continue
        return target[1].rsplit(":", 1)[0] if target[1].count(":") == 1 else target[1]
    return None


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
