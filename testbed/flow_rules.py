"""The policy's classes as rules that find their flows: the one place where policy and flow table meet. Pure."""

from __future__ import annotations

from replay.flow_priority import Rule
from testbed.policy import ClassRule
from topologies.model import IpNetwork

PROTOCOL_NAMES = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp"}


def flow_rule(rule: ClassRule) -> Rule:
    """A class of the policy as the rule that finds its flows."""
    return Rule(
        rule.name,
        rule.priority,
        None if rule.protocol is None else PROTOCOL_NAMES.get(rule.protocol),
        rule.port,
        rule.label,
        _networks(rule.source),
        _networks(rule.destination),
        rule.application,
        rule.ends,
    )


def _networks(given: IpNetwork | tuple[IpNetwork, ...] | None) -> tuple[IpNetwork, ...] | None:
    return given if given is None or isinstance(given, tuple) else (given,)
