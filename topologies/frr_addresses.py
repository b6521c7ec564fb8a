"""The interface addresses that an FRR configuration sets, as the owner of an address must be known before FRR runs.

Pure: text in, addresses out. The configuration itself stays FRR's; this file may not know nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface

from topologies.model import IpInterface


@dataclass(frozen=True, slots=True)
class Configured:
    """An address as it stands in the file."""

    line: int
    interface: str
    address: IpInterface


def configured_addresses(text: str) -> Iterator[Configured]:
    """Every `ip address A/L` and `ipv6 address A/L` below an `interface X`; what does not parse is FRR's to refuse."""
    interface = ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        match words:
            case ["interface", name, *_] if not line[:1].isspace():
                interface = name
            case ["ip" | "ipv6", "address", address, *_] if interface and "/" in address:
                try:
                    yield Configured(number, interface, ip_interface(address))
                except ValueError:
                    continue
            case [first, *_] if not line[:1].isspace() and first not in ("!", "ip", "ipv6"):
                interface = ""
