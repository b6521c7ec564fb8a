"""Flows to classes and business priorities, by ordered rules. Knows the flow table, not where rules are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Network, ip_address

import numpy as np
import pandas as pd

from replay.columns import ICMP, ICMPV6, TCP, UDP, Bool

PRIORITIES = ("critical", "high", "normal", "low")
OTHER_CLASS, OTHER_PRIORITY = "other", "normal"
_PROTOCOLS = {"tcp": (TCP,), "udp": (UDP,), "icmp": (ICMP, ICMPV6)}


@dataclass(frozen=True, slots=True)
class Rule:
    """A flow class and what belongs to it; what is None matches everything, `label` is a glob that ignores case.

    `port` is the destination's: one, or ranges of which any may hold it. Networks match when any of them contains the
    address; `ends` when one of them contains either address. Raises ValueError for a priority or protocol that does
    not exist.
    """

    name: str
    priority: str = OTHER_PRIORITY
    protocol: str | None = None
    port: int | tuple[range, ...] | None = None
    label: str | None = None
    source: tuple[IPv4Network | IPv6Network, ...] | None = None
    destination: tuple[IPv4Network | IPv6Network, ...] | None = None
    application: str | None = None
    ends: tuple[IPv4Network | IPv6Network, ...] | None = None

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise ValueError(f"no priority {self.priority!r}; have: {', '.join(PRIORITIES)}")
        if self.protocol is not None and self.protocol not in _PROTOCOLS:
            raise ValueError(f"no protocol {self.protocol!r}; have: {', '.join(_PROTOCOLS)}")


def classified(flows: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """The flow table with `priority` and `flow_class` set by the first rule that matches, else normal and other."""
    priority = np.full(len(flows), OTHER_PRIORITY, dtype=object)
    flow_class = np.full(len(flows), OTHER_CLASS, dtype=object)
    for rule in reversed(rules):
        matching = _matching(flows, rule)
        priority[matching] = rule.priority
        flow_class[matching] = rule.name
    return flows.assign(
        priority=pd.Series(priority, index=flows.index, dtype="str"),
        flow_class=pd.Series(flow_class, index=flows.index, dtype="str"),
    )


def _matching(flows: pd.DataFrame, rule: Rule) -> Bool:
    matching = np.ones(len(flows), np.bool_)
    if rule.protocol is not None:
        matching &= flows["protocol"].isin(_PROTOCOLS[rule.protocol]).to_numpy(np.bool_)
    if rule.port is not None:
        matching &= _among(flows["destination_port"], rule.port)
    if rule.application is not None:
        matching &= (flows["application"] == rule.application).to_numpy(np.bool_)
    if rule.label is not None:
        glob = re.compile(translate(rule.label), re.IGNORECASE)
        matching &= flows["label"].map(lambda label: glob.match(label) is not None).to_numpy(np.bool_)
    for networks, column in ((rule.source, "source_address"), (rule.destination, "destination_address")):
        if networks is not None:
            matching &= _inside(flows[column], networks)
    if rule.ends is not None:
        matching &= _inside(flows["source_address"], rule.ends) | _inside(flows["destination_address"], rule.ends)
    return matching


def _among(ports: pd.Series[int], wanted: int | tuple[range, ...]) -> Bool:
    ranges = (range(wanted, wanted + 1),) if isinstance(wanted, int) else wanted
    among: Bool = np.zeros(len(ports), np.bool_)
    for one in ranges:
        among |= ((ports >= one.start) & (ports < one.stop)).to_numpy(np.bool_)
    return among


def _inside(addresses: pd.Series[str], networks: tuple[IPv4Network | IPv6Network, ...]) -> Bool:
    contained = {text: any(ip_address(text) in network for network in networks) for text in addresses.unique().tolist()}
    return addresses.map(contained).to_numpy(np.bool_)
