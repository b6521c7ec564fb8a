"""What was inferred, how sure it is and what to refine, in words for the lab's README. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from testbed.infer.plan import Plan
from testbed.infer.rules import Drafted
from testbed.infer.wiring import INVENTED

_MOST_DOUBTS = 40
_LONG_S = 120


def readme(
    name: str, plan: Plan, rules: Drafted, flows: pd.DataFrame, traffic: Sequence[str], *, from_records: bool
) -> str:
    """The README as Markdown."""
    kinds = Counter(node.kind for node in plan.topology.nodes)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    lines = [
        f"# {name}: a first lab, from traffic alone",
        "",
        f"Inferred from {', '.join(traffic)}: {len(flows):,} flows, {counted}. Why each node is there stands above it",
        "in `lab.yaml`. Every address of the flows belongs to a host or an edge, so that all of them can be replayed:",
        "",
        "```sh",
        "testbed up . --check",
        "testbed whatif . --change changes/none",
        "```",
        "",
        *_length(flows),
        "## How sure",
        "",
    ]
    if plan.networks:
        lines += ["| wire | network | sure? | because |", "|---|---|---|---|"]
        lines += [f"| {wire} | {one.network} | {one.sureness} | {one.evidence} |" for wire, one in plan.networks]
    else:
        lines.append(
            "No link layer was told of: who stands where is unknown, and everything hangs on one invented router."
        )
    lines += ["", *_method(from_records=from_records)]
    doubts = [*plan.doubts, *rules.doubts]
    if doubts:
        lines += ["", "## What is odd", "", *(f"- {_plain(doubt)}" for doubt in doubts[:_MOST_DOUBTS])]
        if len(doubts) > _MOST_DOUBTS:
            lines.append(f"- and {len(doubts) - _MOST_DOUBTS} more")
    lines += ["", "## What to refine", "", *_to_do(rules, from_records=from_records), ""]
    return "\n".join(lines)


def _length(flows: pd.DataFrame) -> list[str]:
    """How long a replay takes, where it takes long."""
    seconds = int(flows["end_ns"].max() - flows["start_ns"].min()) / 1e9
    if seconds < _LONG_S:
        return []
    return [f"They last {seconds:,.0f} s: replay them faster (`--speed`) or take a shorter stretch of them.", ""]


def _method(*, from_records: bool) -> list[str]:
    if from_records:
        return [
            "Flow records have no MAC and no TTL: servers are those that answered, all else is told by prefix only."
        ]
    return [
        "- A station is a MAC that sent. An address whose packets crossed no router (its TTL is 64, 128 or 255, where",
        "  TTLs begin) is the station's own; the others are behind it, and the station is a gateway.",
        "- Networks are those that DHCP and router advertisements announce, or a broadcast address ends; else a usual",
        "  size that holds what answered ARP or neighbour discovery.",
        f"- {INVENTED[4]} and {INVENTED[6]} are invented: transfer networks where nothing is known, as is a",
        "  gateway's address at the end of a network that no flow has.",
        "- Routers further away than the gateway are told in numbers and not drawn.",
    ]


def _to_do(rules: Drafted, *, from_records: bool) -> list[str]:
    todo = [
        "- `policy.yaml`: give the classes their priority.",
        "- `lab.yaml`: rename nodes, correct networks, give links their `rate` and `delay`; a gateway may be a router,",
        "  firewall or loadbalancer, and hosts that are one machine may be joined.",
        "- `configs/NODE/`: lay production's own files there, `frr.conf`, `iptables.rules`, `haproxy.cfg`.",
    ]
    if rules.rules:
        todo.append(
            f"- {rules.rules} rules were drafted from refused flows: they say what was seen, not what is written."
        )
    if from_records:
        todo.append("- Lay a capture into `traffic/`: records tell who spoke to whom, but not what was said.")
    return todo


def _plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
