"""The lab that a capture asks for: every address of it on one of two edges, and a firewall between them.

Pure but for the firewall's rule files. A flow can be replayed when its ends are on different edges; addresses take
their edges in order of first appearance, and a flow that fits neither way is left out with the reason. The firewall
refuses exactly the flows that were refused in the capture, because an edge answers for every address and would not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from replay.schedule import ECHO, TCP, UDP
from topologies.model import Interface, IpAddress, IpInterface, IpNetwork, Link, LinkEnd, Node, Route, Topology

NEAR, FAR, BETWEEN = "near", "far", "between"
"""The edge of the first client, the edge of its server, and the firewall."""

WIRE = "wire"
"""An edge's only interface; the firewall's are named after the edges."""

FIRST_FREE_V4, FIRST_FREE_V6 = IPv4Address("198.18.0.0"), IPv6Address("2001:2::")
"""Where networks for benchmarks begin (RFC 2544, RFC 5180)."""

_ADDRESSES_OF_A_WIRE = 4
_ANYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_FILES = {4: "iptables.rules", 6: "ip6tables.rules"}
_DENIALS = {
    (4, TCP): "icmp-admin-prohibited",
    (4, UDP): "icmp-port-unreachable",
    (6, TCP): "icmp6-adm-prohibited",
    (6, UDP): "icmp6-port-unreachable",
}


@dataclass(frozen=True, slots=True)
class FidelityLab:
    """A topology, which edge every address is on, and why flows (by id) have no place in it."""

    topology: Topology
    edge_of: Mapping[str, str]
    left_out: Mapping[str, str]


class _Asked(NamedTuple):
    flow_id: str
    outcome: str
    protocol: int
    source: str
    source_port: int
    target: str
    target_port: int


_FIVE_TUPLE = ["protocol", "source_address", "source_port", "destination_address", "destination_port"]


def lab_for(flows: pd.DataFrame, folder: Path) -> FidelityLab:
    """The lab in which the flows of a flow table can be replayed; rule files are written to `folder`."""
    asked = _asked(flows)
    edge_of, left_out = placed(flows)
    files = {}
    for version, rules in refusals(one for one in asked if one.flow_id not in left_out).items():
        path = folder / _FILES[version]
        path.write_text(_table(rules), encoding="utf-8")
        files[_FILES[version]] = path
    return FidelityLab(_topology(edge_of, files), edge_of, left_out)


def placed(flows: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """An edge for every address, so that flows cross from one to the other; and by flow_id which do not, and why."""
    sides = _Sides()
    left_out: dict[str, str] = {}
    outcomes = flows.groupby(_FIVE_TUPLE)["outcome"].transform("nunique")
    mixed = set(flows.loc[outcomes > 1, "flow_id"].astype(str))
    for flow in _asked(flows):
        reason = _unplaceable(flow)
        if not reason and flow.flow_id in mixed:
            reason = "the same five-tuple was refused once and accepted once"
        if not reason and not sides.across(flow.source, flow.target):
            reason = "both ends are on one side of the two that the lab has"
        if reason:
            left_out[flow.flow_id] = reason
    return sides.named(), left_out


def _asked(flows: pd.DataFrame) -> list[_Asked]:
    """The flows in order of their start, TCP and UDP first: what has no session may lack a peer on the other side."""
    sessions = flows["protocol"].isin((TCP, UDP))
    ordered = flows.assign(other=~sessions).sort_values(["other", "start_ns"], kind="stable")
    columns = [ordered[name].tolist() for name in ("flow_id", "outcome", *_FIVE_TUPLE)]
    return [_Asked(*row) for row in zip(*columns, strict=True)]


def _unplaceable(flow: _Asked) -> str:
    if flow.source == flow.target:
        return "both ends have one address"
    for address in (ip_address(flow.source), ip_address(flow.target)):
        if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
            return "broadcast, multicast or no address"
        if address.is_link_local or address.is_loopback:
            return "an address of one wire or of one machine"
    return ""


class _Sides:
    """Addresses on two sides: those of a joined pair are on different ones, whichever they are."""

    def __init__(self) -> None:
        self._place: dict[str, tuple[str, int]] = {}
        self._members: dict[str, list[str]] = {}

    def across(self, a: str, b: str) -> bool:
        """Put two addresses on different sides, unless what was joined before forbids it."""
        (group, side), (other_group, other_side) = self._find(a), self._find(b)
        if group == other_group:
            return side != other_side
        turn = 1 ^ side ^ other_side
        for member in self._members.pop(other_group):
            self._place[member] = group, self._place[member][1] ^ turn
            self._members[group].append(member)
        return True

    def named(self) -> dict[str, str]:
        """The edge of every address."""
        return {address: (NEAR, FAR)[side] for address, (_, side) in self._place.items()}

    def _find(self, address: str) -> tuple[str, int]:
        if address not in self._place:
            self._place[address] = address, 0
            self._members[address] = [address]
        return self._place[address]


def refusals(flows: Iterable[_Asked]) -> dict[int, list[str]]:
    """Rules, by IP version, that meet flows as they were met: unanswered, reset or denied.

    A rule says no more than it must: the source only where somebody else reached the same service. Ports share a
    rule, because a scan refuses thousands and the kernel takes a table in one message.
    """
    by_detail: list[dict[_Detail, set[str]]] = [{} for _ in _DETAILS]
    flows = list(flows)
    known = [flow for flow in flows if flow.protocol in (TCP, UDP)]
    for flow in known:
        for look, met in zip(_DETAILS, by_detail, strict=True):
            met.setdefault(look(flow), set()).add(_met(flow))
    ports: dict[tuple[str, _Detail], dict[int, None]] = {}
    for flow in known:
        if _met(flow) == "accepted":
            continue
        coarsest = next(d(flow) for d, met in zip(_DETAILS, by_detail, strict=True) if len(met[d(flow)]) == 1)
        ports.setdefault((_met(flow), coarsest._replace(target_port=None)), {})[flow.target_port] = None
    rules: dict[int, list[str]] = {}
    for (outcome, detail), numbers in ports.items():
        version = ip_address(detail.target).version
        rules.setdefault(version, []).extend(
            _rule(version, outcome, detail, some) for some in _batched(sorted(numbers), _PORTS_IN_A_RULE)
        )
    for family, line in _echo_refusals(flows):
        rules.setdefault(family, []).append(line)
    return rules


def _echo_refusals(flows: Iterable[_Asked]) -> Iterator[tuple[int, str]]:
    """A rule, behind its IP version, for every pair of addresses between which no echo was answered."""
    met: dict[tuple[str, str], set[str]] = {}
    for flow in flows:
        if flow.protocol in ECHO:
            met.setdefault((flow.source, flow.target), set()).add(flow.outcome)
    for (source, target), outcomes in met.items():
        if len(outcomes) > 1 or "accepted" in outcomes:
            continue
        version = ip_address(target).version
        name, kind = ("icmp", "--icmp-type 8") if version == 4 else ("ipv6-icmp", "--icmpv6-type 128")
        end = "DROP" if "unanswered" in outcomes else f"REJECT --reject-with {_DENIALS[version, TCP]}"
        yield version, f"-A FORWARD -s {source} -d {target} -p {name} {kind} -j {end}"


_PORTS_IN_A_RULE = 15
"""The most that iptables' multiport takes."""


class _Detail(NamedTuple):
    protocol: int
    target: str
    target_port: int | None
    source: str | None
    source_port: int | None


_DETAILS: tuple[Callable[[_Asked], _Detail], ...] = (
    lambda f: _Detail(f.protocol, f.target, f.target_port, None, None),
    lambda f: _Detail(f.protocol, f.target, f.target_port, f.source, None),
    lambda f: _Detail(f.protocol, f.target, f.target_port, f.source, f.source_port),
)
"""What a rule may look at, the least first."""


def _met(flow: _Asked) -> str:
    """How a flow was met; a datagram that nobody answered may as well arrive."""
    return "accepted" if (flow.protocol, flow.outcome) == (UDP, "unanswered") else flow.outcome


def _batched(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for begin in range(0, len(numbers), size):
        yield numbers[begin : begin + size]


def _rule(version: int, outcome: str, detail: _Detail, ports: Sequence[int]) -> str:
    name = "tcp" if detail.protocol == TCP else "udp"
    source = f" -s {detail.source}" if detail.source else ""
    from_port = f" -m {name} --sport {detail.source_port}" if detail.source_port else ""
    meets = (
        f"-A FORWARD{source} -d {detail.target} -p {name}{from_port} -m multiport --dports {','.join(map(str, ports))}"
    )
    if outcome == "unanswered":
        return f"{meets} -j DROP"
    answer = "tcp-reset" if outcome == "reset" else _DENIALS[version, detail.protocol]
    return f"{meets} -j REJECT --reject-with {answer}"


def _table(rules: Iterable[str]) -> str:
    chains = [f":{chain} ACCEPT [0:0]" for chain in ("INPUT", "FORWARD", "OUTPUT")]
    return "\n".join(["*filter", *chains, *rules, "COMMIT", ""])


def _topology(edge_of: Mapping[str, str], files: Mapping[str, Path]) -> Topology:
    addresses = {edge: [ip_address(text) for text, on in edge_of.items() if on == edge] for edge in (NEAR, FAR)}
    taken = {*addresses[NEAR], *addresses[FAR]}
    prefixes = {edge: tuple(_prefixes(addresses[edge])) for edge in (NEAR, FAR)}
    wires = {edge: tuple(_wire(taken, number)) for number, edge in enumerate((NEAR, FAR))}
    near, far = (
        Node(
            edge,
            "edge",
            (Interface(WIRE, tuple(here for here, _ in wires[edge])),),
            tuple(Route(_ANYWHERE[there.version], there.ip) for _, there in wires[edge]),
            prefixes[edge],
        )
        for edge in (NEAR, FAR)
    )
    ports = tuple(Interface(edge, tuple(there for _, there in wires[edge])) for edge in (NEAR, FAR))
    ways = tuple(
        Route(prefix, here.ip)
        for edge in (NEAR, FAR)
        for prefix in prefixes[edge]
        for here, _ in wires[edge]
        if here.version == prefix.version
    )
    between = Node(BETWEEN, "firewall", ports, ways, configs=files)
    links = tuple(Link(LinkEnd(edge, WIRE), LinkEnd(BETWEEN, edge)) for edge in (NEAR, FAR))
    return Topology("fidelity", (near, between, far), links)


def _prefixes(addresses: Iterable[IpAddress]) -> Iterator[IpNetwork]:
    known = list(addresses)
    yield from collapse_addresses(IPv4Network(a) for a in known if isinstance(a, IPv4Address))
    yield from collapse_addresses(IPv6Network(a) for a in known if isinstance(a, IPv6Address))


def _wire(taken: Set[IpAddress], number: int) -> Iterator[tuple[IpInterface, IpInterface]]:
    """Addresses of the two ends of wire `number`, one pair a version, in networks that the capture does not use."""
    four, six = FIRST_FREE_V4, FIRST_FREE_V6
    while any(four + n in taken for n in range(2 * _ADDRESSES_OF_A_WIRE)):
        four += 2 * _ADDRESSES_OF_A_WIRE
    while any(six + n in taken for n in range(2 * _ADDRESSES_OF_A_WIRE)):
        six += 2 * _ADDRESSES_OF_A_WIRE
    here, there = number * _ADDRESSES_OF_A_WIRE + 1, number * _ADDRESSES_OF_A_WIRE + 2
    yield IPv4Interface((int(four + here), 30)), IPv4Interface((int(four + there), 30))
    yield IPv6Interface((int(six + here), 126)), IPv6Interface((int(six + there), 126))
