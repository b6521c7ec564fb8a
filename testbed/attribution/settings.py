"""Kernel settings as suspects: the lines of sysctl.conf that turn packets away, and the counters that show it.

Knows what settings of a node's own network do, no packet filter and no route.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.attribution.edits import successor
from testbed.attribution.scene import Scene
from testbed.attribution.suspect import Ground, Suspect
from testbed.attribution.symptoms import Symptom, of_node
from testbed.change.model import Line

FILE = "sysctl.conf"


@dataclass(frozen=True, slots=True)
class Effect:
    """What settings of a name do, and the (kind, metric) that move when they hurt."""

    name: re.Pattern[str]
    does: str
    shown_by: frozenset[tuple[str, str]]


def _effect(name: str, does: str, *shown_by: tuple[str, str]) -> Effect:
    return Effect(re.compile(name), does, frozenset(shown_by))


UNTRACKED = (("conntrack", "invalid"), ("conntrack", "insert_failed"), ("conntrack", "drop"))
REFUSED = (("icmp", "InAddrErrors"), ("icmp", "Ip6InAddrErrors"), ("icmp", "OutDestUnreachs"))
TOO_BIG = (("icmp", "FragFails"), ("icmp", "Ip6FragFails"), ("icmp", "Icmp6OutPktTooBigs"))
LISTENING = (("icmp", "ListenDrops"),)
EFFECTS = (
    _effect(r"ip_forward$|\.forwarding$", "decides whether the node forwards", *REFUSED),
    _effect(r"\.rp_filter$", "refuses packets from where no route leads back", ("icmp", "IPReversePathFilter")),
    _effect(r"nf_conntrack_.*timeout", "decides how long a connection is known", *UNTRACKED),
    _effect(r"nf_conntrack_tcp_(loose|be_liberal)", "decides which packets belong to a connection", *UNTRACKED),
    _effect(r"ip_no_pmtu_disc|tcp_mtu_probing|\.mtu$", "is about path MTUs", *TOO_BIG),
    _effect(r"\.icmp6?[._].*rate|icmp_ratemask", "limits ICMP errors", *TOO_BIG),
    _effect(r"somaxconn|tcp_max_syn_backlog|tcp_abort_on_overflow", "limits waiting connections", *LISTENING),
    _effect(r"ip_default_ttl|\.hop_limit$", "decides how far packets go", ("icmp", "InHdrErrors")),
    _effect(r"ip_local_port_range|ip_local_reserved_ports", "limits connections that the node makes"),
    _effect(r"disable_ipv6$|accept_ra$|proxy_arp|arp_(ignore|filter|announce)", "decides who is found on a wire"),
)


def suspects(scene: Scene, flows: Sequence[str]) -> list[Suspect]:
    """Changed settings of every node on the flows' way that touch traffic."""
    found = []
    for place, node in enumerate(scene.nodes(flows)):
        lines = scene.lines(node, FILE)
        seen = list(of_node(scene, node)) if lines else []
        for line in lines:
            if line.sign == "-" and successor(line, scene.edits) is not None:
                continue
            suspect = _suspect(line, seen, scene.passing(flows, node), place)
            found += [suspect] if suspect is not None else []
    return found


def _suspect(line: Line, seen: Sequence[Symptom], flows: frozenset[str], place: int) -> Suspect | None:
    name = line.text.partition("=")[0].strip().lstrip("-").replace("/", ".")
    effect = next((one for one in EFFECTS if one.name.search(name)), None)
    if effect is None:
        return None
    shown = [one.sentence for one in seen if (one.kind, one.metric) in effect.shown_by]
    ground = Ground.PROXY_SEEN if shown else Ground.TOUCHED
    verb = "is" if line.sign == "+" else "is no longer"
    said = (f"{line.node}: {name}, which {effect.does}, {verb} {line.text.partition('=')[2].strip()}", *shown)
    return Suspect(ground, line.node, f"sysctl {name}", line, said, flows, (place, line.line))
