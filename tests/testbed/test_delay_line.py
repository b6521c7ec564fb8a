"""The delay line on the real kernel: what passes it, how it changes under traffic, and that it leaves no trace."""

from __future__ import annotations

import os
import socket
import statistics
import struct
import threading
import time
from ipaddress import ip_interface
from itertools import pairwise
from pathlib import Path

import pytest

from replay.tap import Tap, Taps
from testbed.errors import NotOurs, NotReady, Unsupported
from testbed.network.addressing import set_addresses
from testbed.network.delay_line.sink import SINK_PREFIX
from testbed.network.impairment import Engine, Impairer, has_netem
from testbed.network.kernel_state import ports
from testbed.network.link import Port, Veth, set_mtu
from testbed.network.mininet_api import ShadowNet
from testbed.network.probe import probe
from testbed.network.qdisc import impair
from testbed.sandbox import Sandbox
from tests.calibration.links import FOUR, MBIT, MS, SIX, on_wire, traces
from tests.calibration.probes import streaming
from tests.testbed.labs import connected, listener, soon
from topologies.model import Impairment, Interface

ALL = {
    "delay_ns": 5 * MS,
    "pdv_ns": MS,
    "loss_ratio": 0.01,
    "duplicate_ratio": 0.01,
    "reorder_ratio": 0.01,
    "corrupt_ratio": 0.01,
    "rate_bps": 50 * MBIT,
    "queue_octets": 100_000,
}


def on_line(job, **more):
    return on_wire(job, Engine.DELAY_LINE, **more)


def test_every_setting_changes_in_place_under_a_flow_that_delivers_every_octet():
    def job(wire):
        before = traces(wire.h1)
        steps = [
            {"delay_ns": 2 * MS},
            {"delay_ns": 20 * MS, "loss_ratio": 0.02},
            ALL,
            {"rate_bps": 80 * MBIT},
            {"rate_bps": 80 * MBIT, "delay_ns": MS},
            {"duplicate_ratio": 0.1, "delay_ns": MS},
            {},
            {"delay_ns": MS, "reorder_ratio": 0.2},
            {"corrupt_ratio": 0.01},
            {},
        ]
        index = Port(wire.h1, "eth0").index
        with streaming(wire.h1, wire.h2, FOUR, 0) as found:
            for step in steps:
                wire.forth(**step)
                time.sleep(0.15)
        return found, before, traces(wire.h1), index == Port(wire.h1, "eth0").index

    (sent, got), before, after, same = on_line(job)
    assert sent == got
    assert before == after
    assert same


def test_removal_loses_nothing_that_is_on_the_way_and_keeps_its_order():
    def job(wire):
        probe(wire.h1, wire.h2, FOUR, 3)
        wire.forth(delay_ns=200 * MS)

        def soon_away():
            time.sleep(0.3)
            wire.forth()

        away = threading.Thread(target=soon_away)
        away.start()
        found = probe(wire.h1, wire.h2, FOUR, 400, gap_s=0.001, linger_s=0.4)
        away.join()
        return found.numbers, traces(wire.h1)

    numbers, left = on_line(job)
    assert sorted(numbers) == list(range(400))
    # those that pass while the filter goes may overtake those just before it
    assert sum(a > b for a, b in pairwise(numbers)) <= 2
    assert SINK_PREFIX not in left
    assert "clsact" not in left


def test_leaving_the_block_takes_everything_away():
    def job(wire):
        before = traces(wire.h1), traces(wire.h2)
        with Impairer(Engine.DELAY_LINE) as other:
            other.apply(Port(wire.h1, "eth0"), Impairment(**ALL))
            other.apply(Port(wire.h2, "eth0"), Impairment(rate_bps=MBIT))
            during = traces(wire.h1)
        return before, during, (traces(wire.h1), traces(wire.h2))

    before, during, after = on_line(job)
    assert SINK_PREFIX in during
    assert before == after


def test_a_filter_that_is_not_ours_stays_and_clsact_with_it():
    def job(wire):
        own = ["protocol", "ip", "prio", "5", "u32", "match", "ip", "tos", "0x77", "0xff", "flowid", "1:1"]
        wire.h1.run(["tc", "qdisc", "add", "dev", "eth0", "clsact"])
        wire.h1.run(["tc", "filter", "add", "dev", "eth0", "egress", *own])
        before = traces(wire.h1)
        wire.forth(delay_ns=MS)
        wire.forth()
        return before, traces(wire.h1)

    before, after = on_line(job)
    assert "pref 5" in before
    assert before == after


def test_a_filter_of_ours_that_someone_else_took_is_told():
    def job(wire):
        wire.forth(delay_ns=MS)
        wire.h1.run(["tc", "filter", "del", "dev", "eth0", "egress"])
        with pytest.raises(NotOurs, match="h1:eth0"):
            wire.forth()

    on_line(job)


def frames_between(wire, frames, settings):
    """What h2 sees of raw frames that h1 sends."""

    def ear():
        line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        line.setsockopt(263, 8, 1)  # PACKET_AUXDATA, for the tag that the kernel takes off
        line.bind(("eth0", 0x0003))
        line.settimeout(0.5)
        return line

    def mouth():
        line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        line.bind(("eth0", 0))
        return line

    wire.forth(**settings)
    seen = []
    with wire.h2.inside(ear) as hears, wire.h1.inside(mouth) as says:
        for frame in frames:
            says.send(frame)
        try:
            while True:
                octets, extras, _, address = hears.recvmsg(65_536, 128)
                tag = struct.unpack("IIIHHHH", extras[0][2])
                if address[2] != socket.PACKET_OUTGOING:
                    seen.append((octets, tag[5], tag[6]) if tag[0] & 16 else (octets, 0, 0))
        except TimeoutError:
            return seen


@pytest.mark.parametrize("settings", [{"delay_ns": MS}, {"delay_ns": MS, "loss_ratio": 1e-9}], ids=["super", "single"])
def test_any_ethertype_and_vlan_tags_pass_unchanged(settings):
    head = b"\xff" * 6 + b"\x02\0\0\0\0\x01"
    body = bytes(range(100))
    plain = head + b"\x88\xb5" + body
    tagged = head + b"\x81\0\x01\x02" + b"\x88\xb5" + body
    twice = head + b"\x88\xa8\x03\x04" + b"\x81\0\x01\x02" + b"\x88\xb5" + body

    def job(wire):
        return frames_between(wire, [plain, tagged, twice], settings)

    seen = [entry for entry in on_line(job) if body in entry[0]]
    assert seen == [(plain, 0, 0), (plain, 0x0102, 0x8100), (head + tagged[12:], 0x0304, 0x88A8)]


@pytest.mark.parametrize("address", [FOUR, SIX])
@pytest.mark.parametrize("mtu", [1500, 9000])
@pytest.mark.parametrize("settings", [{"delay_ns": 2 * MS}, {"delay_ns": 2 * MS, "loss_ratio": 1e-9}])
def test_super_frames_arrive_whole_or_segment_by_segment(address, mtu, settings):
    def job(wire):
        wire.forth(**settings)
        octets = 3_000_000
        with streaming(wire.h1, wire.h2, address, octets) as found:
            pass
        return found, wire.impairer.reports()["h1", "eth0"].frames

    (sent, got), frames = on_line(job, mtu=mtu)
    assert sent == got
    segments = 3_000_000 / (mtu - 52)
    assert frames < segments if len(settings) == 1 else frames >= 0.9 * segments


def test_an_mtu_that_grows_later_is_honoured():
    def job(wire):
        wire.forth(delay_ns=MS, loss_ratio=1e-9)
        for end in (wire.h1, wire.h2):
            set_mtu(Port(end, "eth0"), 9000)
        probe(wire.h1, wire.h2, FOUR, 3)
        return probe(wire.h1, wire.h2, FOUR, 20, gap_s=0.001, octets=8_000).numbers

    assert on_line(job) == list(range(20))


def test_the_tap_of_replay_sees_a_frame_once_and_before_its_delay(tmp_path):
    path = Path("/run/testbed/tap.pcap")

    def job(wire):
        wire.forth(delay_ns=30 * MS)
        probe(wire.h1, wire.h2, FOUR, 3)
        with Taps([Tap("h1", wire.h1.net_fd)]) as taps:
            taps.start_window()
            found = probe(wire.h1, wire.h2, FOUR, 20, gap_s=0.002, octets=333)
            tapped = taps.end_window({"h1": path})
        data, at, stamps = path.read_bytes(), 24, []
        while at < len(data):
            seconds, ns, kept, whole = struct.unpack_from("<IIII", data, at)
            if whole == 333 + 42:
                stamps.append(seconds * 1_000_000_000 + ns)
            at += 16 + kept
        return tapped.dropped, stamps, sorted(found.departed_ns.values())

    dropped, stamps, departed = on_line(job)
    assert dropped == 0
    assert len(stamps) == 20
    assert statistics.median(s - d for s, d in zip(stamps, departed, strict=True)) < MS


def test_a_node_lists_only_its_own_ports_while_the_line_runs():
    def job(wire):
        wire.forth(delay_ns=MS)
        return [port.name for port in ports(wire.h1)]

    assert on_line(job) == ["eth0"]


def test_what_the_line_did_is_told_and_its_own_error_beside_it():
    def job(wire):
        probe(wire.h1, wire.h2, FOUR, 3)
        wire.forth(delay_ns=5 * MS, loss_ratio=0.2)
        probe(wire.h1, wire.h2, FOUR, 300, gap_s=0.001)
        return wire.impairer.engine, wire.impairer.reports(), wire.impairer.reports()

    engine, told, again = on_line(job)
    report = told["h1", "eth0"]
    assert (engine, report.engine) == ("delay line", "delay line")
    assert report.frames >= 300
    assert 30 <= report.lost <= 90
    assert (report.overflowed, report.refused) == (0, 0)
    assert 0 < report.excess_p50_ns <= report.excess_p99_ns <= report.excess_max_ns + 1_000
    assert again["h1", "eth0"].frames < 5


def test_the_line_dies_with_its_owner():
    def job(wire):
        reader, writer = os.pipe()
        owner = os.fork()
        if owner == 0:
            impairer = Impairer(Engine.DELAY_LINE)
            impairer.apply(Port(wire.h1, "eth0"), Impairment(delay_ns=MS))
            os.write(writer, str(impairer.line_pid).encode())
            time.sleep(30)
            os._exit(0)
        line = int(os.read(reader, 20))
        lived = Path(f"/proc/{line}").exists()
        os.kill(owner, 9)
        os.waitpid(owner, 0)
        return lived, soon(lambda: _is_dead(line), 2)

    assert on_line(job) == (True, True)


def test_a_line_that_ended_is_told():
    def job(wire):
        wire.forth(delay_ns=MS)
        os.kill(wire.impairer.line_pid, 9)
        with pytest.raises(NotReady, match="delay line"):
            wire.impairer.reports()
        wire.impairer.abandon()

    on_line(job)


def _is_dead(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_link_that_is_down_takes_what_was_on_the_way():
    def job(wire):
        probe(wire.h1, wire.h2, FOUR, 3)
        wire.forth(delay_ns=600 * MS)
        wire.impairer.reports()
        wire.h1.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (FOUR, 9)))
        wire.h2.run(["ip", "link", "set", "eth0", "down"])
        time.sleep(0.7)
        refused = wire.impairer.reports()["h1", "eth0"].refused
        wire.h2.run(["ip", "link", "set", "eth0", "up"])
        wire.forth(delay_ns=MS)
        return refused, len(probe(wire.h1, wire.h2, FOUR, 10, gap_s=0.002).numbers)

    refused, after = on_line(job)
    assert refused >= 1
    assert after == 10


def test_a_bare_rate_needs_no_line():
    def job(wire):
        wire.forth(rate_bps=MBIT)
        return wire.impairer.line_pid, wire.impairer.reports(), traces(wire.h1)

    pid, told, left = on_line(job)
    assert pid == 0
    assert told == {}
    assert "tbf" in left
    assert SINK_PREFIX not in left


def test_what_an_engine_cannot_do_is_refused():
    def job(wire):
        with pytest.raises(Unsupported, match="reordering without a delay"):
            wire.forth(reorder_ratio=0.1)
        with pytest.raises(Unsupported, match="34 Gbit/s"):
            wire.forth(rate_bps=1, delay_ns=MS)
        if not has_netem():
            with pytest.raises(Unsupported, match="no netem"):
                Impairer(Engine.NETEM)
            with pytest.raises(Unsupported, match="netem"):
                impair(Port(wire.h1, "eth0"), Impairment(delay_ns=MS))
        return traces(wire.h1)

    assert SINK_PREFIX not in on_line(job)


def test_a_flow_reaches_a_listener_through_a_line_both_ways():
    def job(wire):
        wire.forth(delay_ns=10 * MS)
        wire.back(delay_ns=10 * MS)
        with listener(wire.h2, SIX, 80):
            began = time.monotonic()
            connected(wire.h1, SIX, 80).close()
            return time.monotonic() - began

    # the neighbour is asked for first: two round trips
    assert 0.02 <= on_line(job) < 0.2


def test_a_port_of_a_bridge_is_impaired_like_any_other():
    def made():
        net = ShadowNet()
        try:
            h1, switch, h2 = (net.add(name, {}).namespace for name in ("h1", "switch", "h2"))
            net.connect([Veth(Port(h1, "eth0"), Port(switch, "p1")), Veth(Port(switch, "p2"), Port(h2, "eth0"))])
            switch.run(["ip", "link", "add", "br0", "type", "bridge"])
            for name in ("p1", "p2"):
                switch.run(["ip", "link", "set", name, "master", "br0"])
            switch.run(["ip", "link", "set", "br0", "up"])
            for number, end in enumerate((h1, h2), start=1):
                set_addresses(end, [Interface("eth0", (ip_interface(f"10.0.0.{number}/24"),))])
            with Impairer(Engine.DELAY_LINE) as impairer:
                impairer.apply(Port(switch, "p2"), Impairment(delay_ns=8 * MS))
                probe(h1, h2, FOUR, 3)
                delays = probe(h1, h2, FOUR, 20, gap_s=0.002).delays_ns
                with streaming(h1, h2, FOUR, 2_000_000) as found:
                    pass
                return delays, found
        finally:
            net.close()

    delays, (sent, got) = Sandbox("bridge").call(made)
    assert len(delays) == 20
    assert min(delays) >= 8 * MS
    assert sent == got
