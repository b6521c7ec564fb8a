"""Mutants of fw2's nftables.conf in the depot; `why` tells how one knows without running it."""

from __future__ import annotations

from testbed.bench.mutants.mutant import Harm, Mutant, Step
from testbed.bench.mutants.operators import (
    Operator,
    deleted,
    doubled,
    element_removed,
    inserted,
    remarked,
    renamed,
    reworded,
    split,
    swapped,
    without_option,
)

TABLE = "table inet office"
FORWARD, OUT, IN = f"{TABLE}/chain forward", f"{TABLE}/chain out", f"{TABLE}/chain in"
BACKUP = "ip saddr @shops ip daddr 203.0.113.101 tcp dport 873 accept"


def _rules(name: str, operator: Operator, why: str, harm: Harm | None = None) -> Mutant:
    return Mutant(f"nftables-{name}", "nftables", why, (Step("fw2", "nftables.conf", operator),), harm=harm)


HARMFUL = (
    _rules(
        "deleted",
        deleted(OUT, "ip daddr @partners"),
        "no other rule lets the office out to partners",
        Harm(("partner",)),
    ),
    _rules(
        "element-removed",
        element_removed(f"{TABLE}/set shops", "203.0.113.12"),
        "app2 is in no rule of chain in any more",
        Harm(("backup",)),
    ),
    _rules(
        "over-broad-drop",
        inserted(IN, BACKUP, "ip saddr 203.0.113.0/24 drop"),
        "the servers' own addresses are in the range, and the rule stands before theirs",
        Harm(("backup",)),
    ),
    _rules(
        "over-broad-accept",
        without_option(IN, BACKUP, "ip saddr @shops"),
        "without its source the rule lets everybody in to the office's storage",
        Harm(opens=True),
    ),
    _rules(
        "limit",
        inserted(IN, BACKUP, "tcp dport 873 ct state new limit rate over 1/minute burst 1 packets drop"),
        "there are four backups in a window of two seconds",
        Harm(("backup",)),
    ),
    _rules(
        "wrong-interface",
        reworded(FORWARD, 'iifname "ens4" jump out', 'iifname "ens5" jump out'),
        "fw2 has no ens5, so that nobody in the office gets out",
        Harm(("http", "dns", "partner")),
    ),
)

EQUIVALENT = (
    _rules("remark", remarked(OUT, "ip daddr @partners", "# partners only"), "a comment"),
    _rules(
        "elements-in-other-order",
        reworded(f"{TABLE}/set shops", "203.0.113.11, 203.0.113.12", "203.0.113.12, 203.0.113.11"),
        "a set has no order",
    ),
    _rules("renamed-set", renamed("shops", "storefront"), "the set and its only use have the new name"),
    _rules("swapped-disjoint", swapped(OUT, "udp dport 53", "tcp dport { 80, 443 }"), "no packet matches both rules"),
    _rules(
        "split-ports",
        split(OUT, "tcp dport { 80, 443 }", "tcp dport 80", "tcp dport 443"),
        "each of the two ports is in one of the rules",
    ),
    _rules("doubled", doubled(IN, BACKUP), "what the second one matches has been accepted by the first"),
    _rules(
        "limit-never-reached",
        inserted(IN, BACKUP, "tcp dport 873 ct state new limit rate over 2000/second burst 2000 packets drop"),
        "there are four backups in a window of two seconds",
    ),
)
