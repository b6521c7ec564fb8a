"""Matching at both ends on taps whose every packet is known: order, copies, likeness, translation, hostile octets."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.packet_mode import losses
from replay.packet_mode.flows import NO_FLOW, of_flows, together, without_session
from replay.packet_mode.frames import read_frames
from replay.packet_mode.kpis import packet_kpis
from replay.packet_mode.match import matched, reordered
from replay.packet_mode.plan import Hop, PacketPlan, Program, Way, planned, program
from replay.packet_mode.player import PacketResult
from replay.packet_mode.sender import SENT
from tests.replay.packet_captures import ESP, GRE, OSPF, TCP, UDP, capture, conversation, esp, gre, ip4, ip6, tcp, udp

A, B = "10.0.0.1", "10.0.0.2"
NODES = {A: "left", B: "right", "2001:db8::1": "left", "2001:db8::2": "right"}
MACS = {"left": b"\x02\0\0\0\0\x0a", "right": b"\x02\0\0\0\0\x0b"}
ROUTER = b"\x02\0\0\0\0\xff"
SENT_AT_NS = 1_800_000_000_000_000_000
DELAY_NS = 70_000


def plan_of(folder: Path, packets: list[tuple[int, bytes]]) -> PacketPlan:
    frames, _ = read_frames([capture(folder / "in.pcap", packets)])
    return planned(frames, without_session(frames), NODES.get)


def sent(plan: PacketPlan, mtu: int = 1_500) -> Program:
    return program(plan, {hop: Way(2, MACS[hop.node], ROUTER, mtu) for hop in plan.hops()})


def tap(path: Path, seen: list[tuple[int, bytes]]) -> Path:
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1))
        for at_ns, frame in sorted(seen, key=lambda one: one[0]):
            kept = frame[:128]
            file.write(struct.pack("<IIII", *divmod(at_ns, 10**9), len(kept), len(frame)) + kept)
    return path


def frames_of(made: Program) -> list[bytes]:
    return [made.octets[at : at + size] for at, size in zip(made.at.tolist(), made.length.tolist(), strict=True)]


def arriving(frame: bytes) -> bytes:
    """What a router makes of a frame: another link layer, one hop less."""
    hops = frame[22] - 1 if frame[12:14] == b"\x08\x00" else frame[21] - 1
    place = 22 if frame[12:14] == b"\x08\x00" else 21
    return b"\x02\0\0\0\0\xee" + ROUTER + frame[12:place] + bytes((hops,)) + frame[place + 1 :]


def taps(folder: Path, made: Program, arrivals: list[tuple[int, bytes]]) -> dict[str, Path]:
    """Everything was sent by the left node on time; these frames came to the right one, so long after the start."""
    frames = frames_of(made)
    left = [(SENT_AT_NS + due, frame) for due, frame in zip(made.due_ns.tolist(), frames, strict=True)]
    return {
        "left": tap(folder / "left.pcap", left),
        "right": tap(folder / "right.pcap", [(SENT_AT_NS + at, frame) for at, frame in arrivals]),
    }


def on_time(made: Program) -> list[tuple[int, bytes]]:
    return [(due + DELAY_NS, arriving(frame)) for due, frame in zip(made.due_ns.tolist(), frames_of(made), strict=True)]


def result_of(made: Program) -> PacketResult:
    return PacketResult(
        window=0,
        program=made,
        started_ns=SENT_AT_NS,
        ended_ns=SENT_AT_NS + 10**9,
        left_ns=SENT_AT_NS + made.due_ns,
        fate=np.full(len(made), SENT, np.uint8),
        cpu_ns=0,
        realtime=True,
    )


def test_delay_is_between_the_two_stamps(tmp_path):
    plan = plan_of(tmp_path, [(1_000 * n, ip4(A, B, ESP, esp(n))) for n in range(30)])
    made = sent(plan)
    passages = matched(plan, made, taps(tmp_path, made, on_time(made))).passages
    assert set(passages["arrived_ns"] - passages["sent_ns"]) == {DELAY_NS}
    assert set(passages["node"]) == {"right"}


def test_reordering_is_counted_as_its_rfc_counts_it(tmp_path):
    plan = plan_of(tmp_path, [(1_000 * n, ip4(A, B, ESP, esp(n))) for n in range(10)])
    made = sent(plan)
    arrivals = on_time(made)
    # the third comes after the sixth: one packet is reordered, not four
    arrivals[2] = (arrivals[5][0] + 10, arrivals[2][1])
    passages = matched(plan, made, taps(tmp_path, made, arrivals)).passages
    assert np.flatnonzero(reordered(passages)).tolist() == [2]


def test_copies_on_the_way_are_counted_and_are_no_arrivals_of_others(tmp_path):
    plan = plan_of(tmp_path, [(1_000 * n, ip4(A, B, ESP, esp(n))) for n in range(10)])
    made = sent(plan)
    arrivals = on_time(made)
    arrivals = [*arrivals[:7], *((at + 400, frame) for at, frame in arrivals[3:6])]
    told = packet_kpis(plan, result_of(made), taps(tmp_path, made, arrivals), {}, "r", 0, "baseline")
    row = told.packets.iloc[0]
    assert (row["arrived"], row["lost_by_network"], row["duplicates"]) == (7, 3, 3)
    assert told.kpis["loss_ratio"].tolist() == [pytest.approx(0.3)]
    assert told.reasons == {losses.LOST: 3}


def test_packets_alike_to_the_octet_are_told_apart_by_order_and_counted_exactly(tmp_path):
    plan = plan_of(tmp_path, [(1_000 * n, ip4(A, B, GRE, b"\0\0\x08\0same")) for n in range(10)])
    made = sent(plan)
    arrivals = on_time(made)
    told = packet_kpis(plan, result_of(made), taps(tmp_path, made, arrivals[:4] + arrivals[5:]), {}, "r", 0, "x")
    assert told.packets["arrived"].tolist() == [9]
    assert told.packets["lost_by_network"].tolist() == [1]


def test_translated_addresses_and_ports_do_not_hide_a_packet(tmp_path):
    packets = [(1_000 * n, ip4(A, B, UDP, udp((5_000, 53), b"q%d" % n), ident=n)) for n in range(5)]
    frames, _ = read_frames([capture(tmp_path / "in.pcap", packets)])
    known = without_session(frames).flows
    plan = planned(frames, of_flows(frames, udp_flows(known)), NODES.get)
    made = sent(plan)
    arrivals = []
    for at, frame in on_time(made):
        octets = bytearray(frame)
        octets[26:30], octets[34:36], octets[40:42] = b"\xc0\0\x02\x09", b"\x1b\x58", b"\x12\x34"
        arrivals.append((at, bytes(octets)))
    passages = matched(plan, made, taps(tmp_path, made, arrivals)).passages
    assert set(passages["arrived_ns"] - passages["sent_ns"]) == {DELAY_NS}


def udp_flows(like):
    """A flow table with the one flow of the test above."""
    row = {
        "flow_id": "f", "start_ns": 0, "end_ns": 2**62, "protocol": UDP, "source_address": A, "source_port": 5_000,
        "destination_address": B, "destination_port": 53, "outcome": "accepted",
    }  # fmt: skip
    return like.reindex([0]).assign(**row)


def test_what_the_sending_tap_dropped_is_not_the_networks_loss(tmp_path):
    plan = plan_of(tmp_path, [(1_000 * n, ip4(A, B, ESP, esp(n))) for n in range(4)])
    made = sent(plan)
    where = taps(tmp_path, made, [])
    tap(where["left"], [])
    for drops, reason in ((4, losses.TAP_DROPPED), (0, losses.FIRST_LINK)):
        told = packet_kpis(plan, result_of(made), where, {"left": drops}, "r", 0, "x")
        assert told.reasons == {reason: 4}


def test_losses_that_follow_a_reset_or_a_lost_segment_are_the_methods(tmp_path):
    packets = [(1_000 * n, packet) for n, packet in enumerate(conversation(A, B, (7, 80), [b"one", b"two"]))]
    packets.insert(8, (7_500, ip4(A, B, TCP, tcp((7, 80), 1_008, 9_001, 0x04))))
    frames, _ = read_frames([capture(tmp_path / "in.pcap", packets)])
    known = without_session(frames).flows
    flows = udp_flows(known).assign(protocol=TCP, source_port=7, destination_port=80)
    plan = planned(frames, of_flows(frames, flows), NODES.get)
    made = sent(plan)
    numbered = frames_of(made)
    lost = {3, 4, 9, 10}  # the first data, its acknowledgement, and two behind the reset
    left = [
        (SENT_AT_NS + due, f) for due, f in zip(made.due_ns.tolist(), numbered, strict=True) if f[6:12] == MACS["left"]
    ]
    right = [
        (SENT_AT_NS + due, f) for due, f in zip(made.due_ns.tolist(), numbered, strict=True) if f[6:12] == MACS["right"]
    ]
    for row, (due, frame) in enumerate(zip(made.due_ns.tolist(), numbered, strict=True)):
        if row not in lost:
            (right if frame[6:12] == MACS["left"] else left).append((SENT_AT_NS + due + DELAY_NS, arriving(frame)))
    where = {"left": tap(tmp_path / "l.pcap", left), "right": tap(tmp_path / "r.pcap", right)}
    told = packet_kpis(plan, result_of(made), where, {}, "r", 0, "x")
    assert told.reasons == {losses.LOST: 1, losses.ACKNOWLEDGES_LOST: 1, losses.AFTER_RESET: 2}


def test_an_answer_to_a_question_that_was_lost_is_the_methods_loss(tmp_path):
    plan = plan_of(tmp_path, [(0, ip4(A, B, ESP, esp(1))), (1_000, ip4(B, A, ESP, esp(2)))])
    made = sent(plan)
    numbered = frames_of(made)
    where = {
        "left": tap(tmp_path / "l.pcap", [(SENT_AT_NS, numbered[0])]),
        "right": tap(tmp_path / "r.pcap", [(SENT_AT_NS + 1_000_000, numbered[1])]),
    }
    told = packet_kpis(plan, result_of(made), where, {}, "r", 0, "x")
    assert told.reasons == {losses.LOST: 1, losses.NOT_OPENED: 1}
    assert told.kpis["error"].tolist() == ["timeout"]


def test_a_capture_cut_by_a_snaplen_is_sent_in_its_full_length(tmp_path):
    path = capture(tmp_path / "in.pcap", [(0, ip4(A, B, ESP, esp(1, 900)))], kept=60)
    frames, _ = read_frames([path])
    made = sent(planned(frames, without_session(frames), NODES.get))
    assert made.length.tolist() == [14 + 20 + 8 + 900]


def test_what_no_sender_could_divide_is_left_out_with_its_reason(tmp_path):
    packet = ip6("2001:db8::1", "2001:db8::2", ESP, esp(1, 2_000))
    made = sent(plan_of(tmp_path, [(0, packet)]))
    assert len(made) == 0
    ((_, reason),) = made.left_out
    assert "MTU of 1500" in reason


def test_a_hop_without_a_way_tells_why(tmp_path):
    plan = plan_of(tmp_path, [(0, ip4(A, B, ESP, esp(1)))])
    made = program(plan, {Hop("left", B): "nobody answers"})
    assert made.left_out == ((0, "nobody answers"),)


def test_what_is_kept_of_a_capture_is_the_same_alone_and_among_the_rest(tmp_path):
    packets = [
        (n, ip4(A, B, ESP if n % 3 else UDP, esp(n, 10 + n) if n % 3 else udp((1, 2), b"x" * n))) for n in range(30)
    ]
    paths = [capture(tmp_path / "in.pcap", packets), capture(tmp_path / "more.pcap", packets[:7])]
    whole, _ = read_frames(paths)
    kept, _ = read_frames(paths, lambda one: one.protocol == ESP)
    rows = np.flatnonzero(whole.protocol == ESP)
    assert [kept.packet(row) for row in range(len(kept))] == [whole.packet(row) for row in rows]
    assert kept.transport_octets.tolist() == whole.transport_octets[rows].tolist()
    assert len(kept.data) < len(whole.data)
    nothing, _ = read_frames(paths, lambda one: one.protocol == OSPF)
    assert len(nothing) == 0


def test_speed_and_epoch_move_the_moments(tmp_path):
    frames, _ = read_frames([capture(tmp_path / "in.pcap", [(n * 1_000, ip4(A, B, ESP, esp(n))) for n in (0, 1, 2)])])
    plan = planned(frames, without_session(frames), NODES.get, speed=2.0)
    assert plan.offset_ns.tolist() == [0, 500_000, 1_000_000]
    with pytest.raises(ValueError, match="speed"):
        planned(frames, without_session(frames), NODES.get, speed=0)


def test_fragments_go_with_their_first(tmp_path):
    def piece(offset: int, more: bool, payload: bytes) -> bytes:
        packet = bytearray(ip4(A, B, 132, payload, ident=5))
        packet[6:8] = struct.pack("!H", (0x2000 if more else 0) | offset // 8)
        return bytes(packet)

    packets = [(0, piece(0, True, struct.pack("!HH", 9, 10) + bytes(28))), (5, piece(32, False, bytes(8)))]
    frames, _ = read_frames([capture(tmp_path / "in.pcap", packets)])
    assigned = without_session(frames)
    assert assigned.flow.tolist() == [0, 0]
    assert assigned.flows["destination_port"].tolist() == [10]


def test_both_kinds_of_flow_make_one_table(tmp_path):
    packets = [(0, ip4(A, B, ESP, esp(1))), (1, ip4(A, B, GRE, gre(1)))]
    frames, _ = read_frames([capture(tmp_path / "in.pcap", packets)])
    odd = without_session(frames)
    one = odd.flows[odd.flows["protocol"] == ESP]
    joined = together(of_flows(frames, one), odd)
    assert joined.flow.tolist() == [0, 2]
    assert NO_FLOW not in joined.flow


@given(seed=st.integers(0, 2**32), count=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_hostile_octets_are_planned_or_counted_and_never_end_the_reading(tmp_path_factory, seed, count):
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("hostile")
    good = [
        ip4(A, B, ESP, esp(1)),
        ip6("2001:db8::1", "2001:db8::2", GRE, gre(1)),
        ip4(A, B, UDP, udp((1, 2), b"x" * 30)),
    ]
    good.append(conversation(A, B, (7, 80), [b"x" * 3_000])[3])
    packets = []
    for n in range(count):
        octets = bytearray(chance.choice(good))
        for _ in range(chance.randrange(6)):
            octets[chance.randrange(min(len(octets), 60))] = chance.randrange(256)
        packets.append((n, bytes(octets[: chance.randrange(1, len(octets) + 1)])))
    frames, skipped = read_frames([capture(folder / "in.pcap", packets)])
    assert len(frames) + sum(skipped.values()) == count
    plan = planned(frames, without_session(frames), lambda address: NODES.get(address, "left"))
    made = sent(plan)
    told = packet_kpis(plan, result_of(made), taps(folder, made, on_time(made)), {}, "r", 0, "x")
    assert told.packets["planned"].sum() == len(made)
