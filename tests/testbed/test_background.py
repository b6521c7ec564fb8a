"""Background load on real links: reached and told, not reached and told, ended by id; and how it is written."""

from __future__ import annotations

import shutil
from ipaddress import ip_interface

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.background import Background, Load, _carried, load_of, read_report
from testbed.errors import NotReady, Unsupported
from testbed.network.addressing import set_addresses
from testbed.network.link import Port, Veth
from testbed.network.mininet_api import ShadowNet
from testbed.network.qdisc import impair
from testbed.sandbox import Sandbox
from topologies.model import Impairment, Interface

MBIT = 1_000_000
installed = pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed")


def on_a_link(job, rate_bps: int | None = None):
    """The value of `job` on two nodes, the first of which sends at a rate."""

    def made():
        net = ShadowNet()
        try:
            ends = [net.add(name, {}).namespace for name in ("h1", "web1")]
            net.connect([Veth(Port(ends[0], "eth0"), Port(ends[1], "eth0"))])
            for number, end in enumerate(ends, start=1):
                set_addresses(end, [Interface("eth0", (ip_interface(f"10.0.0.{number}/24"),))])
            if rate_bps is not None:
                impair(Port(ends[0], "eth0"), Impairment(rate_bps=rate_bps))
            return job(*ends)
        finally:
            net.close()

    return Sandbox("background").call(made)


def programs(space) -> str:
    """Whoever still listens or talks there."""
    return space.run(["ss", "-H", "-t", "-a", "-n"])


@installed
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_load_that_the_path_carries_is_reached_and_leaves_nothing(protocol):
    def job(h1, web1):
        background = Background(Load(20 * MBIT, "h1", "web1", protocol, parallel=2), h1, web1, "10.0.0.2")
        return background.calibrate(1.0), programs(web1)

    carried, left = on_a_link(job)
    assert carried.reached, carried
    assert carried.arrived_bps == pytest.approx(20 * MBIT, rel=0.1)
    assert carried.interface_bps > 0.9 * carried.arrived_bps
    assert carried.error == ""
    assert "LISTEN" not in left


@installed
def test_a_load_beyond_the_path_is_told_with_what_arrived_and_what_was_lost():
    def job(h1, web1):
        return Background(Load(20 * MBIT, "h1", "web1", "udp"), h1, web1, "10.0.0.2").calibrate(1.0)

    carried = on_a_link(job, 5 * MBIT)
    assert not carried.reached
    assert carried.sent_bps == pytest.approx(20 * MBIT, rel=0.1)
    assert carried.arrived_bps < 6 * MBIT
    assert carried.loss_ratio > 0.5
    assert "of 20 Mbit/s arrived" in carried.told()
    assert carried.record()["reached"] is False


@installed
def test_a_network_that_lets_nothing_pass_is_an_error_that_says_what_to_do():
    def job(h1, web1):
        web1.run(["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "5201", "-j", "REJECT"])
        with pytest.raises(Unsupported) as refused:
            Background(Load(MBIT, "h1", "web1"), h1, web1, "10.0.0.2").calibrate(0.3)
        return str(refused.value), programs(web1)

    said, left = on_a_link(job)
    assert "no background load of 1 Mbit/s of tcp from h1 to web1" in said
    assert "h1>web1@PORT:RATE" in said
    assert "LISTEN" not in left


@installed
def test_a_taken_port_is_told():
    def job(h1, web1):
        with Background(Load(MBIT, "h1", "web1"), h1, web1, "10.0.0.2"), pytest.raises(NotReady) as refused:
            Background(Load(MBIT, "h1", "web1"), h1, web1, "10.0.0.2").start()
        return str(refused.value)

    assert "iperf3 on web1 to listen on port 5201" in on_a_link(job)


@pytest.mark.parametrize(
    ("written", "load"),
    [
        ("20M", Load(20 * MBIT)),
        ("h1>web1:20M", Load(20 * MBIT, "h1", "web1")),
        ("h1>web1:1.5G/udp", Load(1_500 * MBIT, "h1", "web1", "udp")),
        ("h1>web1@8443:100Mbit/tcp/4", Load(100 * MBIT, "h1", "web1", "tcp", 4, 8443)),
        ("h1 > web1:64kbit", Load(64_000, "h1", "web1")),
    ],
)
def test_a_load_is_written_as_nodes_and_a_rate(written, load):
    assert load_of(written) == load


@pytest.mark.parametrize(
    "written", ["", "h1", "h1>web1", "h1>web1:", "20", "h1>web1:20M/sctp", "h1>web1@0:1M", "1M/tcp/0"]
)
def test_what_is_no_load_is_refused_with_the_form(written):
    with pytest.raises(ValueError, match="such as"):
        load_of(written)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_load_or_a_value_error(written):
    try:
        load = load_of(written)
    except ValueError:
        return
    assert load.rate_bps >= 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(
                [
                    "end",
                    "sum",
                    "sum_sent",
                    "sum_received",
                    "seconds",
                    "bytes",
                    "packets",
                    "lost_packets",
                    "retransmits",
                    "error",
                ]
            ),
            inner,
        ),
        max_leaves=12,
    ),
    st.binary(max_size=60),
)
@settings(max_examples=100, deadline=None)
def test_reports_of_any_shape_are_read(shape, octets):
    report = shape if isinstance(shape, dict) else read_report(octets)
    carried = _carried(Load(MBIT, "a", "b", "udp"), report, report, 0.0)
    assert carried.asked_bps == MBIT
