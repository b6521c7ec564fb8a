"""Who serves and who asks, and which addresses look like several machines or a proxy. Pure: flows in, roles out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import pandas as pd

from replay.columns import TCP, UDP
from replay.meter import Metered
from testbed.infer.homes import Home, ordered

MOST_BANNERS = 2000
MOST_LABELS = 3
_SERVED_BY = re.compile(rb"\r?\nserver:[ \t]*([^\r\n]{1,80})", re.IGNORECASE)
_BANNER = re.compile(rb"SSH-[^\r\n]{1,80}")
_PROTOCOLS = {TCP: "tcp", UDP: "udp"}


@dataclass(frozen=True, slots=True)
class Service:
    """A port that answered: how often, what was spoken there and whom clients asked for."""

    protocol: str
    port: int
    flows: int
    application: str
    labels: tuple[str, ...]

    def __str__(self) -> str:
        spoken = f" {self.application}" if self.application else ""
        asked = f" for {', '.join(self.labels)}" if self.labels else ""
        return f"{self.protocol}/{self.port}{spoken}{asked} ({self.flows} flow{'s' if self.flows > 1 else ''})"


@dataclass(frozen=True, slots=True)
class Roles:
    """Services by server address, how many flows each address began, and what is odd about an address."""

    services: Mapping[str, tuple[Service, ...]]
    began: Mapping[str, int]
    oddities: Mapping[str, tuple[str, ...]]


def roles(flows: pd.DataFrame, homes: Mapping[str, Home], metered: Metered | None = None) -> Roles:
    """Read the roles off the flow table; `metered` has the first words, in which several servers may differ."""
    services = _services(flows)
    began = Counter(flows["source_address"].tolist())
    odd: dict[str, list[str]] = defaultdict(list)
    for address, home in homes.items():
        told = " and ".join(map(str, home.distances))
        if home.answered and home.beyond and home.distance:
            odd[address].append(
                f"{home.mac} answers for it ({home.answered}), yet its packets crossed {told} routers: "
                "a virtual address that is translated, proxied or balanced"
            )
        elif len(home.distances) > 1:
            odd[address].append(f"its packets crossed {told} routers: translation, or several machines")
    for address, told in _proxies(flows, services).items():
        odd[address].append(told)
    for address, told in _banners(metered).items() if metered is not None else ():
        odd[address].append(told)
    return Roles(services, began, {address: tuple(told) for address, told in odd.items()})


def _key(key: object) -> tuple[str, int, int]:
    address, protocol, port = cast("tuple[str, int, int]", key)
    return str(address), int(protocol), int(port)


def _services(flows: pd.DataFrame) -> dict[str, tuple[Service, ...]]:
    accepted = flows[(flows["outcome"] == "accepted") & flows["protocol"].isin(list(_PROTOCOLS))]
    accepted = accepted[accepted["destination_port"] > 0]
    found: dict[str, list[Service]] = defaultdict(list)
    for key, rows in accepted.groupby(["destination_address", "protocol", "destination_port"], sort=True):
        address, protocol, port = _key(key)
        spoken = Counter(one for one in rows["application"] if one).most_common(1)
        labels = Counter(one for one in rows["label"] if one).most_common(MOST_LABELS)
        found[address].append(
            Service(
                _PROTOCOLS[protocol],
                port,
                len(rows),
                str(spoken[0][0]) if spoken else "",
                tuple(str(label) for label, _ in labels),
            )
        )
    return {address: tuple(sorted(each, key=lambda one: (-one.flows, one.port))) for address, each in found.items()}


def _proxies(flows: pd.DataFrame, services: Mapping[str, tuple[Service, ...]]) -> dict[str, str]:
    """Addresses that serve, and themselves ask several servers for one service."""
    accepted = flows[(flows["outcome"] == "accepted") & flows["source_address"].isin(list(services))]
    found = {}
    for key, rows in accepted.groupby(["source_address", "protocol", "destination_port"], sort=True):
        address, protocol, port = _key(key)
        behind = ordered(set(rows["destination_address"].tolist()))
        if len(behind) > 1 and protocol in _PROTOCOLS:
            found[address] = (
                f"it serves and itself asks {len(behind)} servers at {_PROTOCOLS[protocol]}/{port} "
                f"({', '.join(behind[:4])}): a load balancer or proxy"
            )
    return found


def _banners(metered: Metered) -> dict[str, str]:
    """Servers that introduce themselves in several ways at one port."""
    flows = metered.flows
    asked = flows[(flows["outcome"] == "accepted") & flows["application"].isin(["http", "ssh"])].head(MOST_BANNERS)
    said = metered.messages
    first = said[(said["direction"] == 1) & said["flow_id"].isin(asked["flow_id"])].drop_duplicates("flow_id")
    words = dict(zip(first["flow_id"].astype("str"), first["payload_ref"].tolist(), strict=True))
    names: dict[tuple[str, int], set[str]] = defaultdict(set)
    columns = ("flow_id", "destination_address", "destination_port")
    for flow_id, address, port in zip(*(asked[name].tolist() for name in columns), strict=True):
        ref = words.get(flow_id, -1)
        text = metered.payloads[ref][:4096] if ref >= 0 else b""
        banner = _BANNER.match(text) or _SERVED_BY.search(text.partition(b"\r\n\r\n")[0])
        if banner:
            names[address, port].add(banner[banner.re.groups].decode("latin-1").strip())
    return {
        address: f"at port {port} it introduces itself as {', '.join(sorted(each)[:4])}: several machines"
        for (address, port), each in sorted(names.items())
        if len(each) > 1
    }
