"""Routes, proxies and links as culprits: black holes, detours, limits, servers that vanished, packets too big."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from testbed.attribution import blamed
from testbed.attribution.haproxy import sections, serving
from testbed.change.sources import read_change
from tests.testbed.evidence_lab import HAPROXY, PUBLIC, RULES, TO_PROXY, change_of, evidence_lab
from tests.testbed.shop_scene import TO_DB, TO_WEB, counters, edited, finding, flow, rule_hits, shop, table
from topologies.load import load_lab

NAN = float("nan")
WEB = table(flow("w", 80), flow("x", 80), flow("six", 80, six=True), flow("tls", 443))
WAYS = dict.fromkeys(("w", "x", "six", "tls"), TO_WEB)
COST = "ip ospf cost"


def route(node, prefix, before, after):
    values = (1.0 if before else NAN, 1.0 if after else NAN)
    return (node, "route", prefix, "via", *values, before, after)


def proxy(name, metric, before, after, states=("", "")):
    return ("lb1", "proxy", name, metric, before, after, *states)


def blame_of(change, rows, flows=WEB, subject=("w", "x"), ways=WAYS):
    (told,) = blamed([finding(*subject)], change, shop(), rows, flows, ways)
    assert told.blame is not None
    return told.blame


def test_a_null_route_is_blamed_where_the_packets_end(tmp_path: Path):
    null = "ip route 10.2.0.0/25 Null0"
    change = edited(tmp_path, {"r1/frr.conf": [("ipv6 route ::/0", f"{null}\nipv6 route ::/0")]})
    rows = counters(
        route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.1.2@ens4"),
        route("r1", "10.2.0.0/25", "", "blackhole"),
        route("r1", "default", "10.0.0.1@ens3", "10.0.0.1@ens3"),
    )
    blame = blame_of(change, rows)
    assert (blame.node, blame.file, blame.text) == ("r1", "configs/r1/frr.conf", null)
    assert blame.line == change.after["r1", "frr.conf"].decode().splitlines().index(null) + 1
    assert "r1: 10.2.0.0/25 via 10.0.1.2@ens4 → blackhole (2 of the flows)" in blame.evidence


def test_a_null_route_for_addresses_of_others_is_not_blamed(tmp_path: Path):
    null = "ip route 10.2.0.128/25 Null0"
    change = edited(tmp_path, {"r1/frr.conf": [("ipv6 route ::/0", f"{null}\nipv6 route ::/0")]})
    rows = counters(
        route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.1.2@ens4"), route("r1", "10.2.0.128/25", "", "blackhole")
    )
    assert "no counter" in " ".join(blame_of(change, rows).evidence) or "only changed" in " ".join(
        blame_of(change, rows).evidence
    )


def detour(folder):
    """OSPF costs that send everything over the slow router, on both ends and for both families."""
    return edited(
        folder,
        {
            "r1/frr.conf": [(f"{COST} 10\n", f"{COST} 500\n"), ("ospf6 cost 10\n", "ospf6 cost 500\n")],
            "r2/frr.conf": [(f"{COST} 10\n", f"{COST} 500\n"), ("ospf6 cost 10\n", "ospf6 cost 500\n")],
        },
    )


def detour_rows():
    return counters(
        route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.2.2@ens5"),
        route("r2", "default", "10.0.1.1@ens3", "10.0.3.1@ens4"),
        route("r1", "2001:db8:1:2::/64", "fe80::1@ens4", "fe80::2@ens5"),
        route("r2", "10.3.0.0/24", "direct@ens6", "direct@ens6"),
    )


def test_a_detour_is_blamed_on_the_first_router_that_turned_and_tells_of_the_other(tmp_path: Path):
    blame = blame_of(detour(tmp_path), detour_rows())
    assert (blame.node, blame.text.strip()) == ("r1", f"{COST} 500")
    assert "interface ens4" in blame.object
    evidence = "\n".join(blame.evidence)
    assert "r1: 10.2.0.0/24 via 10.0.1.2@ens4 → 10.0.2.2@ens5" in evidence
    assert "r2: default via 10.0.1.1@ens3 → 10.0.3.1@ens4" in evidence
    assert "configs/r2/frr.conf" in evidence


def test_a_detour_of_ipv6_is_blamed_on_the_ipv6_line(tmp_path: Path):
    blame = blame_of(detour(tmp_path), detour_rows(), subject=("six",))
    assert (blame.node, blame.text.strip()) == ("r1", "ipv6 ospf6 cost 500")


def test_a_router_command_is_blamed_for_the_routes_that_it_moved(tmp_path: Path):
    yaml = """\
commands:
  - node: r1
    run: [vtysh, -c, "conf t", -c, "interface ens4", -c, "ip ospf cost 500"]
    rollback: [vtysh, -c, "conf t", -c, "interface ens4", -c, "ip ospf cost 10"]
"""
    change = edited(tmp_path, {}, yaml)
    blame = blame_of(change, counters(route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.2.2@ens5")))
    assert blame.node == "r1"
    assert blame.file is not None
    assert blame.file.endswith("change.yaml")
    assert "ip ospf cost 500" in blame.text


def test_a_lost_neighbour_points_at_the_lines_of_its_interface(tmp_path: Path):
    change = edited(
        tmp_path,
        {"r2/frr.conf": [("hello-interval 1\n", "hello-interval 10\n"), (" ip ospf cost 100\n", " ip ospf cost 90\n")]},
    )
    rows = counters(
        route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.2.2@ens5"),
        route("r2", "default", "10.0.1.1@ens3", "10.0.3.1@ens4"),
        ("r2", "neighbour", "ospfv2 ens3", "state", 1.0, 1.0, "1 of 1 neighbours full", "0 of 0 neighbours full"),
    )
    blame = blame_of(change, rows)
    assert (blame.node, blame.text.strip()) == ("r2", "ip ospf hello-interval 10")
    assert any("1 of 1 neighbours full → 0 of 0" in sentence for sentence in blame.evidence)


def test_a_proxy_limit_of_one_is_blamed_with_the_queue_as_evidence(tmp_path: Path):
    change = edited(tmp_path, {"lb1/haproxy.cfg": [(":8080 check maxconn 16", ":8080 check maxconn 1")] * 3})
    rows = counters(
        *(
            row
            for server in ("web1", "web2", "web3")
            for row in (
                proxy(f"web_http/{server}", "status", 1, 1, ("UP", "UP")),
                proxy(f"web_http/{server}", "qmax", 0, 9),
                proxy(f"web_http/{server}", "smax", 5, 1),
                proxy(f"web_http/{server}", "slim", 16, 1),
            )
        )
    )
    blame = blame_of(change, rows)
    assert (blame.node, blame.object) == ("lb1", "backend web_http server web1")
    assert blame.text.strip() == "server web1 10.2.0.11:8080 check maxconn 1"
    evidence = "\n".join(blame.evidence)
    assert "longest queue of web_http/web1 0 → 9 flows" in evidence
    assert "reached its limit of 1 flows at once (before: 5 of 16)" in evidence


def drop_two(folder):
    gone = [(f"    server web{n} 10.2.0.1{n}:8080 check maxconn 16\n", "") for n in (2, 3)]
    return edited(folder, {"lb1/haproxy.cfg": gone})


def test_a_server_that_was_removed_is_blamed_by_its_old_line(tmp_path: Path):
    change = drop_two(tmp_path)
    rows = counters(
        proxy("web_http/web1", "status", 1, 1, ("UP", "UP")),
        proxy("web_http/web1", "qmax", 0, 12),
        *(proxy(f"web_http/web{n}", "status", 1, NAN, ("UP", "")) for n in (2, 3)),
        *(proxy(f"web_http/web{n}", "stot", 31, NAN) for n in (2, 3)),
    )
    blame = blame_of(change, rows)
    old = change.before["lb1", "haproxy.cfg"].decode().splitlines()
    assert blame.line is not None
    assert old[blame.line - 1] == blame.text
    assert "server web2" in blame.text
    evidence = "\n".join(blame.evidence)
    assert "web_http/web2 is gone (it had 31 sessions a window)" in evidence
    assert "server web3" in evidence


def test_a_backend_that_does_not_serve_the_flows_is_not_blamed(tmp_path: Path):
    blame = blamed(
        [finding("tls")],
        drop_two(tmp_path),
        shop(),
        counters(proxy("web_http/web2", "status", 1, NAN, ("UP", ""))),
        WEB,
        WAYS,
    )[0].blame
    assert blame is None or "no counter" in " ".join(blame.evidence)


def too_big(folder, *, silent):
    yaml = 'links:\n  - {endpoints: ["r1:ens4", "r2:ens3"], mtu: 1400}\n'
    rules = "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p icmp -m icmp --icmp-type 3/4 -j DROP\nCOMMIT\n"
    return edited(folder, {"r2/iptables.rules": [("", rules)]} if silent else {}, yaml)


def mtu_rows():
    return counters(
        ("r1", "interface", "ens4", "mtu", 1500, 1400, "", ""),
        ("r2", "interface", "ens3", "mtu", 1500, 1400, "", ""),
        ("r2", "icmp", "ip", "FragFails", 0, 44, "", ""),
        ("r2", "icmp", "ip6", "Icmp6OutPktTooBigs", 0, 7, "", ""),
    )


def test_a_path_mtu_black_hole_is_blamed_on_the_rule_that_silences_it(tmp_path: Path):
    change = too_big(tmp_path, silent=True)
    hits = rule_hits(change, "r2", "iptables.rules", {}, {"3/4": 44}, had=False)
    blame = blame_of(change, pd.concat([mtu_rows(), hits]))
    assert (blame.node, blame.file) == ("r2", "configs/r2/iptables.rules")
    assert "--icmp-type 3/4 -j DROP" in blame.text
    evidence = "\n".join(blame.evidence)
    assert "FragFails 0 → 44" in evidence
    assert "MTU 1500 → 1400" in evidence


def test_a_silencing_rule_without_a_counter_is_blamed_on_the_errors_it_hides(tmp_path: Path):
    blame = blame_of(too_big(tmp_path, silent=True), mtu_rows())
    assert "--icmp-type 3/4 -j DROP" in blame.text
    assert "its counter was not read" in blame.evidence[0]


def test_the_packaged_path_mtu_change_is_blamed_on_the_router_that_could_not_forward():
    lab = shop()
    change = read_change(lab, lab.changes["mtu-blackhole"])
    (told,) = blamed([finding("w", "x")], change, lab, mtu_rows(), WEB, WAYS)
    assert told.blame is not None
    assert (told.blame.node, told.blame.file) == ("r2", "configs/r2/iptables.rules")


def test_a_smaller_mtu_is_blamed_by_itself_where_nothing_silences_it(tmp_path: Path):
    blame = blame_of(too_big(tmp_path, silent=False), mtu_rows())
    assert (blame.node, blame.object) == ("r1", "link r1:ens4 – r2:ens3")
    assert blame.file is not None
    assert blame.file.endswith("change.yaml")
    assert "r1 ens4: the kernel's MTU was 1,500, it is 1,400" in blame.evidence


def test_a_latent_rule_becomes_evidence_for_the_link_that_woke_it(tmp_path: Path):
    change = too_big(tmp_path, silent=False)
    latent = ("fw1", "rule", "iptables.rules:filter/INPUT/0", "packets", 2, 60, "policy DROP", "policy DROP")
    blame = blame_of(change, pd.concat([mtu_rows(), counters(latent)]))
    assert blame.object == "link r1:ens4 – r2:ens3"
    assert any("not part of the change" in s and "fw1" in s for s in blame.evidence)


def test_a_slower_link_is_blamed_with_the_drops_of_its_queue(tmp_path: Path):
    change = edited(tmp_path, {}, 'links:\n  - {endpoints: ["sw1:swp2", "lb1:ens3"], rate: 1Mbit}\n')
    blame = blame_of(change, counters(("sw1", "qdisc", "swp2", "drops", 0, 33, "", "")))
    assert blame.node == "sw1"
    assert "sw1 swp2: qdisc drops 0 → 33 a window" in blame.evidence


def test_a_link_off_the_way_is_not_blamed(tmp_path: Path):
    change = edited(tmp_path, {}, 'links:\n  - {endpoints: ["r1:ens5", "r3:ens3"], mtu: 1400}\n')
    (told,) = blamed([finding("w")], change, shop(), mtu_rows(), WEB, WAYS)
    assert told.blame is None or "path" in " ".join(told.blame.evidence)


def test_a_flow_behind_the_proxy_is_judged_by_the_ports_of_that_side(tmp_path: Path):
    rule = "-A FORWARD -p tcp -m tcp --dport 6379 -j DROP"
    rules = f"*filter\n:FORWARD ACCEPT [0:0]\n{rule}\nCOMMIT\n"
    change = edited(tmp_path, {"r2/iptables.rules": [("", rules)]})
    cart = flow("db", 6379, to="10.2.0.10")
    cart["source_address"] = "10.2.0.11"
    hits = rule_hits(change, "r2", "iptables.rules", {}, {"6379": 21}, had=False)
    blame = blame_of(change, hits, table(cart), ("db",), {"db": TO_DB})
    assert (blame.node, blame.text) == ("r2", rule)


@given(st.text(max_size=300))
def test_any_text_has_sections_without_an_error(text):
    found = sections(text + "\nfrontend a\n bind :80\n default_backend b\nbackend b\n server x 1.2.3.4:1\n")
    assert {"a", "b"} <= serving(found, [80])


def test_a_cost_that_leads_into_an_old_null_route_is_blamed_and_the_trap_is_told(tmp_path: Path):
    change = edited(tmp_path, {"r1/frr.conf": [(f"{COST} 10\n", f"{COST} 500\n")]})
    rows = counters(
        route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.2.2@ens5"),
        route("r3", "10.2.0.0/24", "10.0.3.2@ens4", "10.0.3.2@ens4"),
        route("r3", "10.2.0.0/28", "blackhole", "blackhole"),
    )
    blame = blame_of(change, rows)
    assert (blame.node, blame.text.strip()) == ("r1", f"{COST} 500")
    assert any("ends in a blackhole on r3, which was there before" in sentence for sentence in blame.evidence)


def test_a_rule_rewritten_without_effect_is_not_blamed_for_a_null_route(tmp_path: Path):
    null = "ip route 10.2.0.0/25 Null0"
    one = "-A FORWARD -d 10.2.0.10/32 -i ens3 -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT"
    both = one.replace("-m tcp --dport 80", "-m multiport --dports 80,443")
    change = edited(
        tmp_path,
        {"fw1/iptables.rules": [(one, both)], "r1/frr.conf": [("ipv6 route ::/0", f"{null}\nipv6 route ::/0")]},
    )
    hits = rule_hits(change, "fw1", "iptables.rules", {"--dport 80 -m": 118}, {"--dports 80,443 -m conntrack": 340})
    rows = counters(
        route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.1.2@ens4"), route("r1", "10.2.0.0/25", "", "blackhole")
    )
    assert blame_of(change, pd.concat([hits, rows])).text == null


def test_a_rule_that_keeps_routers_apart_is_blamed_for_the_routes_that_went(tmp_path: Path):
    silence = "-A INPUT -p ospf -j DROP"
    rules = f"*filter\n:INPUT ACCEPT [0:0]\n{silence}\nCOMMIT\n"
    change = edited(tmp_path, {"r1/iptables.rules": [("", rules)]})
    rows = counters(
        route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.2.2@ens5"),
        ("r1", "neighbour", "ospfv2 ens4", "state", 1.0, 1.0, "1 of 1 neighbours full", "0 of 0 neighbours full"),
    )
    hits = rule_hits(change, "r1", "iptables.rules", {}, {"ospf": 12}, had=False)
    blame = blame_of(change, pd.concat([rows, hits]))
    assert (blame.node, blame.text, blame.decided_by) == ("r1", silence, "counters")
    evidence = "\n".join(blame.evidence)
    assert "neighbour ospfv2 ens4: 1 of 1 neighbours full → 0 of 0 neighbours full" in evidence
    assert "configs/r1/frr.conf:" in evidence
    quiet = blamed([finding("w")], change, shop(), pd.concat([rows.iloc[:6], hits]), WEB, WAYS)[0].blame
    assert quiet is None or quiet.decided_by != "counters"


def test_a_full_connection_table_is_told_where_no_line_of_the_change_is_held_for_it(tmp_path: Path):
    change = edited(tmp_path, {"r3/sysctl.conf": [("", "net.ipv4.tcp_sack = 0\n")]})
    rows = counters(
        ("fw1", "conntrack", "table", "entries", 100, 1000, "", ""),
        ("fw1", "conntrack", "table", "limit", 1024, 1024, "", ""),
        ("fw1", "conntrack", "table", "drop", 0, 50, "", ""),
    )
    blame = blame_of(change, rows)
    assert (blame.node, blame.file, blame.in_change) == ("fw1", None, False)
    evidence = "\n".join(blame.evidence)
    assert "1,000 connections tracked of 1,024 that fit" in evidence
    assert "conntrack drop 0 → 50 a window" in evidence
    assert "this limit is not part of the change" in evidence


def test_the_way_with_the_change_has_nodes_whose_faults_lay_in_wait(tmp_path: Path):
    change = edited(tmp_path, {"r1/frr.conf": [(f"{COST} 10\n", f"{COST} 500\n")]})
    rows = counters(
        route("r1", "10.2.0.0/24", "10.0.1.2@ens4", "10.0.2.2@ens5"),
        ("r3", "qdisc", "ens4", "drops", 0, 90, "", ""),
    )
    detour_way = ("internet", "fw1", "r1", "r3", "r2", "sw1", "lb1", "sw1", "web1")
    (told,) = blamed([finding("w")], change, shop(), rows, WEB, WAYS, dict.fromkeys(WAYS, detour_way))
    assert told.blame is not None
    assert told.blame.text.strip() == f"{COST} 500"
    assert any("r3: ens4 qdisc drops 0 → 90 a window" in said for said in told.blame.evidence)


def test_a_proxy_is_looked_at_by_the_port_that_a_translation_before_it_gave(tmp_path: Path):
    evidence_lab(tmp_path)
    rules = RULES.replace("10.1.0.11:8080", "10.1.0.10:81")
    two = "frontend other\n  bind :81\n  default_backend more\nbackend more\n  server web1 10.1.0.11:8080 maxconn 9\n"
    old = HAPROXY.replace("bind :80", "bind :8088").replace("10.1.0.11:8080", "10.1.0.11:8080 maxconn 9") + two
    (tmp_path / "configs/fw1/iptables.rules").write_text(rules)
    (tmp_path / "configs/lb1/haproxy.cfg").write_text(old)
    lab = load_lab(tmp_path)
    change = change_of(lab, "fewer", {"lb1/haproxy.cfg": old.replace("maxconn 9", "maxconn 1")})
    rows = counters(*(proxy(f"{name}/web1", "qmax", 0, 9) for name in ("servers", "more")))
    rows = pd.concat([rows, counters(*(proxy(f"{n}/web1", "status", 1, 1, ("UP", "UP")) for n in ("servers", "more")))])
    flows = table(flow("a", 8088, to=PUBLIC))
    (told,) = blamed([finding("a")], change, lab, rows, flows, {"a": TO_PROXY})
    assert told.blame is not None
    assert (told.blame.object, told.blame.decided_by) == ("backend more server web1", "counters")
