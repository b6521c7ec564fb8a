"""Mutants of the depot's routers: static routes, OSPF and BGP; `why` tells how one knows without running it."""

from __future__ import annotations

from testbed.bench.mutants.mutant import Harm, Mutant, Step
from testbed.bench.mutants.operators import (
    Operator,
    TrueLine,
    appended,
    deleted,
    inserted,
    remarked,
    renamed,
    reworded,
    split,
)

BGP, OSPF = "router bgp 65001", "router ospf"
HIDDEN = TrueLine("core2", "configs/core2/frr.conf", "ip route 203.0.113.0/27 Null0")
"""Nobody meets it while core1 is preferred."""

SHOP_FROM_OUTSIDE = ("http", "https", "dns")


def _router(node: str, name: str, operator: Operator, why: str, harm: Harm | None = None) -> Mutant:
    return Mutant(f"frr-{name}", "frr", why, (Step(node, "frr.conf", operator),), harm=harm)


HARMFUL = (
    _router(
        "core1",
        "null-route",
        inserted("interface ens3", "interface ens3", "ip route 192.0.2.0/24 Null0"),
        "a static route is preferred to OSPF's, and what goes to partners passes core1",
        Harm(("partner",)),
    ),
    _router(
        "b1",
        "null-route-longer-prefix",
        inserted("interface ens4", "interface ens4", "ip route 203.0.113.16/28 Null0"),
        "the name server is in it, and a longer prefix wins",
        Harm(("dns",)),
    ),
    _router(
        "leaf1",
        "wrong-next-hop",
        reworded("", "ip route 203.0.113.96/27 10.0.6.2", "ip route 203.0.113.96/27 10.0.5.2"),
        "fw1 sends what is for the office back to leaf1, and it never arrives",
        Harm(("backup", "partner")),
    ),
    _router(
        "leaf1",
        "deleted-static",
        deleted("", "ip route 203.0.113.0/27 10.0.5.2"),
        "nobody else tells OSPF, and so BGP, where the shop is",
        Harm(SHOP_FROM_OUTSIDE),
    ),
    _router(
        "leaf1",
        "redistribute-static-gone",
        deleted(OSPF, "redistribute static"),
        "b1 has no route to announce and none to forward by",
        Harm((*SHOP_FROM_OUTSIDE, "partner")),
    ),
    _router(
        "b1",
        "redistribute-bgp-gone",
        deleted(OSPF, "redistribute bgp"),
        "nobody behind b1 has a route to customers and partners, nor a default",
        Harm((*SHOP_FROM_OUTSIDE, "partner")),
    ),
    _router(
        "b1",
        "wrong-cost",
        reworded("interface ens4", "ip ospf cost 10", "ip ospf cost 1000"),
        "the way to the shop now leads by core2, which has a null route for it",
        Harm(SHOP_FROM_OUTSIDE, latent=(HIDDEN,)),
    ),
    _router(
        "leaf1",
        "lost-neighbour-area",
        reworded("interface ens3", "ip ospf area 0", "ip ospf area 1"),
        "core1 refuses hellos of another area, and what is left leads by core2, which has a null route for the shop",
        Harm(SHOP_FROM_OUTSIDE, latent=(HIDDEN,)),
    ),
    _router(
        "core1",
        "lost-neighbour-hello",
        reworded("interface ens4", "ip ospf hello-interval 1", "ip ospf hello-interval 2"),
        "neighbours with another hello interval are refused (RFC 2328 10.5), and core2 has a null route for the shop",
        Harm(SHOP_FROM_OUTSIDE, latent=(HIDDEN,)),
    ),
    _router(
        "b1",
        "bgp-wrong-neighbour",
        reworded(BGP, "neighbor 100.64.0.1 remote-as 65010", "neighbor 100.64.0.1 remote-as 65011"),
        "the upstream's AS is 65010, so the session ends and with it every route to and from outside",
        Harm((*SHOP_FROM_OUTSIDE, "partner")),
    ),
    _router(
        "b1",
        "bgp-prefix-list-denies",
        reworded("", "partners seq 5 permit", "partners seq 5 deny"),
        "the partners' prefix is in no other list that from-upstream asks",
        Harm(("partner",)),
    ),
    _router(
        "b1",
        "bgp-announcement-gone",
        deleted("", "ours seq 5 permit"),
        "the shop's prefix is in no other entry of the list, so outside has no route to it",
        Harm(SHOP_FROM_OUTSIDE),
    ),
    _router(
        "b1",
        "bgp-route-map-denies",
        reworded(
            "route-map from-upstream permit 20", "route-map from-upstream permit 20", "route-map from-upstream deny 20"
        ),
        "it is the entry that takes the customers' prefix",
        Harm(SHOP_FROM_OUTSIDE),
    ),
)

EQUIVALENT = (
    _router("core1", "remark", remarked("interface ens3", "interface ens3", "! towards the border"), "a comment"),
    _router(
        "b1",
        "null-route-unused",
        inserted("interface ens4", "interface ens4", "ip route 203.0.113.128/25 Null0"),
        "nobody has an address in it, and it is not announced",
    ),
    _router(
        "leaf1",
        "longer-prefixes",
        split(
            "",
            "ip route 203.0.113.64/27 10.0.5.2",
            "ip route 203.0.113.64/27 10.0.5.2",
            "ip route 203.0.113.64/28 10.0.5.2",
            "ip route 203.0.113.80/28 10.0.5.2",
        ),
        "the two halves have the next hop of the whole",
    ),
    _router(
        "core1",
        "static-as-ospf",
        inserted("interface ens3", "interface ens3", "ip route 203.0.113.96/27 10.0.3.2"),
        "OSPF's own route has the same next hop",
    ),
    _router(
        "b1",
        "cost-still-lowest",
        reworded("interface ens4", "ip ospf cost 10", "ip ospf cost 12"),
        "by core1 it is 22, by core2 100",
    ),
    _router(
        "b1",
        "prefix-list-renumbered",
        reworded("", "partners seq 5 permit", "partners seq 7 permit"),
        "the only entry of its list",
    ),
    _router(
        "b1",
        "prefix-list-longer",
        appended("", "partners seq 5 permit", "ip prefix-list partners seq 10 permit 192.0.3.0/24"),
        "nobody announces that prefix",
    ),
    _router(
        "b1", "renamed-route-map", renamed("from-upstream", "upstream-in"), "the map and its only use have the new name"
    ),
    _router(
        "b1",
        "description",
        reworded(BGP, "description upstream", "description the upstream provider"),
        "a text for people",
    ),
)
