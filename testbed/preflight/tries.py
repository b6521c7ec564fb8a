"""Ways that a changed line may have opened: each rule that the change adds, or no longer drops by, with its packets.

Pure.  A rule is tried from every side of the network, to what it names, before and after translations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd

from replay.schedule import TCP
from testbed.attribution.match import DROPS, Leg, address, matches, options, target
from testbed.change.model import Line
from testbed.devices.base import Configs
from testbed.devices.packet_filter import FAMILIES, Rule
from testbed.preflight.places import (
    Places,
    Service,
    Translation,
    Zone,
    binds,
    networks,
    packet_rules,
    port_ranges,
    protocols,
    translated_by,
)
from testbed.preflight.probe import Kind
from topologies.model import IpAddress, IpNetwork

PROBE_PORT = 4_242
"""Where a rule names no port: a port on which nobody else listens."""

TARGETS = frozenset({"host", "edge", "loadbalancer"})
FILTERS = frozenset({"firewall", "router"})
FRR_PREFIX_WORDS = frozenset({"route", "network", "permit", "range", "aggregate-address", "summary-address"})
GOLDEN = 0.618
"""Steps of this share of a whole fill it evenly, and never keep pace with its rows."""

_ANY_SOURCE_PORT = 50_000
_APPENDS = frozenset({"-A", "-I", "-R", "--append", "--insert", "--replace"})
_DELETES = frozenset({"-D", "--delete"})


@dataclass(slots=True)
class Sampler:
    """Pairs of services and zones, at most so many, spread over all of them; how many more there were is kept."""

    most: int
    left_out: int = 0

    def ways(self, services: Sequence[Service], zones: Sequence[Zone]) -> Iterator[tuple[Service, Zone]]:
        """Every pair, or as many as there may be."""
        count = len(services) * len(zones)
        picks = spread(count, self.most)
        self.left_out += count - len(picks)
        for pick in picks:
            yield services[pick // len(zones)], zones[pick % len(zones)]


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, in order and evenly, whatever rows they are arranged in."""
    if count <= most:
        return list(range(count))
    stride = next(step for step in range(int(count * GOLDEN) or 1, 2 * count + 2) if gcd(step, count) == 1)
    return sorted(number * stride % count for number in range(most))


@dataclass(frozen=True, slots=True)
class Try:
    """One way to try: from a zone to a service."""

    kind: Kind
    zone: Zone
    source: IpAddress
    service: Service
    origin: Line | None = None
    expected: str | None = None


def tries_of_line(
    line: Line, files: Configs, rules: Mapping[tuple[str, int], Rule], here: Places, sampler: Sampler
) -> Iterator[Try]:
    """Ways that a changed line may have opened; none of a line that can only close.

    `files` are those of its node on its own side of the change, `rules` the packet filter's by file and line.
    """
    file = line.file.split("/", 2)[-1]
    if file == "haproxy.cfg":
        if line.sign == "+":
            yield from _of_binds(line, files, here, sampler)
        return
    if file == "frr.conf":
        yield from _of_route(line, here, sampler)
        return
    rule = rules.get((file, line.line))
    if rule is None:
        rule, deleted = _rule_of_command(line)
        if rule is None:
            return
        drops = target(rule.text) in DROPS
        if drops != deleted:
            return
    elif (target(rule.text) in DROPS) == (line.sign == "+") or (target(rule.text) == "ACCEPT" and line.sign == "-"):
        return
    yield from _of_rule(line, rule, here, sampler)


def rules_by_line(files: Configs) -> dict[tuple[str, int], Rule]:
    """The rules of a node's packet filters by the file and the line on which they stand."""
    return {(file, rule.line): rule for file, rule in packet_rules(files)}


def _rule_of_command(line: Line) -> tuple[Rule | None, bool]:
    """The rule that a command of iptables puts in or takes away, and whether it takes it away."""
    words = line.text.split()
    program = words[0].rsplit("/", 1)[-1] if words else ""
    verb = next((place for place, word in enumerate(words) if word in _APPENDS | _DELETES), None)
    if program not in FAMILIES.values() or verb is None or len(words) < verb + 2:
        return None, False
    table = words[words.index("-t") + 1] if "-t" in words[:-1] else "filter"
    rest = words[verb + 2 :]
    text = " ".join(["-A", words[verb + 1], *(rest[1:] if rest and rest[0].isdecimal() else rest)])
    return Rule(table, words[verb + 1], 1, text, line.line), words[verb] in _DELETES


def _of_rule(line: Line, rule: Rule, here: Places, sampler: Sampler) -> Iterator[Try]:
    """Every side of the network with packets that the rule matches, ports first, so that a limit leaves every port."""
    named = {o.name: o for o in options(rule.text)}
    source, wanted = named.get("-s"), named.get("-d")
    sources = [] if source is None or source.negated else networks(",".join(source.arguments))
    inside = None if wanted is None or wanted.negated else networks(",".join(wanted.arguments))
    if (source and not source.negated and not sources) or (wanted and not wanted.negated and not inside):
        return
    version = _version(line.file, rule)
    for protocol in protocols(rule.text):
        services = list(dict.fromkeys(_services_of(line.node, rule, protocol, inside, here)))
        for (to, _, port), zone in sampler.ways(services, here.zones):
            said = here.source(zone, sources)
            if said is None or said.version != to.version or version not in (None, to.version):
                continue
            leg = Leg(int(to.version), protocol, frozenset({said}), frozenset(), _ANY_SOURCE_PORT, frozenset({port}))
            # behind a translation the rule sees other ports than the sender
            if leaves(here, zone, to) and (_translated(here, to, port, protocol) or matches(rule.text, leg)):
                yield Try(Kind.RULE, zone, said, (to, protocol, port), line)


def _version(file: str, rule: Rule) -> int | None:
    if file.endswith("ip6tables.rules"):
        return 6
    if file.endswith("iptables.rules"):
        return 4
    return {"ip": 4, "ip6": 6}.get(rule.table.split("/")[0])


def _services_of(
    node: str, rule: Rule, protocol: int, inside: Sequence[IpNetwork] | None, here: Places
) -> Iterator[Service]:
    """Where packets that a rule matches may go: what it names, or what is known; before and after a translation."""
    translated = translated_by(node, rule)
    if translated:
        for one in translated:
            if one.protocol == protocol:
                yield from _originals(one, here)
        return
    own = rule.chain == "INPUT"
    ends = [(a, n) for a, n in here.addresses((*TARGETS, *FILTERS)) if (n.name == node) == own]
    if inside is None:
        targets = [a for a, n in ends if own or n.kind in TARGETS]
    else:
        targets = [a for a, _ in ends if any(a.version == n.version and a in n for n in inside)]
        if not targets:
            targets = [a for n in inside if (a := here.inside(n)) is not None]
    ranges = port_ranges(rule.text)
    for port, to in _picks(targets, protocol, ranges, here):
        yield to, protocol, port
    for one in here.translations:
        meant = one.protocol == protocol and (one.to in targets or (inside is not None and within(one.to, inside)))
        if meant:
            reached = _originals(one, here)
            yield from (s for s in reached if ranges is None or _in(ranges, one.to_port or s[2]))


def _picks(
    targets: Sequence[IpAddress], protocol: int, ranges: Sequence[tuple[int, int]] | None, here: Places
) -> Iterator[tuple[int, IpAddress]]:
    """Ports by address: of a list all, of a range its ends and middle, of anything the known ones and a free one."""
    for to in targets:
        known = here.ports(to, protocol)
        if ranges is None:
            ports = [*known, PROBE_PORT]
        else:
            ends = [port for low, high in ranges for port in (low, high, (low + high) // 2)]
            ports = [port for port in (*known, *ends) if port and _in(ranges, port)]
        yield from ((port, to) for port in dict.fromkeys(ports))


def _originals(one: Translation, here: Places) -> Iterator[Service]:
    """Where a sender has to send so that a translation takes it."""
    node = here.topology.node(one.node)
    own = [a.ip for i in node.interfaces for a in i.addresses if not (a.is_link_local or a.is_loopback)]
    meant = own if one.originals is None else [a for n in one.originals if (a := _any_in(n, own)) is not None]
    known = here.ports(one.to, one.protocol)
    ports = [p for low, high in one.ports or () for p in (low, high)] or [*known, PROBE_PORT]
    for to, port in product(meant, dict.fromkeys(ports)):
        if to.version == one.to.version and port:
            yield to, one.protocol, port


def _any_in(network: IpNetwork, own: Sequence[IpAddress]) -> IpAddress | None:
    return next((a for a in own if a.version == network.version and a in network), network[0])


def _of_binds(line: Line, files: Configs, here: Places, sampler: Sampler) -> Iterator[Try]:
    """Every side of the network to the ports that a changed `bind` takes."""
    node = here.topology.node(line.node)
    own = [a.ip for i in node.interfaces for a in i.addresses if not (a.is_link_local or a.is_loopback)]
    for number, host, low, high in binds(files):
        if number != line.line:
            continue
        bound = address(host)
        services = [(to, TCP, port) for port in dict.fromkeys((low, high)) for to in own if bound in (None, to)]
        for service, zone in sampler.ways(services, here.zones):
            said = here.source(zone, ())
            if said is not None and said.version == service[0].version:
                yield Try(Kind.RULE, zone, said, service, line)


def _of_route(line: Line, here: Places, sampler: Sampler) -> Iterator[Try]:
    """Every side of the network to the known services of a prefix that a changed line of frr.conf names."""
    words = line.text.split()
    if FRR_PREFIX_WORDS.isdisjoint(words):
        return
    prefixes = [n for word in words if "/" in word for n in networks(word)]
    services = [service for service in here.services if within(service[0], prefixes)]
    for service, zone in sampler.ways(services, here.zones):
        said = here.source(zone, ())
        if said is not None and said.version == service[0].version and leaves(here, zone, service[0]):
            yield Try(Kind.RULE, zone, said, service, line)


def leaves(here: Places, zone: Zone, to: IpAddress) -> bool:
    """Whether a packet passes a filter or a route: within its own subnet only what filters itself is worth a probe."""
    owner = here.owner(to)
    if owner is None:
        return not within(to, [zone.network])
    return owner.name != zone.node and (owner.kind in FILTERS or not within(to, [zone.network]))


def _translated(here: Places, to: IpAddress, port: int, protocol: int) -> bool:
    return any(one.protocol == protocol and takes(one, to, port) for one in here.translations)


def takes(one: Translation, to: IpAddress, port: int) -> bool:
    """Whether a translation is for packets to this address and port."""
    by_address = to.version == one.to.version if one.originals is None else within(to, one.originals)
    return by_address and (one.ports is None or _in(one.ports, port))


def within(end: IpAddress, wanted: Sequence[IpNetwork]) -> bool:
    """Whether an address is in any of the networks, whatever their versions."""
    return any(end.version == network.version and end in network for network in wanted)


def _in(ranges: Sequence[tuple[int, int]], port: int) -> bool:
    return any(low <= port <= high for low, high in ranges)
