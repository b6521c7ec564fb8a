"""Every kind of evidence that blame rests on, from real kernels and daemons: changes tried on one shadow."""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest

from analysis.verdict import Blame
from testbed.attribution import blamed
from testbed.attribution.scene import Scene
from testbed.attribution.symptoms import of_node
from testbed.change.apply import apply
from testbed.change.model import Change
from testbed.counters import counter_rows
from testbed.gate.places import Layout
from testbed.gate.rollback import write_rollback
from testbed.shadow import Shadow
from testbed.store import RunDirectory
from tests.testbed.evidence_lab import (
    CLIENT,
    HAPROXY,
    OTHER_CLIENT,
    PROXY,
    PUBLIC,
    R1,
    RULES,
    SERVER,
    TO_PROXY,
    TO_WEB,
    asks,
    came_through,
    change_of,
    datagrams,
    evidence_lab,
    tried,
)
from tests.testbed.rolled_back import done, state
from tests.testbed.shop_scene import finding, table

LAST = "-A FORWARD -j ACCEPT\n"


def rules(*more: str, nat: str = "") -> str:
    text = RULES.replace(LAST, "".join(f"{rule}\n" for rule in more) + LAST)
    return text.replace("COMMIT\n", f"{nat}\nCOMMIT\n", 1) if nat else text


NEVER_MET = "-A FORWARD -p tcp -m tcp --dport 8088 -j DROP"
BEHIND_NAT = "-A FORWARD -p tcp -m tcp --dport 8080 -j DROP"
ONE_AT_A_TIME = "-A FORWARD -p tcp -m tcp --dport 80 -m connlimit --connlimit-above 0 -j REJECT --reject-with tcp-reset"
NO_ERRORS = "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p icmp -m icmp --icmp-type 3/4 -j DROP\nCOMMIT\n"
ONE_PORT = "-A POSTROUTING -o ens4 -p udp -j SNAT --to-source 10.0.0.1:6000-6000"
TALKS_NO_MORE = R1.replace(
    " neighbor 10.0.12.2 timers 1 3\n", " neighbor 10.0.12.2 timers 1 3\n neighbor 10.0.12.2 shutdown\n"
)
SMALL = 'links:\n  - {endpoints: ["r1:ens4", "r2:ens3"], mtu: 1400}\n'
SLOW = 'links:\n  - {endpoints: ["r1:ens4", "r2:ens3"], rate: 64kbit, queue: 3000}\n'


SETS = "create banned hash:ip\nadd banned 198.51.100.9\n"
GUARD = "table inet guard {\n chain forward {\n  type filter hook forward priority -5; policy drop;\n }\n}\n"
EVERYTHING = {
    "fw1/iptables.rules": rules(BEHIND_NAT) + "*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j DROP\nCOMMIT\n",
    "fw1/ip6tables.rules": "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n",
    "fw1/nftables.conf": GUARD,
    "fw1/ipset.rules": SETS,
    "fw1/sysctl.conf": "net.ipv4.ip_forward = 0\n",
    "r1/frr.conf": TALKS_NO_MORE,
    "lb1/haproxy.cfg": HAPROXY.replace("10.1.0.11:8080", "10.1.0.11:8081"),
}
COMMAND = """\
commands:
  - node: r2
    run: [ip, route, add, blackhole, 198.51.100.7/32]
    rollback: [ip, route, del, blackhole, 198.51.100.7/32]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return evidence_lab(tmp_path_factory.mktemp("evidence"))


@pytest.fixture(scope="module")
def seen(lab) -> dict[str, tuple[Change, pd.DataFrame]]:
    web, slow = asks(PROXY, 80), asks(PROXY, 80, "/slow", 2)
    cases = {
        "behind-nat": (
            change_of(lab, "behind-nat", {"fw1/iptables.rules": rules(NEVER_MET, BEHIND_NAT)}),
            asks(PUBLIC, 8088, times=2),
        ),
        "one-at-a-time": (change_of(lab, "one-at-a-time", {"fw1/iptables.rules": rules(ONE_AT_A_TIME)}), web),
        "untracked": (
            change_of(lab, "untracked", {"fw1/iptables.rules": rules(nat=ONE_PORT)}),
            datagrams(100, 3, (CLIENT, OTHER_CLIENT)),
        ),
        "no-forwarding": (
            change_of(lab, "no-forwarding", {"fw1/sysctl.conf": "net.ipv4.ip_forward = 0\n"}),
            datagrams(100, 5),
        ),
        "black-hole": (change_of(lab, "black-hole", {"r1/iptables.rules": NO_ERRORS}, SMALL), datagrams(1450, 5)),
        "slow": (change_of(lab, "slow", {}, SLOW), datagrams(1000, 30)),
        "timeout": (
            change_of(lab, "timeout", {"lb1/haproxy.cfg": HAPROXY.replace("server 5s", "server 100ms")}),
            slow,
        ),
        "shutdown": (change_of(lab, "shutdown", {"r1/frr.conf": TALKS_NO_MORE}), datagrams(100, 3)),
    }

    undone = change_of(lab, "everything", EVERYTHING, COMMAND)
    run = RunDirectory.created(lab.folder, "undone")
    folder = write_rollback(run, undone, lab.topology, Layout())

    def taken_back(shadow: Shadow) -> None:
        nodes = ("fw1", "r1", "r2", "lb1")
        told = {"before": state(shadow, nodes)}
        web = came_through(shadow, PROXY, 80)
        apply(shadow, undone)
        told["changed"] = state(shadow, nodes)
        changed = came_through(shadow, PROXY, 80)
        done(shadow, folder)
        shadow.wait_ready(60, print)
        told["after"] = state(shadow, nodes)
        told["traffic"] = {"before": web, "changed": changed, "after": came_through(shadow, PROXY, 80)}
        (lab.folder / "taken-back.json").write_text(json.dumps(told))

    def busy(shadow: Shadow) -> None:
        taken_back(shadow)
        box = shadow.boxes["lb1"]
        parts = []
        for window, role in ((1, "baseline"), (2, "treatment")):
            if role == "treatment":
                box.spawn("spinner", ["sh", "-c", "while :; do :; done"])
            before = shadow.readings()
            time.sleep(0.4)
            parts.append(counter_rows(window, role, before, shadow.readings()))
        box.discard("spinner")
        pd.concat(parts).to_parquet(lab.folder / "busy.parquet")

    counted = tried(lab, cases, busy)
    return {name: (change, counted[name]) for name, (change, _) in cases.items()}


def flows(target: str, port: int, protocol: int = 6) -> pd.DataFrame:
    row = {
        "flow_id": "f",
        "protocol": protocol,
        "source_address": CLIENT,
        "source_port": 40_000,
        "destination_address": target,
        "destination_port": port,
        "outcome": "accepted",
        "flow_class": "checkout",
    }
    return table(row)


def blame_of(lab, seen, name: str, own: pd.DataFrame, path: tuple[str, ...]) -> tuple[Blame, str]:
    change, counted = seen[name]
    (told,) = blamed([finding("f")], change, lab, counted, own, {"f": path})
    assert told.blame is not None
    return told.blame, "\n".join(told.blame.evidence)


def test_a_rule_behind_a_port_translation_is_blamed_and_one_before_it_is_not(lab, seen):
    blame, evidence = blame_of(lab, seen, "behind-nat", flows(PUBLIC, 8088), TO_WEB)
    assert (blame.node, blame.text, blame.decided_by) == ("fw1", BEHIND_NAT, "counters")
    assert "0 before; it matches 1 of the flows" in evidence


def test_a_limit_of_connections_is_blamed_by_what_it_refused(lab, seen):
    blame, evidence = blame_of(lab, seen, "one-at-a-time", flows(PROXY, 80), TO_PROXY)
    assert (blame.text, blame.decided_by) == (ONE_AT_A_TIME, "counters")
    assert "a limit on how many or how fast" in evidence


def test_connections_that_cannot_be_tracked_are_told_with_their_counter(lab, seen):
    blame, evidence = blame_of(lab, seen, "untracked", flows(SERVER, 5001, 17), TO_WEB)
    assert (blame.node, blame.text) == ("fw1", ONE_PORT)
    assert "conntrack insert_failed 0 → " in evidence or "conntrack drop 0 → " in evidence


def test_a_node_that_no_longer_forwards_is_blamed_on_its_setting(lab, seen):
    blame, evidence = blame_of(lab, seen, "no-forwarding", flows(SERVER, 5001, 17), TO_WEB)
    assert (blame.node, blame.file, blame.line) == ("fw1", "configs/fw1/sysctl.conf", 1)
    assert (blame.decided_by, "InAddrErrors 0 → 5 a window" in evidence) == ("counters", True)


def test_a_path_mtu_black_hole_is_named_as_such(lab, seen):
    blame, evidence = blame_of(lab, seen, "black-hole", flows(SERVER, 5001, 17), TO_WEB)
    assert (blame.node, blame.file) == ("r1", "configs/r1/iptables.rules")
    assert "a path MTU black hole" in evidence
    assert "FragFails 0 → 5 a window" in evidence


def test_a_slower_link_is_blamed_with_what_its_queue_dropped(lab, seen):
    blame, evidence = blame_of(lab, seen, "slow", flows(SERVER, 5001, 17), TO_WEB)
    assert (blame.object, blame.decided_by) == ("link r1:ens4 – r2:ens3", "counters")
    assert "r1 ens4: qdisc drops 0 → " in evidence


def test_a_proxy_timeout_is_blamed_with_its_termination_code_in_words(lab, seen):
    blame, evidence = blame_of(lab, seen, "timeout", flows(PROXY, 80), TO_PROXY)
    assert (blame.node, blame.text.strip(), blame.decided_by) == ("lb1", "timeout server 100ms", "counters")
    assert "servers/web1 that ended with termination code sH (the server's timeout" in evidence
    assert "hrsp_5xx of servers/" in evidence


def test_a_lost_bgp_neighbour_is_told_with_its_line_and_the_route_that_went(lab, seen):
    blame, evidence = blame_of(lab, seen, "shutdown", flows(SERVER, 5001, 17), TO_WEB)
    assert (blame.node, blame.text.strip()) == ("r1", "neighbor 10.0.12.2 shutdown")
    assert "FRR: 10.1.0.0/24 bgp [20/0] → no route" in evidence
    assert "bgp 10.0.12.2: Established → " in evidence
    assert '"neighbor 10.0.12.2 remote-as 65002"' in evidence


def test_a_daemon_that_burns_a_core_is_told(lab, seen):
    change, _ = seen["slow"]
    counted = pd.read_parquet(lab.folder / "busy.parquet")
    spent = counted[(counted["object"] == "spinner")].set_index("metric")["value"]
    # others work on this machine too
    assert 0.02 < spent["cpu_seconds"] / spent["clock_seconds"] <= 1.1
    idle = counted[(counted["kind"] == "cpu") & (counted["object"] == "haproxy")]
    assert (idle[idle["metric"] == "cpu_seconds"]["value"] < 0.2).all()
    alone = counted.assign(value=counted["value"].where(counted["object"] != "spinner", 0.9))
    scene = Scene.of(change, lab, alone, flows(PROXY, 80), {"f": TO_PROXY}, {})
    shares = [one.sentence for one in of_node(scene, "lb1") if one.kind == "cpu"]
    assert len(shares) == 1
    assert "spinner took 0% of a core before" in shares[0]


def test_the_files_of_the_way_back_give_the_original_network_and_traffic(lab, seen):
    told = json.loads((lab.folder / "taken-back.json").read_text())
    changed = {name for name, text in told["before"].items() if told["changed"][name] != text}
    assert {"fw1 iptables", "fw1 ip6tables", "fw1 nft", "fw1 ipset", "fw1 forwarding"} <= changed
    assert {"r1 frr", "r2 routes", "lb1 servers"} <= changed
    assert told["traffic"] == {"before": True, "changed": False, "after": True}
    left = {name: (text, told["after"][name]) for name, text in told["before"].items() if told["after"][name] != text}
    assert left == {}
    readme = (lab.folder / "undone" / "rollback" / "README.md").read_text()
    assert "iptables-restore undo/fw1/iptables.rules" in readme
