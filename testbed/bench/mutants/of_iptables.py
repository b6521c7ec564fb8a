"""Mutants of fw1's iptables.rules and connection tracking, and of paths that lose their ICMP errors, in the depot.

First what does harm, then what is equivalent; `why` tells how one knows without running it.
"""

from __future__ import annotations

from testbed.bench.mutants.mutant import Harm, LinkStep, Mutant, Step
from testbed.bench.mutants.operators import (
    Operator,
    appended,
    deleted,
    doubled,
    inserted,
    moved,
    remarked,
    renamed,
    reworded,
    split,
    swapped,
    without_option,
)

SHOP, DATA, FORWARD = "filter/SHOP", "filter/DATA", "filter/FORWARD"
HTTP, BAN = "-A SHOP -d 203.0.113.10/32 -p tcp -m tcp --dport 80", "-s 198.51.100.200/32"
BEHIND_FW1 = ("http", "https", "dns", "partner")


def _rules(name: str, operator: Operator, why: str, harm: Harm | None = None) -> Mutant:
    return Mutant(f"iptables-{name}", "iptables", why, (Step("fw1", "iptables.rules", operator),), harm=harm)


def _tracking(name: str, operator: Operator, why: str, harm: Harm | None = None) -> Mutant:
    return Mutant(f"conntrack-{name}", "conntrack", why, (Step("fw1", "sysctl.conf", operator),), harm=harm)


HARMFUL = (
    _rules(
        "deleted", deleted(SHOP, HTTP), "no other rule accepts tcp/80 to lb1, and the policy is DROP", Harm(("http",))
    ),
    _rules(
        "deleted-established",
        deleted(FORWARD, "--ctstate RELATED,ESTABLISHED"),
        "only NEW packets are accepted by the other rules, so no TCP answer passes fw1",
        Harm(("http", "https", "partner")),
    ),
    _rules(
        "deleted-one-server",
        deleted(DATA, "-s 203.0.113.12/32"),
        "the rule for app1 does not match app2's queries to the database",
        Harm(("stock-db",)),
    ),
    _rules(
        "reordered-ban",
        moved(SHOP, BAN, HTTP),
        "what is banned meets the rule that accepts tcp/80 first",
        Harm(("http",), opens=True),
    ),
    _rules(
        "over-broad-ban",
        without_option(SHOP, BAN, BAN),
        "without its source the ban is everybody's, and stands before every rule that accepts TCP",
        Harm(("http", "https", "dns")),
    ),
    _rules(
        "over-broad-accept",
        without_option(DATA, "-s 203.0.113.11/32", "-s 203.0.113.11/32"),
        "without its source the rule lets everybody in to the database",
        Harm(opens=True),
    ),
    _rules(
        "over-broad-ports",
        without_option(SHOP, HTTP, "-p tcp -m tcp --dport 80"),
        "without its port the rule lets every port of lb1 be reached",
        Harm(opens=True),
    ),
    _rules(
        "shadowed",
        inserted(SHOP, HTTP, "-A SHOP -s 198.51.100.0/25 -p tcp -m tcp --dport 80 -j DROP"),
        "half of the customers never reach the rule that accepts them",
        Harm(("http",)),
    ),
    _rules(
        "wrong-interface",
        reworded(FORWARD, "-i ens3 -o ens4", "-i ens5 -o ens4"),
        "what comes from outside comes in by ens3, so that nothing enters the chain SHOP",
        Harm(("http", "https", "dns")),
    ),
    _rules(
        "connlimit",
        inserted(
            SHOP,
            "--dport 443",
            "-A SHOP -p tcp --syn --dport 443 -m connlimit --connlimit-above 2 --connlimit-mask 32 -j REJECT"
            " --reject-with tcp-reset",
        ),
        "the reseller has eight TLS connections open at once from one address",
        Harm(("https",)),
    ),
    _rules(
        "hashlimit",
        inserted(
            SHOP,
            HTTP,
            "-A SHOP -p tcp --syn --dport 80 -m hashlimit --hashlimit-above 1/sec --hashlimit-burst 2"
            " --hashlimit-mode srcip --hashlimit-name shop -j DROP",
        ),
        "each of a few customers opens more than five connections a second",
        Harm(("http",)),
    ),
    _tracking(
        "established-timeout",
        reworded(
            "",
            "net.netfilter.nf_conntrack_tcp_timeout_established = 7440",
            "net.netfilter.nf_conntrack_tcp_timeout_established = 1",
        ),
        "sessions of the database are silent for longer than a second, and tcp_loose = 0 makes what follows invalid",
        Harm(("stock-db",)),
    ),
    Mutant(
        "pmtud-blocked",
        "mtu",
        "the big pages need the ICMP error that names the smaller MTU, and it is dropped before RELATED is accepted",
        (
            Step(
                "fw1",
                "iptables.rules",
                inserted(FORWARD, "--ctstate INVALID", "-A FORWARD -p icmp -m icmp --icmp-type 3 -j DROP"),
            ),
        ),
        LinkStep("core1:ens4", "leaf1:ens3", 1400),
        Harm(("http",)),
    ),
)

EQUIVALENT = (
    _rules("swapped-disjoint", swapped(SHOP, "-p udp", "-p tcp -m tcp --dport 53"), "no packet matches both rules"),
    _rules("doubled", doubled(SHOP, HTTP), "what the second one matches has been accepted by the first"),
    _rules("remark", remarked(SHOP, HTTP, "# reviewed by the night shift"), "a comment"),
    _rules(
        "renamed-chain",
        renamed("SHOP", "STOREFRONT"),
        "the chain's declaration, its jump and its rules all have the new name",
    ),
    _rules(
        "longer-text",
        reworded(SHOP, HTTP, "-A SHOP -d 203.0.113.10 -p tcp -m multiport --dports 80"),
        "the same port and address in other words",
    ),
    _rules(
        "subsumed",
        appended(SHOP, HTTP, "-A SHOP -s 198.51.100.0/24 -d 203.0.113.10/32 -p tcp -m tcp --dport 80 -j ACCEPT"),
        "a NEW packet that it matches was accepted by the broader rule before it, any other by ESTABLISHED",
    ),
    _rules(
        "split-by-source-port",
        split(
            DATA,
            "-s 203.0.113.12/32 -d 203.0.113.70/32 -p tcp -m tcp",
            "-s 203.0.113.12/32 -d 203.0.113.70/32 -p tcp -m tcp --sport 0:32767",
            "-s 203.0.113.12/32 -d 203.0.113.70/32 -p tcp -m tcp --sport 32768:65535",
        ),
        "every source port is in one of the halves",
    ),
    _rules(
        "explicit-policy",
        appended(DATA, "-s 203.0.113.12/32", "-A FORWARD -j DROP"),
        "the chain's policy drops what comes to its end anyway",
    ),
    _rules(
        "connlimit-never-reached",
        inserted(
            SHOP,
            "--dport 443",
            "-A SHOP -p tcp --syn --dport 443 -m connlimit --connlimit-above 500 --connlimit-mask 32 -j DROP",
        ),
        "there are fewer than 200 connections in all",
    ),
    _rules(
        "hashlimit-never-reached",
        inserted(
            SHOP,
            HTTP,
            "-A SHOP -p tcp --syn --dport 80 -m hashlimit --hashlimit-above 5000/sec --hashlimit-burst 5000"
            " --hashlimit-mode srcip --hashlimit-name shop -j DROP",
        ),
        "there are fewer than 200 connections in all",
    ),
    _tracking(
        "longer-timeout",
        reworded(
            "",
            "net.netfilter.nf_conntrack_tcp_timeout_established = 7440",
            "net.netfilter.nf_conntrack_tcp_timeout_established = 86400",
        ),
        "nothing is silent for 7,440 seconds in a window of two",
    ),
    _tracking(
        "udp-timeout",
        reworded("", "net.netfilter.nf_conntrack_udp_timeout = 30", "net.netfilter.nf_conntrack_udp_timeout = 20"),
        "a name is answered within milliseconds",
    ),
    Mutant(
        "mtu-larger",
        "mtu",
        "no other interface sends a packet of more than 1,500 octets",
        (),
        LinkStep("core1:ens4", "leaf1:ens3", 9000),
    ),
)
