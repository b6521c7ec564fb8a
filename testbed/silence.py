"""End points that do not answer by themselves: their kernels never see the packets that packet mode sends.

No socket owns those packets, so a kernel would answer each with a reset or an ICMP error and spoil the flow it belongs
to.  A table of our own, in the namespaces of the end points alone, drops them behind the taps and before connection
tracking; leaving takes it away again.  It knows no traffic but by what to drop.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from replay.columns import ICMP, ICMPV6, TCP, UDP
from replay.packet_mode.flows import address_text
from replay.packet_mode.frames import NO_IP
from replay.packet_mode.plan import NOBODY, PacketPlan, on_one_wire
from testbed.errors import CommandFailed, RevertFailed, Unsupported
from testbed.network.namespace import Namespace

TABLE = "testbed_packet_mode"
COMMENT = "testbed packet mode: no stack answers"

_KEYS = {
    # the peer kept its address, or a translator hid it and kept the end point's own
    "peers": "{ip} saddr . meta l4proto . th sport . th dport",
    "own": "{ip} daddr . meta l4proto . th dport . th sport",
}
_ICMP = {4: "icmp", 6: "icmpv6"}

Ports = tuple[str, int, int, int]
"""An address, a protocol, that end's port and the other's."""


@dataclass(slots=True)
class Unanswered:
    """What one end point drops: whole protocols, and single flows of TCP, UDP and ICMP echo."""

    protocols: set[int] = field(default_factory=set)
    peers: set[Ports] = field(default_factory=set)
    own: set[Ports] = field(default_factory=set)
    echoes: set[tuple[str, int]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.protocols or self.peers or self.echoes)

    @property
    def elements(self) -> int:
        """How many entries the sets of the table have."""
        return len(self.peers) + len(self.own) + len(self.echoes)


def unanswered(plan: PacketPlan) -> dict[str, Unanswered]:
    """By node, what must not be answered while this plan is played; what goes to a group is never answered anyway."""
    wanted: defaultdict[str, Unanswered] = defaultdict(Unanswered)
    table = plan.frames
    for row in np.flatnonzero((plan.receiver != NOBODY) & (table.protocol != NO_IP)).tolist():
        protocol = int(table.protocol[row])
        source, destination = (address_text(side[row].tobytes()) for side in (table.source, table.destination))
        if on_one_wire(destination):
            continue
        node = wanted[plan.nodes[plan.receiver[row]]]
        ports = int(table.source_port[row]), int(table.destination_port[row])
        if protocol in (TCP, UDP):
            node.peers.add((source, protocol, *ports))
            node.own.add((destination, protocol, ports[1], ports[0]))
        elif protocol in (ICMP, ICMPV6):
            node.echoes.update({(source, ports[0]), (destination, ports[0])} if ports[0] else ())
        else:
            node.protocols.add(protocol)
    return {node: what for node, what in wanted.items() if what}


@dataclass(frozen=True, slots=True)
class Silence:
    """End points that are kept silent; made by `silenced`."""

    namespaces: Mapping[str, Namespace]
    wanted: Mapping[str, Unanswered]

    def keep(self) -> None:
        """Put the table back where a change took it away with everything else (`flush ruleset`); raises Unsupported."""
        for node, what in self.wanted.items():
            if not _is_there(self.namespaces[node]):
                _apply(self.namespaces[node], what)

    def spared(self) -> dict[str, int]:
        """How many packets each end point's kernel has not seen, since its table was made."""
        return {node: _dropped(space) for node in self.wanted if _is_there(space := self.namespaces[node])}


@contextmanager
def silenced(namespaces: Mapping[str, Namespace], wanted: Mapping[str, Unanswered]) -> Iterator[Silence]:
    """Keep these end points silent inside the block; every rule is read back.

    Raises Unsupported where a node has no nftables, RevertFailed when a table stays.
    """
    with ExitStack() as held:
        for node, what in wanted.items():
            _apply(namespaces[node], what)
            held.callback(_revert, namespaces[node])
        yield Silence(namespaces, wanted)


def _apply(namespace: Namespace, wanted: Unanswered) -> None:
    try:
        namespace.run(["nft", "-f", "-"], _script(wanted).encode())
        listed = _listed(namespace)
    except CommandFailed as refusal:
        raise Unsupported(
            f"{namespace.name} cannot be kept from answering packets of packet mode ({refusal.stderr.strip()})",
            "packet mode needs nftables: the program nft and a kernel with nf_tables",
        ) from None
    rules = sum(1 for entry in listed if entry.get("rule", {}).get("comment") == COMMENT)
    elements = sum(len(entry["set"].get("elem", ())) for entry in listed if entry.get("set", {}).get("name"))
    if (rules, elements) != (len(_rules(wanted)), wanted.elements):
        _revert(namespace)
        raise Unsupported(
            f"{namespace.name} took {rules} rules with {elements} entries, not {len(_rules(wanted))} with "
            f"{wanted.elements}",
            "use a newer nftables",
        )


def _revert(namespace: Namespace) -> None:
    try:
        if _is_there(namespace):
            namespace.run(["nft", "delete", "table", "inet", TABLE])
        left = _is_there(namespace)
    except CommandFailed as failure:
        raise RevertFailed(f"the silence of {namespace.name}", str(failure)) from failure
    if left:
        raise RevertFailed(f"the silence of {namespace.name}", f"table {TABLE} is still there")


def _is_there(namespace: Namespace) -> bool:
    return TABLE in namespace.run(["nft", "list", "tables"]).split()


def _listed(namespace: Namespace) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(namespace.run(["nft", "--json", "list", "table", "inet", TABLE]))[
        "nftables"
    ]
    return told


def _dropped(namespace: Namespace) -> int:
    rules = [entry["rule"] for entry in _listed(namespace) if entry.get("rule", {}).get("comment") == COMMENT]
    counters = [part["counter"] for rule in rules for part in rule["expr"] if "counter" in part]
    return sum(int(counter["packets"]) for counter in counters)


def _script(wanted: Unanswered) -> str:
    lines = [f"create table inet {TABLE}"]
    for version, ip in ((4, "ip"), (6, "ip6")):
        for name in _KEYS:
            entries = _of_version(getattr(wanted, name), version)
            if entries:
                kind = f"ipv{version}_addr . inet_proto . inet_service . inet_service"
                lines.append(_set(f"{name}_{ip}", kind, entries))
        echoes = _of_version(wanted.echoes, version)
        if echoes:
            kind = f"typeof {ip} saddr . {_ICMP[version]} id"
            lines.append(_set(f"echoes_{ip}", kind, echoes))
    lines.append(f"add chain inet {TABLE} silence {{ type filter hook prerouting priority -300 ; policy accept ; }}")
    lines += [f'add rule inet {TABLE} silence {rule} counter drop comment "{COMMENT}"' for rule in _rules(wanted)]
    return "\n".join(lines) + "\n"


def _set(name: str, kind: str, entries: list[str]) -> str:
    typed = kind if kind.startswith("typeof") else f"type {kind}"
    return f"add set inet {TABLE} {name} {{ {typed} ; elements = {{ {', '.join(entries)} }} ; }}"


def _of_version(entries: Iterable[tuple[str, *tuple[int, ...]]], version: int) -> list[str]:
    return [" . ".join(map(str, entry)) for entry in sorted(entries) if (":" in entry[0]) == (version == 6)]


def _rules(wanted: Unanswered) -> list[str]:
    """What each rule matches."""
    rules = []
    if wanted.protocols:
        rules.append(f"meta l4proto {{ {', '.join(map(str, sorted(wanted.protocols)))} }}")
    for version, ip in ((4, "ip"), (6, "ip6")):
        for name, key in _KEYS.items():
            if _of_version(getattr(wanted, name), version):
                rules.append(f"{key.format(ip=ip)} @{name}_{ip}")
        if _of_version(wanted.echoes, version):
            asked = f"{_ICMP[version]} type echo-request"
            rules += [f"{asked} {ip} {end} . {_ICMP[version]} id @echoes_{ip}" for end in ("saddr", "daddr")]
    return rules
