"""What decided at a hop: the rule by the kernel's own trace, the route by the kernel's own lookup.

It knows nodes and their files, no journey's end and no change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network

from testbed.devices.base import Configs
from testbed.devices.nft_text import FILE as NFT_FILE
from testbed.devices.packet_filter import FAMILIES
from testbed.devices.rule_trace import FiveTuple, Step, Trace, culprit, traced
from testbed.errors import CommandFailed
from testbed.network.link import kernel_name
from testbed.shadow import Shadow
from testbed.trace.journey import Decision, Hop, Tuple

FILTER_FILES = frozenset({*FAMILIES, NFT_FILE})
ENDS_WITHOUT_A_ROUTE = {
    "Network is unreachable": "no route",
    "No route to host": "unreachable",
    "Invalid argument": "blackhole",
    "Permission denied": "prohibit",
    "Resource temporarily unavailable": "throw",
}
"""What the kernel answers to a lookup that ends in nothing, or in a route that says so."""

_STATIC = re.compile(r"^\s*(?:ip|ipv6) route (\S+)\s")
_DECIDING = ("accept", "drop", "reject", "queue", "repeat")


def filters(configs: Configs) -> bool:
    """Whether a node has packet filter rules of its own."""
    return bool(FILTER_FILES & configs.keys())


@contextmanager
def rules_traced(shadow: Shadow, wanted: Mapping[str, Sequence[Tuple]]) -> Iterator[Mapping[str, Trace]]:
    """Trace these packets through the rules of each node as long as the block runs; raises Unsupported."""
    with ExitStack() as traces:
        running = {}
        for node, packets in wanted.items():
            configs = shadow.configs[node]
            if packets and filters(configs):
                flows = [five_tuple(packet) for packet in dict.fromkeys(packets)]
                running[node] = traces.enter_context(traced(shadow.boxes[node], configs, flows))
        yield running


def five_tuple(packet: Tuple) -> FiveTuple:
    """As the rule trace takes it."""
    source, destination = ip_address(packet.source), ip_address(packet.destination)
    return FiveTuple(packet.protocol, source, destination, packet.source_port, packet.destination_port)


def rules_met(node: str, steps: Sequence[Step]) -> tuple[Decision, ...]:
    """The rules that decided over a flow at a node: what dropped it, or what let its first packet pass.

    Of the first packet every rule that ended a chain is told and, where no rule of the filter decided, the policy.
    """
    dropped = culprit(steps)
    if dropped is not None:
        return (_ruled(node, dropped),)
    own = first_packet(steps)
    told = [step for step in own if step.place and step.verdict.lower().startswith(_DECIDING)]
    if not any("nat" not in step.table for step in told):
        told += [step for step in own if not step.place and step.file and "filter" in step.table][-1:]
    return tuple(_ruled(node, step) for step in told)


def first_packet(steps: Sequence[Step]) -> list[Step]:
    """What the first packet met; a later one may have its number again, and then enters a chain that ended."""
    own: list[Step] = []
    over: set[tuple[str, str]] = set()
    for step in steps:
        chain = step.table, step.chain
        if step.packet != steps[0].packet:
            continue
        if chain in over:
            break
        own.append(step)
        if not step.place or step.verdict.lower().startswith(_DECIDING):
            over.add(chain)
    return own


def _ruled(node: str, step: Step) -> Decision:
    name = f"{step.table} {step.chain} {f'rule {step.place}' if step.place else 'policy'}"
    return Decision("rule", node, name, step.text, step.verdict, step.file, step.line)


def route_taken(shadow: Shadow, hop: Hop) -> Decision | None:
    """The route by which a node sends this hop's packet on, as the kernel looks it up; None at the packet's end."""
    box = shadow.boxes[hop.node]
    if hop.entered is None or not any(interface.addresses for interface in box.node.interfaces):
        return None
    packet = hop.sent_as
    asked = ["ip", "-j", "route", "get", "fibmatch", packet.destination, "from", hop.seen_as.source]
    try:
        said = json.loads(box.run([*asked, "iif", kernel_name(hop.entered)]) or "[]")
    except CommandFailed as failure:
        why = next((name for text, name in ENDS_WITHOUT_A_ROUTE.items() if text in failure.stderr), "")
        if not why:
            return None
        prefix = _longest(box.kernel.routes(), packet.destination) if why != "no route" else ""
        file, line, text = _written(shadow.configs[hop.node], prefix)
        return Decision("route", hop.node, prefix or packet.destination, text or why, why, file, line)
    if not said or said[0].get("type") in ("local", "broadcast", "multicast"):
        return None
    route = said[0]
    ways = route.get("nexthops") or [route]
    via = ", ".join(f"{way.get('gateway', 'direct')} dev {_production(shadow, hop.node, way['dev'])}" for way in ways)
    prefix = _prefix(str(route["dst"]), packet.destination)
    learnt = str(route.get("protocol", ""))
    file, line, _ = _written(shadow.configs[hop.node], prefix) if learnt == "static" else ("", None, "")
    return Decision("route", hop.node, prefix, f"{prefix} via {via}", learnt, file, line)


def _production(shadow: Shadow, node: str, device: str) -> str:
    """An interface's name in production by the kernel's."""
    own = shadow.topology.node(node).interfaces
    return next((interface.name for interface in own if kernel_name(interface.name) == device), device)


def _prefix(destination: str, address: str) -> str:
    if destination == "default":
        return "::/0" if ":" in address else "0.0.0.0/0"
    return destination if "/" in destination else f"{destination}/{128 if ':' in destination else 32}"


def _longest(routes: Mapping[str, str], address: str) -> str:
    """The longest of these prefixes that holds the address; empty when none does."""
    target = ip_address(address)
    held = [net for net in map(ip_network, routes) if net.version == target.version and target in net]
    return str(max(held, key=lambda net: net.prefixlen, default=""))


def _written(configs: Configs, prefix: str) -> tuple[str, int | None, str]:
    """(file, line, text) of the static route to a prefix in frr.conf; empty when it stands nowhere."""
    if not prefix:
        return "", None, ""
    for number, text in enumerate(configs.get("frr.conf", b"").decode(errors="replace").splitlines(), start=1):
        found = _STATIC.match(text)
        try:
            if found and str(ip_network(found[1], strict=False)) == prefix:
                return "frr.conf", number, text.strip()
        except ValueError:
            continue
    return "", None, ""
