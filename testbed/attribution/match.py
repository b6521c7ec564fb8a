"""Does the text of an iptables or nftables rule match a flow, and do two texts say the same.

Knows nothing but text: no counter, no change, no network.  What it does not understand counts as a
match, because the rule's own packet counter is the better witness.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from types import MappingProxyType

from testbed.attribution.nft_words import in_iptables_words
from topologies.model import IpAddress, IpNetwork

ICMP, TCP, UDP, ICMPV6, OSPF = 1, 6, 17, 58, 89
BGP_PORT, BFD_PORT, SOME_PORT = 179, 3784, 49_152
LONG_NAMES = MappingProxyType(
    {
        "--append": "-A",
        "--insert": "-A",
        "-I": "-A",
        "--protocol": "-p",
        "--proto": "-p",
        "--source": "-s",
        "--src": "-s",
        "--destination": "-d",
        "--dst": "-d",
        "--in-interface": "-i",
        "--out-interface": "-o",
        "--jump": "-j",
        "--goto": "-g",
        "--match": "-m",
        "--destination-port": "--dport",
        "--source-port": "--sport",
        "--destination-ports": "--dports",
        "--source-ports": "--sports",
        "--state": "--ctstate",
        "--icmpv6-type": "--icmp-type",
    }
)
PROTOCOLS = MappingProxyType(
    {"icmp": ICMP, "tcp": TCP, "udp": UDP, "icmpv6": ICMPV6, "ipv6-icmp": ICMPV6, "icmp6": ICMPV6, "all": 0, "any": 0}
    | {"igmp": 2, "gre": 47, "esp": 50, "ah": 51, "ospf": OSPF, "ospfigp": OSPF, "pim": 103, "vrrp": 112, "sctp": 132}
)
SERVICES = MappingProxyType(
    {"ssh": 22, "domain": 53, "http": 80, "ntp": 123, "https": 443, "mysql": 3306, "postgresql": 5432, "redis": 6379}
)
PATH_MTU_TYPES = frozenset(
    {"3", "3/4", "destination-unreachable", "fragmentation-needed", "2", "2/0", "packet-too-big"}
)
IMPLIED = frozenset({*PROTOCOLS, "state", "conntrack", "comment"})
DROPS = frozenset({"DROP", "REJECT", "TARPIT"})


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a rule: `! -s 10.0.0.0/8` is ("-s", ("10.0.0.0/8",), negated)."""

    name: str
    arguments: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Leg:
    """A flow's packets between two ends that do not change them, as any node between may see them.

    More than one address stands at an end that translates; `ports` None means not known.
    """

    version: int
    protocol: int
    sources: frozenset[IpAddress]
    destinations: frozenset[IpAddress]
    source_port: int | None
    ports: frozenset[int] | None

    @property
    def reverse(self) -> Leg:
        """The answers; their source port stands in `source_port` only when there is exactly one."""
        single = next(iter(self.ports)) if self.ports is not None and len(self.ports) == 1 else None
        back = None if self.source_port is None else frozenset({self.source_port})
        return Leg(self.version, self.protocol, self.destinations, self.sources, single, back)


@lru_cache(maxsize=4096)
def options(text: str) -> tuple[Option, ...]:
    """The options of a rule's text in order; any text at all gives some, never an error.

    iptables' rules begin with an option, nftables' never do.
    """
    if not text.lstrip().startswith("-"):
        text = in_iptables_words(text)
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    found: list[Option] = []
    negated, name, arguments = False, "", list[str]()
    for word in [*words, "-"]:
        starts = word.startswith("-") and not word[1:2].isdigit()
        if starts or word == "!":
            if name:
                found.append(Option(LONG_NAMES.get(name, name), tuple(arguments), negated))
                negated = False
            name, arguments = (word, []) if starts else ("", [])
            negated = negated or word == "!"
        elif name and word:
            arguments.append(word)
    return tuple(found)


def target(text: str) -> str:
    """What the rule jumps to; `policy DROP` gives DROP, a rule without a target the empty string."""
    if text.startswith("policy "):
        return text.removeprefix("policy ").split()[0].upper() if len(text.split()) > 1 else ""
    return next((o.arguments[0] for o in options(text) if o.name in ("-j", "-g") and o.arguments), "")


def canonical(text: str) -> tuple[tuple[str, bool, tuple[str, ...]], ...]:
    """A form that is equal for a rule in a file and as the kernel saves it: order, /32 and implied modules away."""
    if text.startswith("policy "):
        return (("policy", False, (target(text),)),)
    parts = []
    for option in options(text):
        if option.name == "--comment" or (option.name == "-m" and set(option.arguments) <= IMPLIED):
            continue
        parts.append((option.name, option.negated, tuple(_plain(option.name, a) for a in option.arguments)))
    return tuple(sorted(parts))


def matches(text: str, leg: Leg) -> bool:
    """Whether packets of the leg, or their answers, can match the rule; a policy matches everything."""
    return text.startswith("policy ") or _one_way(text, leg) or _one_way(text, leg.reverse)


def stops_path_mtu(text: str) -> bool:
    """Whether the rule can match the ICMP errors without which a sender never learns of a smaller MTU."""
    if text.startswith("policy "):
        return False
    protocols = [o for o in options(text) if o.name == "-p"]
    if not any(_protocol(a) in (ICMP, ICMPV6) for o in protocols for a in o.arguments if not o.negated):
        return False
    types = [o for o in options(text) if o.name == "--icmp-type"]
    return all(o.negated or not PATH_MTU_TYPES.isdisjoint(o.arguments) for o in types)


def meets_routing(text: str, version: int) -> bool:
    """Whether the rule can match what routers say to each other: OSPF, BGP or BFD."""
    nowhere = frozenset[IpAddress]()
    spoken = ((OSPF, None), (TCP, frozenset({BGP_PORT})), (UDP, frozenset({BFD_PORT})))
    return any(matches(text, Leg(version, number, nowhere, nowhere, SOME_PORT, ports)) for number, ports in spoken)


def names_icmp_type(text: str) -> bool:
    """Whether the rule is about some ICMP types only."""
    return any(o.name == "--icmp-type" for o in options(text))


def _one_way(text: str, leg: Leg) -> bool:
    for option in options(text):
        check = _CHECKS.get(option.name)
        if check is None or not option.arguments:
            continue
        verdict = check(",".join(option.arguments).split(","), leg)
        if verdict is not None and verdict == option.negated:
            return False
    return True


def _protocol_is(wanted: list[str], leg: Leg) -> bool | None:
    numbers = {_protocol(name) for name in wanted}
    return None if None in numbers else bool(numbers & {0, leg.protocol})


def _source_is(wanted: list[str], leg: Leg) -> bool | None:
    return _among(wanted, leg.sources)


def _destination_is(wanted: list[str], leg: Leg) -> bool | None:
    return _among(wanted, leg.destinations)


def _source_port_is(wanted: list[str], leg: Leg) -> bool | None:
    return _in_ports(wanted, None if leg.source_port is None else frozenset({leg.source_port}))


def _port_is(wanted: list[str], leg: Leg) -> bool | None:
    return _in_ports(wanted, leg.ports)


def _either_port_is(wanted: list[str], leg: Leg) -> bool | None:
    verdicts = (_source_port_is(wanted, leg), _port_is(wanted, leg))
    return True if True in verdicts else None if None in verdicts else False


_CHECKS: MappingProxyType[str, Callable[[list[str], Leg], bool | None]] = MappingProxyType(
    {
        "-p": _protocol_is,
        "-s": _source_is,
        "-d": _destination_is,
        "--sport": _source_port_is,
        "--sports": _source_port_is,
        "--dport": _port_is,
        "--dports": _port_is,
        "--ports": _either_port_is,
    }
)
"""True, False, or None where the text or the leg does not tell."""


def _among(wanted: list[str], addresses: frozenset[IpAddress]) -> bool | None:
    networks = [_network(text) for text in wanted]
    if None in networks or not addresses:
        return None
    return any(a.version == n.version and a in n for n in networks if n is not None for a in addresses)


def _in_ports(wanted: list[str], ports: frozenset[int] | None) -> bool | None:
    ranges = [_port_range(text) for text in wanted]
    if ports is None or None in ranges:
        return None
    return any(r[0] <= port <= r[1] for r in ranges if r is not None for port in ports)


def _port_range(text: str) -> tuple[int, int] | None:
    low, colon, high = text.partition(":")
    first = _port(low) if low or not colon else 0
    last = (_port(high) if high else 65535) if colon else first
    return None if first is None or last is None else (first, last)


def _port(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= 5 else SERVICES.get(text)


def _protocol(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= 3 else PROTOCOLS.get(text.lower())


def _network(text: str) -> IpNetwork | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _plain(name: str, argument: str) -> str:
    if name == "-p":
        return str(_protocol(argument) if _protocol(argument) is not None else argument)
    if name in ("-s", "-d"):
        return ",".join(sorted(str(_network(a) or a) for a in argument.split(",")))
    if name in ("--dport", "--sport", "--dports", "--sports"):
        return ",".join(str(_port(a) if _port(a) is not None else a) for a in argument.split(","))
    if name == "--ctstate":
        return ",".join(sorted(argument.split(",")))
    return argument


def address(text: str) -> IpAddress | None:
    """The address that a text is, or None."""
    try:
        return ip_address(text)
    except ValueError:
        return None
