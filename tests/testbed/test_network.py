"""Namespaces, links, addresses and rates on the real kernel, each setting read back and the rate measured."""

from __future__ import annotations

import json
import time
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mininet.net import Mininet

from testbed.errors import Unsupported
from testbed.network.addressing import add_routes, put_back_addresses, set_addresses, set_sysctls
from testbed.network.kernel_state import ports, protocol_statistics, queue_drops, routes
from testbed.network.link import NAME_OCTETS, Port, Veth, kernel_name, mtu_of, set_mtu
from testbed.network.mininet_api import ShadowNet
from testbed.network.qdisc import impair
from testbed.sandbox import Sandbox
from tests.testbed.labs import connected, datagrams, flood, goodput_bps, listener, node, soon
from topologies.model import Impairment, Interface

MBIT = 1_000_000
LONG = "GigabitEthernet0/0/0/1"


def inside(job):
    """The value of `job` on an empty network in a sandbox."""

    def made():
        net = ShadowNet()
        try:
            return job(net)
        finally:
            net.close()

    return Sandbox("net").call(made)


def cable(net: ShadowNet, a: tuple[str, str], b: tuple[str, str], mtu: int = 1500):
    net.connect([Veth(*(Port(net.get(node).namespace, name) for node, name in (a, b)), mtu)])


def pair(net: ShadowNet, names=("eth0", "eth0"), mtu=1500):
    """Two nodes with a cable and addresses of both families; their namespaces."""
    ends = [net.add(name, {}).namespace for name in ("h1", "h2")]
    cable(net, ("h1", names[0]), ("h2", names[1]), mtu)
    for number, (space, name) in enumerate(zip(ends, names, strict=True), start=1):
        own = (ip_interface(f"10.0.0.{number}/24"), ip_interface(f"2001:db8::{number}/64"))
        set_addresses(space, [Interface(name, own)])
    return ends


def add(space, ways):
    add_routes(space, node("any", {}, routes=ways).routes)


def test_two_nodes_talk_at_once_in_both_families():
    def job(net):
        h1, h2 = pair(net)
        for address in ("10.0.0.2", "2001:db8::2"):
            with listener(h2, address, 80), connected(h1, address, 80, seconds=0.5):
                pass
        return h2.run(["ip", "-6", "addr"])

    addresses = inside(job)
    assert "2001:db8::2/64" in addresses
    assert "tentative" not in addresses


def test_names_of_any_length_are_kept_at_the_node_and_mapped_in_the_kernel():
    def job(net):
        h1, _h2 = pair(net, (LONG, "ge-0/0/1"))
        add(h1, {"192.0.2.0/24": "10.0.0.2"})
        impair(Port(h1, LONG), Impairment(rate_bps=MBIT))
        return h1.run(["ip", "-o", "link"]), [p.name for p in ports(h1)], routes(h1), queue_drops(h1)

    shown, seen, ways, drops = inside(job)
    assert kernel_name(LONG) in shown
    assert seen == [LONG]
    assert ways["192.0.2.0/24"] == f"10.0.0.2@{LONG}"
    assert list(drops) == [LONG]


@given(st.text(max_size=40))
def test_a_kernel_name_is_short_stable_and_plain(name):
    made = kernel_name(name)
    assert 0 < len(made.encode()) <= NAME_OCTETS
    assert not set(made) & set("/:%")
    assert not any(c.isspace() for c in made)
    assert kernel_name(name) == made


def test_awkward_names_are_taken_by_this_kernel():
    names = ["é" * 20, "a b", "..", "eth0:1", "vlan%d", "à", "x" * 16, "-", "\N{NO-BREAK SPACE}"]

    def job(net):
        for name in ("h1", "h2"):
            net.add(name, {})
        for number, name in enumerate(names):
            cable(net, ("h1", name), ("h2", f"p{number}"))
        return sorted(p.name for p in ports(net.get("h1").namespace))

    assert inside(job) == sorted(names)
    assert len({kernel_name(name) for name in names}) == len(names)


def test_the_mtu_changes_live_and_is_what_the_kernel_says():
    def job(net):
        h1, h2 = pair(net, mtu=1400)
        seen = [mtu_of(Port(h1, "eth0")), mtu_of(Port(h2, "eth0"))]
        set_mtu(Port(h1, "eth0"), 9000)
        with pytest.raises(Unsupported, match="refused MTU 10"):
            set_mtu(Port(h1, "eth0"), 10)
        return [*seen, ports(h1)[0].mtu_octets]

    assert inside(job) == [1400, 1400, 9000]


def test_addresses_that_a_small_mtu_took_are_put_back():
    own = Interface("eth0", (ip_interface("10.0.0.1/24"), ip_interface("2001:db8::1/64")))

    def job(net):
        h1, _h2 = pair(net)
        seen = [h1.run(["ip", "-br", "addr", "show", "scope", "global"])]
        set_mtu(Port(h1, "eth0"), 1000)
        seen.append(h1.run(["ip", "-br", "addr", "show", "scope", "global"]))
        set_mtu(Port(h1, "eth0"), 1500)
        put_back_addresses(h1, own)
        put_back_addresses(h1, own)
        return [*seen, h1.run(["ip", "-br", "addr", "show", "scope", "global"])]

    before, without, after = inside(job)
    assert "2001:db8::1" in before
    assert "2001:db8::1" not in without
    assert after == before


def test_a_rate_holds_and_changes_in_place_under_traffic():
    def tell(space):
        shown = json.loads(space.run(["tc", "-s", "-j", "qdisc", "show", "dev", "eth0"]))
        return next(q for q in shown if q["kind"] == "tbf")

    def job(net):
        h1, h2 = pair(net)
        port = Port(h1, "eth0")
        impair(port, Impairment(rate_bps=10 * MBIT))
        server = listener(h2, "10.0.0.2", 9000)
        sender = connected(h1, "10.0.0.2", 9000)
        receiver, _ = server.accept()
        with flood(sender):
            goodput_bps(receiver, 0.3)
            slow, before = goodput_bps(receiver, 0.8), tell(h1)
            impair(port, Impairment(rate_bps=40 * MBIT))
            at_once = tell(h1)
            goodput_bps(receiver, 0.3)
            fast, after = goodput_bps(receiver, 0.8), tell(h1)
            impair(port, Impairment())
            free = goodput_bps(receiver, 0.3)
        return slow, fast, free, before, at_once, after, h1.run(["tc", "qdisc"])

    slow, fast, free, before, at_once, after, left = inside(job)
    # 1,448 octets of 1,514 on the wire are the flow's
    assert slow == pytest.approx(9.56 * MBIT, rel=0.25)
    assert fast == pytest.approx(38.3 * MBIT, rel=0.25)
    assert free > 2 * fast
    assert [told["options"]["rate"] * 8 for told in (before, at_once, after)] == [10 * MBIT, 40 * MBIT, 40 * MBIT]
    assert before["handle"] == after["handle"]
    assert before["bytes"] <= at_once["bytes"] < after["bytes"]
    assert "tbf" not in left


def test_a_queue_is_as_long_as_asked_and_its_drops_are_counted():
    def job(net):
        h1, _h2 = pair(net)
        impair(Port(h1, "eth0"), Impairment(rate_bps=MBIT, queue_octets=5_000))
        datagrams(h1, "10.0.0.2", 50, 1_400)
        return queue_drops(h1)

    # the bucket lets two frames pass at once, the queue holds three
    assert 40 <= inside(job)["eth0"] <= 46


@pytest.mark.parametrize("asked", [{"delay_ns": 5_000_000}, {"loss_ratio": 0.01}, {"rate_bps": MBIT, "pdv_ns": 1_000}])
def test_what_needs_netem_is_there_or_refused_and_never_left_out(asked):
    def job(net):
        h1, _h2 = pair(net)
        try:
            impair(Port(h1, "eth0"), Impairment(**asked))
        except Unsupported as refusal:
            return str(refusal), h1.run(["tc", "qdisc", "show", "dev", "eth0"])
        return "", h1.run(["tc", "qdisc", "show", "dev", "eth0"])

    refusal, shown = inside(job)
    assert ("netem" in refusal) != ("netem" in shown)


@pytest.mark.parametrize("rate_bps", [1, 40_000 * MBIT])
def test_a_rate_that_no_bucket_can_hold_is_refused(rate_bps):
    def job(net):
        h1, _h2 = pair(net)
        impair(Port(h1, "eth0"), Impairment(rate_bps=rate_bps))

    with pytest.raises(Unsupported, match="34 Gbit/s"):
        inside(job)


def test_a_node_answers_for_whole_prefixes():
    def job(net):
        h1, h2 = pair(net)
        set_addresses(h2, [], [ip_network("198.51.100.0/24"), ip_network("2001:db8:100::/48")])
        add(h1, {"198.51.100.0/24": "10.0.0.2", "2001:db8:100::/48": "2001:db8::2"})
        answers = []
        for address in ("198.51.100.77", "2001:db8:100:5::1"):
            with listener(h2, address, 80, foreign=True), connected(h1, address, 80) as client:
                answers.append(client.getpeername()[0])
        return answers

    assert inside(job) == ["198.51.100.77", "2001:db8:100:5::1"]


def test_an_address_or_route_that_the_kernel_refuses_is_told():
    def job(net):
        h1, _h2 = pair(net)
        with pytest.raises(Unsupported, match=r"refused the route 192\.0\.2\.0/24 via 172\.16\.0\.1"):
            add(h1, {"192.0.2.0/24": "172.16.0.1"})
        with pytest.raises(Unsupported, match=r"refused the address 10\.0\.0\.1/24"):
            set_addresses(h1, [Interface("eth0", (ip_interface("10.0.0.1/24"),))])
        with pytest.raises(LookupError, match="no interface eth9"):
            set_addresses(h1, [Interface("eth9", (ip_interface("10.0.9.1/24"),))])

    inside(job)


def test_of_two_routes_to_a_prefix_the_one_in_use_is_told():
    def job(net):
        h1, _h2 = pair(net)
        h1.run(["ip", "route", "add", "192.0.2.0/24", "via", "10.0.0.2", "metric", "20"])
        h1.run(["ip", "route", "add", "192.0.2.0/24", "via", "10.0.0.3", "metric", "200"])
        h1.run(["ip", "route", "add", "198.51.100.0/24", "nexthop", "via", "10.0.0.3", "nexthop", "via", "10.0.0.2"])
        h1.run(["ip", "-6", "route", "add", "blackhole", "2001:db8:666::/48"])
        return routes(h1)

    ways = inside(job)
    assert ways["192.0.2.0/24"] == "10.0.0.2@eth0"
    assert ways["198.51.100.0/24"] == "10.0.0.2@eth0,10.0.0.3@eth0"
    assert ways["2001:db8:666::/48"] == "blackhole"
    assert ways["10.0.0.0/24"] == "direct@eth0"


def test_an_end_whose_peer_is_down_is_down():
    def job(net):
        spaces = pair(net)
        soon(lambda: all(ports(space)[0].up for space in spaces), 2)
        before = [ports(space)[0].up for space in spaces]
        spaces[1].run(["ip", "link", "set", "eth0", "down"])
        soon(lambda: not ports(spaces[0])[0].up, 2)
        return before, [ports(space)[0].up for space in spaces]

    assert inside(job) == ([True, True], [False, False])


def test_counters_count_what_was_sent():
    def job(net):
        h1, h2 = pair(net)
        datagrams(h1, "10.0.0.2", 1)
        before, refused = ports(h1)[0].counters, protocol_statistics(h2)["Icmp", "OutDestUnreachs"]
        datagrams(h1, "10.0.0.2", 3)
        after = ports(h1)[0].counters
        return after["tx_packets"] - before["tx_packets"], protocol_statistics(h2)["Icmp", "OutDestUnreachs"] - refused

    packets, refusals = inside(job)
    assert packets >= 3
    assert refusals == 3


def test_sysctls_are_read_back_and_what_was_there_before_is_told():
    ports_asked, filter_asked = "net.ipv4.ip_local_port_range", "net/ipv4/conf/eth0/rp_filter"

    def job(net):
        h1, h2 = pair(net)
        before = set_sysctls(h1, {"net.ipv4.ip_forward": "1", filter_asked: "2", ports_asked: "61001 65000"})
        return before, set_sysctls(h1, before), set_sysctls(h2, {"net.ipv4.ip_forward": "0"})

    before, during, other = inside(job)
    assert before["net.ipv4.ip_forward"] == other["net.ipv4.ip_forward"] == "0"
    assert (during["net.ipv4.ip_forward"], during[filter_asked]) == ("1", "2")
    assert during[ports_asked].split() == ["61001", "65000"]


def test_a_dot_in_the_name_of_an_interface_is_written_as_a_slash():
    names = ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter")

    def job(net):
        h1, _h2 = pair(net, ("eth0.100", "eth0"))
        return [set_sysctls(h1, {name: "2"}) for name in names]

    assert inside(job)[1] == {names[1]: "2"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vm.swappiness", "whole machine"),
        ("kernel/panic", "whole machine"),
        ("../../tmp/labs-escape", "whole machine"),
        ("net/../vm/swappiness", "whole machine"),
        ("/etc/passwd", "whole machine"),
        ("net", "whole machine"),
        ("", "whole machine"),
        ("net.ipv4.no_such_thing", "cannot be set here"),
    ],
)
def test_a_setting_that_is_not_of_the_network_of_the_node_is_refused(name, reason):
    def job(net):
        set_sysctls(net.add("h1", {}).namespace, {name: "1"})

    with pytest.raises(Unsupported, match=reason):
        inside(job)
    assert not Path("/tmp/labs-escape").exists()


def test_a_shadow_is_a_mininet():
    def job(net):
        pair(net)
        h1 = net.get("h1")
        with h1.popen("ip -br addr", stdout=-1) as process:
            told = process.stdout.read().decode()
        return isinstance(net, Mininet), "h2" in net, h1.cmd("ip addr"), h1.cmd("ip", "link", "show", "eth9"), told

    mininet, has, addresses, refusal, told = inside(job)
    assert mininet
    assert has
    assert "inet 10.0.0.1/24" in addresses
    assert "eth9" in refusal
    assert "10.0.0.1/24" in told


def test_fifty_nodes_build_quickly_and_leave_nothing():
    def job(net):
        before = len(list(Path("/proc/self/fd").iterdir()))
        started = time.monotonic()
        for number in range(50):
            net.add(f"n{number}", {})
            if number:
                cable(net, (f"n{number - 1}", "right"), (f"n{number}", "left"))
        spent = time.monotonic() - started
        middle = net.get("n25").namespace.run(["ip", "-br", "link"])
        net.close()
        return spent, middle, len(list(Path("/proc/self/fd").iterdir())) - before

    spent, middle, left = inside(job)
    assert spent < 5.0
    assert {"left", "right"} <= {word.split("@")[0] for word in middle.split()}
    assert left == 0


def test_a_cable_laid_later_does_not_take_the_number_of_what_the_kernel_made():
    def job(net):
        pair(net)
        h1 = net.get("h1").namespace
        h1.run(["ip", "link", "add", "br0", "type", "bridge"])
        net.add("h3", {})
        cable(net, ("h1", "late"), ("h3", "eth0"))
        return {p.name for p in ports(h1)}

    assert inside(job) == {"eth0", "br0", "late"}
