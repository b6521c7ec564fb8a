"""Packet mode on real shadows: what arrives, what the network loses and what the method loses, by real devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from replay.meter import read_traffic
from replay.packet_mode import losses
from replay.packet_mode.flows import of_flows, without_session
from replay.packet_mode.frames import Frames, read_frames
from replay.packet_mode.kpis import packet_kpis
from replay.packet_mode.plan import PacketPlan, planned
from replay.packet_mode.sender import Timing
from replay.tap import Tap, Taps
from testbed.network.neighbours import cannot_solicit
from testbed.packet_mode import packet_mode, player_of
from testbed.placement import END_POINTS
from testbed.shadow import Shadow
from testbed.silence import TABLE, unanswered
from tests.replay.packet_captures import (
    ESP,
    GRE,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    capture,
    conversation,
    echo,
    esp,
    gre,
    ip4,
    ip6,
    tcp,
    udp,
)
from tests.testbed.labs import files, link, node, on_shadow, topology

CLIENT, SERVER, OTHER = "198.51.100.7", "10.1.0.11", "198.51.100.9"
CLIENT6, SERVER6 = "2001:db8:100::7", "2001:db8:1::11"
QUICK = Timing(drain_ns=120_000_000)
OPEN = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{more}COMMIT\n"


@dataclass(frozen=True)
class Met:
    """What came of a capture in one window, in a form that crosses from the sandbox."""

    flows: pd.DataFrame
    kpis: pd.DataFrame
    packets: pd.DataFrame
    reasons: dict[str, int]
    arrivals: pd.DataFrame
    spared: dict[str, int]
    end_drift_ns: int
    tables_left: str
    more: dict[str, object] = field(default_factory=dict)

    def flow(self, protocol: int) -> pd.Series:
        """The KPIs of the only flow of a protocol."""
        (flow_id,) = self.flows["flow_id"][self.flows["protocol"] == protocol]
        return self.kpis.set_index("flow_id").loc[flow_id]

    def way(self, protocol: int, direction: int) -> pd.Series:
        """The packets of that flow's direction."""
        (flow_id,) = self.flows["flow_id"][self.flows["protocol"] == protocol]
        return self.packets.set_index(["flow_id", "direction"]).loc[(flow_id, direction)]


def lab(folder: Path, rules: str = "", mtu: int = 1_500, rate_bps: int | None = None):
    text = rules if rules.startswith("*") else OPEN.format(more=rules)
    return topology(
        [
            node(
                "outside",
                {"eth0": ["192.0.2.1/24", "2001:db8:f::1/64"]},
                "edge",
                {"10.0.0.0/8": "192.0.2.2", "2001:db8:1::/64": "2001:db8:f::2"},
                ["198.51.100.0/24", "2001:db8:100::/48"],
            ),
            node(
                "fw1",
                {"ens3": ["192.0.2.2/24", "2001:db8:f::2/64"], "ens4": ["10.1.0.1/24", "2001:db8:1::1/64"]},
                "firewall",
                {"198.51.100.0/24": "192.0.2.1", "2001:db8:100::/48": "2001:db8:f::1"},
                configs=files(folder, "fw1", {"iptables.rules": text}),
            ),
            node(
                "web1",
                {"eth0": [f"{SERVER}/24", f"{SERVER6}/64"]},
                "host",
                {"0.0.0.0/0": "10.1.0.1", "::/0": "2001:db8:1::1"},
            ),
        ],
        [link("outside:eth0", "fw1:ens3", mtu, rate_bps), link("fw1:ens4", "web1:eth0", mtu)],
    )


def plan_of(shadow: Shadow, path: Path, *, all_flows: bool = False, link_layer=None) -> PacketPlan:
    def place(address: str) -> str | None:
        owner = shadow.topology.owner(address)
        return owner.name if owner and owner.kind in END_POINTS else None

    frames, _ = read_frames([path])
    assigned = (
        of_flows(frames, read_traffic([path]).flows)
        if all_flows
        else without_session(frames, link_layer=link_layer is not None)
    )
    return planned(frames, assigned, place, link_layer=link_layer)


def met(shadow: Shadow, plan: PacketPlan, folder: Path, tapped=("outside", "web1"), timing=QUICK) -> Met:
    spaces = {name: box.namespace for name, box in shadow.boxes.items()}
    with (
        Taps([Tap(name, spaces[name].net_fd) for name in tapped]) as taps,
        packet_mode(spaces, plan, timing) as mode,
    ):
        mode.arm()
        taps.start_window()
        result = mode.player.play(0, armed=True).wait(20)
        seen = taps.end_window({name: folder / f"{name}.pcap" for name in tapped})
        spared = mode.silence.spared()
    found = packet_kpis(plan, result, seen.paths, seen.drops, "run", 0, "baseline")
    arrived, _ = read_frames([seen.paths["web1"]])
    return Met(
        plan.flows,
        found.kpis,
        found.packets,
        dict(found.reasons),
        _columns(arrived),
        spared,
        result.end_drift_ns,
        spaces["web1"].run(["nft", "list", "tables"]),
        {"unplayable": plan.unplayable, "wanted": {node: what.protocols for node, what in unanswered(plan).items()}},
    )


def _columns(frames: Frames) -> pd.DataFrame:
    names = ("protocol", "hop_limit", "octets", "transport_octets", "malformed")
    return pd.DataFrame({name: np.asarray(getattr(frames, name)) for name in names})


def played(folder: Path, packets: Sequence[tuple[int, bytes]], rules: str = "", **options) -> Met:
    path = capture(folder / "flows.pcap", packets)
    lab_options = {name: options.pop(name) for name in ("mtu", "rate_bps") if name in options}
    met_options = {name: options.pop(name) for name in ("tapped", "timing") if name in options}
    in_ipv6 = any(packet[0] >> 4 == 6 for _, packet in packets)
    return on_shadow(
        lab(folder, rules, **lab_options),
        folder,
        lambda shadow: met(shadow, plan_of(shadow, path, **options), folder, **met_options),
        ready=in_ipv6,
    )


def both_ways(count: int) -> list[tuple[int, bytes]]:
    """ESP in both directions, GRE and SCTP in one, every 2 ms."""
    packets = []
    for n in range(count):
        packets += [
            (2_000 * n, ip4(CLIENT, SERVER, ESP, esp(n))),
            (2_000 * n + 500, ip4(SERVER, CLIENT, ESP, esp(1_000 + n))),
            (2_000 * n + 900, ip4(CLIENT, SERVER, GRE, gre(n))),
            (
                2_000 * n + 901,
                ip4(CLIENT, SERVER, SCTP, bytes((0, 9, 0, 10)) + bytes(4) + bytes(4) + b"\3\0\0\x10" + bytes(12)),
            ),
        ]
    return packets


def test_without_silence_the_kernel_would_answer(tmp_path):
    path = capture(tmp_path / "flows.pcap", both_ways(5))

    def job(shadow):
        spaces = {name: box.namespace for name, box in shadow.boxes.items()}
        with Taps([Tap("web1", spaces["web1"].net_fd)]) as taps, player_of(spaces, plan_of(shadow, path)) as player:
            player.arm()
            taps.start_window()
            player.play(0, armed=True).wait(20)
            seen = taps.end_window({"web1": tmp_path / "web1.pcap"})
        return _columns(read_frames([seen.paths["web1"]])[0])

    seen = on_shadow(lab(tmp_path), tmp_path, job, ready=False)
    assert (seen["protocol"] == ICMP).any(), "nothing answered: then the silence proves nothing"


def test_silence_comes_back_after_a_change_that_flushed_everything(tmp_path):
    path = capture(tmp_path / "flows.pcap", both_ways(5))

    def job(shadow):
        spaces = {name: box.namespace for name, box in shadow.boxes.items()}
        with packet_mode(spaces, plan_of(shadow, path), QUICK) as mode:
            spaces["web1"].run(["nft", "flush", "ruleset"])
            flushed = spaces["web1"].run(["nft", "list", "tables"])
            mode.arm()
            mode.player.play(0, armed=True).wait(20)
            spared = mode.silence.spared()
            spaces["outside"].run(["nft", "flush", "ruleset"])
        return flushed, spared, spaces["web1"].run(["nft", "list", "tables"])

    flushed, spared, left = on_shadow(lab(tmp_path), tmp_path, job, ready=False)
    assert TABLE not in flushed
    assert spared == {"outside": 5, "web1": 15}
    assert TABLE not in left


def test_odd_protocols_cross_a_firewall_both_ways_and_no_kernel_answers(tmp_path):
    seen = played(tmp_path, both_ways(50))
    assert sorted(seen.flows["protocol"]) == [GRE, ESP, SCTP]
    assert seen.reasons == {}
    assert seen.kpis["completed"].all()
    assert (seen.kpis["error"] == "none").all()
    assert seen.kpis["loss_ratio"].eq(0).all()
    delays = seen.packets["one_way_delay_ns"]
    assert delays.between(1, 5_000_000).all(), delays
    assert set(seen.arrivals["hop_limit"][seen.arrivals["protocol"] == GRE]) == {63}, "61 was captured behind routers"
    assert not (seen.arrivals["protocol"] == ICMP).any(), "a kernel answered with an ICMP error"
    assert seen.spared == {"outside": 50, "web1": 150}, "the kernels saw packets that no socket owns"
    assert TABLE not in seen.tables_left
    assert seen.more["wanted"]["web1"] == {GRE, ESP, SCTP}


def test_one_packet_in_ten_lost_reads_exactly_one_in_ten(tmp_path):
    rule = "-A FORWARD -s 198.51.100.7 -p esp -m statistic --mode nth --every 10 --packet 3 -j DROP\n"
    seen = played(tmp_path, both_ways(100), rule)
    there, back = seen.way(ESP, 0), seen.way(ESP, 1)
    assert (there["sent"], there["arrived"], there["lost_by_network"], there["lost_by_method"]) == (100, 90, 10, 0)
    assert (back["arrived"], back["lost_by_network"]) == (100, 0)
    assert seen.flow(ESP)["loss_ratio"] == pytest.approx(10 / 200)
    assert seen.reasons == {losses.LOST: 10}
    assert abs(seen.end_drift_ns) < 50_000_000, "bounded: other work may hold the processor"


def test_what_follows_a_lost_handshake_is_the_methods_loss_and_not_the_networks(tmp_path):
    stateful = (
        "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
        "-A FORWARD -p tcp --tcp-flags SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP\n"
        "-A FORWARD -m conntrack --ctstate NEW -p tcp -j DROP\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n"
    )
    packets = conversation(CLIENT, SERVER, (40_000, 443), [b"one", b"two", b"three"])
    seen = played(tmp_path, list(zip(range(0, 100_000, 3_000), packets, strict=False)), stateful, all_flows=True)
    assert seen.reasons[losses.LOST] == 1, "only the first packet met the network as a real flow would"
    assert sum(seen.reasons.values()) == len(packets)
    assert {reason for reason in seen.reasons if reason != losses.LOST} <= {losses.LOST_HANDSHAKE}
    assert seen.flow(TCP)["error"] == "timeout"
    assert not seen.flow(TCP)["as_expected"]


def test_a_whole_tcp_flow_passes_a_stateful_firewall_and_no_reset_comes_of_it(tmp_path):
    stateful = (
        "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
        "-A FORWARD -p tcp --dport 443 -m conntrack --ctstate NEW -j ACCEPT\n-A FORWARD -j DROP\n"
    )
    packets = conversation(CLIENT, SERVER, (40_000, 443), [b"x" * 4_000, b"two"])
    seen = played(tmp_path, list(zip(range(0, 100_000, 3_000), packets, strict=False)), stateful, all_flows=True)
    assert seen.reasons == {}
    assert seen.flow(TCP)["completed"]
    largest = seen.arrivals["octets"][seen.arrivals["protocol"] == TCP].max()
    assert largest == 1_500, "the super-frame of 4,000 octets travelled in segments"


def test_a_translated_flow_is_matched_by_what_translation_leaves_alone(tmp_path):
    nat = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n"
        "-A POSTROUTING -o ens3 -p udp -j SNAT --to-source 192.0.2.2:7000-7100\nCOMMIT\n" + OPEN.format(more="")
    )
    packets = [(1_000 * n, ip4(SERVER, OTHER, UDP, udp((5_000, 53), b"question %d" % n))) for n in range(20)]
    seen = played(tmp_path, packets, nat, all_flows=True)
    assert seen.reasons == {}
    assert seen.flow(UDP)["one_way_delay_forward_ns"] > 0


def test_the_same_over_ipv6_with_echo_that_no_kernel_doubles(tmp_path):
    packets = []
    for n in range(20):
        packets += [
            (2_000 * n, ip6(CLIENT6, SERVER6, ESP, esp(n))),
            (2_000 * n + 300, ip6(CLIENT6, SERVER6, UDP, udp((5_000, 53), b"question %d" % n))),
            (2_000 * n + 600, ip6(CLIENT6, SERVER6, ICMPV6, echo(128, n))),
            (2_000 * n + 900, ip6(SERVER6, CLIENT6, ICMPV6, echo(129, n))),
        ]
    odd = played(tmp_path, packets)
    assert (odd.reasons, odd.way(ESP, 0)["arrived"]) == ({}, 20)
    all_of_them = played(tmp_path, packets, all_flows=True)
    assert all_of_them.reasons == {}
    assert all_of_them.way(UDP, 0)["arrived"] == 20
    assert (all_of_them.way(ICMPV6, 0)["arrived"], all_of_them.way(ICMPV6, 1)["arrived"]) == (20, 20)
    assert all_of_them.way(ICMPV6, 1)["duplicates"] == 0, "the kernel answered as well"
    assert all_of_them.spared["web1"] == 40


def test_a_router_that_says_no_is_heard(tmp_path):
    rule = "-A FORWARD -p esp -j REJECT --reject-with icmp-admin-prohibited\n"
    seen = played(tmp_path, [(1_000 * n, ip4(CLIENT, SERVER, ESP, esp(n))) for n in range(5)], rule)
    assert seen.flow(ESP)["error"] == "unreachable"
    assert np.isinf(seen.flow(ESP)["one_way_delay_forward_ns"])


def test_the_first_links_queue_is_the_networks_loss(tmp_path):
    burst = [(0, ip4(CLIENT, SERVER, ESP, esp(n, 1_400))) for n in range(400)]
    seen = played(tmp_path, burst, rate_bps=5_000_000)
    there = seen.way(ESP, 0)
    assert there["lost_by_network"] > 100
    assert there["lost_by_method"] == 0
    assert set(seen.reasons) == {losses.FIRST_QUEUE}


def test_what_is_too_late_is_not_sent_and_told(tmp_path):
    crowd = [(0, ip4(CLIENT, SERVER, ESP, esp(n))) for n in range(3_000)]
    seen = played(tmp_path, crowd, timing=Timing(too_late_ns=0, drain_ns=0))
    there = seen.way(ESP, 0)
    assert there["lost_by_method"] > 0
    assert there["lost_by_network"] == 0
    assert set(seen.reasons) == {"too late to be sent"}


def test_malformed_packets_leave_as_they_were_captured(tmp_path):
    strange = ip4(CLIENT, SERVER, TCP, tcp((1, 2), 7, 0, 0x03))
    short = ip4(CLIENT, SERVER, UDP, b"\0\1\0\2")
    seen = played(tmp_path, [(0, strange), (1_000, short)])
    assert list(seen.flows["application"]) == ["malformed", "malformed"]
    # a stateless firewall hands them on; header checksums that the capture had wrong stay wrong and routers drop them
    assert seen.packets["sent"].sum() == 2


def test_frames_without_ip_leave_the_interface_that_was_named(tmp_path):
    lldp = b"\x01\x80\xc2\0\0\x0e\x02\0\0\0\0\x09\x88\xcc" + bytes(50)
    path = tmp_path / "link.pcap"
    capture(path, [(0, ip4(CLIENT, SERVER, ESP, esp(1)))])
    with path.open("ab") as file:
        head = (1_700_000_000).to_bytes(4, "little") + (5_000_000).to_bytes(4, "little")
        file.write(head + len(lldp).to_bytes(4, "little") * 2 + lldp)

    def job(shadow):
        plan = plan_of(shadow, path, link_layer=("web1", "eth0"))
        return met(shadow, plan, tmp_path, ("outside", "web1", "fw1"))

    seen = on_shadow(lab(tmp_path), tmp_path, job, ready=False)
    assert list(seen.flows["protocol"]) == [ESP, -1]
    assert seen.reasons == {}
    assert seen.kpis["completed"].all()


def test_flows_whose_source_is_no_end_point_are_named(tmp_path):
    seen = played(tmp_path, [(0, ip4("10.1.0.1", SERVER, ESP, esp(1))), (10, ip4(CLIENT, SERVER, GRE, gre(1)))])
    ((_, reason),) = seen.more["unplayable"]
    assert "10.1.0.1" in reason
    assert len(seen.kpis) == 1


def test_an_interface_that_cannot_solicit_is_told(tmp_path):
    def job(shadow):
        told = [cannot_solicit(box.namespace) for box in shadow.boxes.values()]
        space = shadow.boxes["web1"].namespace
        space.run(["ip", "-6", "address", "flush", "dev", "eth0", "scope", "link"])
        return told, cannot_solicit(space)

    assert on_shadow(lab(tmp_path), tmp_path, job) == ([None, None, None], "eth0")
