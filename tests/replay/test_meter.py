"""The meter's flows, messages and segments are what a person reads off the packets, and tshark's conversations."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.all import ICMP, IP, TCP, UDP, Ether, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, Raw

from replay.meter import Timeouts, read_traffic
from tests.replay.capture_files import CAPTURES, MACS, START_S, pcap, stored

CLIENT, SERVER = "198.51.100.7", "203.0.113.10"
MS = 1_000_000
GOLDEN = json.loads((Path(__file__).parent / "golden_conversations.json").read_text())


def client(flags, seq, ack=0, data=b"", sport=40000, dport=9000):
    return IP(src=CLIENT, dst=SERVER) / TCP(sport=sport, dport=dport, seq=seq, ack=ack, flags=flags) / Raw(data)


def server(flags, seq, ack=0, data=b"", sport=40000, dport=9000):
    return IP(src=SERVER, dst=CLIENT) / TCP(sport=dport, dport=sport, seq=seq, ack=ack, flags=flags) / Raw(data)


def handshake(at=0.0, isn=1000, **ports):
    return [
        (at, client("S", isn, **ports)),
        (at + 0.010, server("SA", 5000, isn + 1, **ports)),
        (at + 0.020, client("A", isn + 1, 5001, **ports)),
    ]


def metered(tmp_path, packets, timeouts=None, snaplen=65535):
    path = tmp_path / "capture"
    path.write_bytes(pcap([(moment, bytes(Ether(**MACS) / one)) for moment, one in packets], snaplen=snaplen))
    return read_traffic([path], timeouts or Timeouts())


def row(traffic):
    assert len(traffic.flows) == 1
    return traffic.flows.iloc[0]


def said(traffic):
    columns = ["direction", "octets", "offset_ns", "gap_ns"]
    return [tuple(map(int, one)) for one in traffic.messages[columns].itertuples(index=False)]


def test_a_request_and_its_answer_are_two_messages_with_think_times(tmp_path):
    traffic = metered(
        tmp_path,
        [
            *handshake(),
            (0.050, client("PA", 1001, 5001, b"ask")),
            (0.080, server("A", 5001, 1004, b"an")),
            (0.085, server("PA", 5003, 1004, b"swer")),
            (0.090, server("FA", 5007, 1004)),
            (0.091, client("FA", 1004, 5008)),
        ],
    )
    flow = row(traffic)
    assert (flow.source_address, flow.source_port, flow.destination_port) == (CLIENT, 40000, 9000)
    assert (flow.forward_packets, flow.reverse_packets) == (4, 4)
    assert (flow.forward_octets, flow.reverse_octets) == (4 * 40 + 3, 4 * 40 + 6)
    assert (flow.outcome, flow.close, flow.end_reason, flow.grade) == (
        "accepted", "fin_reverse", "end_of_flow", "payload",
    )  # fmt: skip
    assert (flow.tcp_flags_forward, flow.tcp_flags_reverse) == (0x1B, 0x1B)
    assert flow.end_ns - flow.start_ns == 91 * MS
    assert said(traffic) == [(0, 3, 50 * MS, 40 * MS), (1, 6, 80 * MS, 30 * MS)]
    assert [traffic.payloads[ref] for ref in traffic.messages["payload_ref"]] == [b"ask", b"answer"]


def test_a_pause_beyond_200_ms_begins_a_new_message_of_the_same_side(tmp_path):
    packets = [(0.1, client("PA", 1001, 5001, b"one")), (0.29, client("PA", 1004, 5001, b"two"))]
    packets.append((0.5, client("PA", 1007, 5001, b"three")))
    assert said(metered(tmp_path, [*handshake(), *packets])) == [
        (0, 6, 100 * MS, 90 * MS), (0, 5, 500 * MS, 210 * MS),
    ]  # fmt: skip


def test_retransmissions_carry_no_new_byte_and_do_not_change_the_message(tmp_path):
    traffic = metered(
        tmp_path,
        [
            (-0.5 + 1, client("S", 1000)),
            *handshake(1.0),
            (1.1, client("PA", 1001, 5001, b"abcd")),
            (1.11, client("PA", 1005, 5001, b"efgh")),
            (1.13, client("PA", 1001, 5001, b"abcd")),
            (1.14, client("PA", 1003, 5001, b"cdefghij")),
        ],
    )
    assert traffic.payloads[0] == b"abcdefghij"
    assert said(traffic)[0][:2] == (0, 10)
    segments = traffic.segments
    assert segments["retransmission"].tolist() == [False, True, False, False, False, False, True, False]
    assert segments.loc[segments["octets"] > 0, "stream_offset"].tolist() == [0, 4, 0, 2]


def test_a_byte_sent_again_after_a_loss_is_dated_by_the_bytes_behind_it(tmp_path):
    traffic = metered(
        tmp_path,
        [
            *handshake(),
            (0.1, client("A", 1001, 5001, b"ab")),
            (0.11, client("A", 1005, 5001, b"ef")),
            (0.9, client("A", 1003, 5001, b"cd")),
            (1.0, server("A", 5001, 1007, b"ok")),
        ],
    )
    assert traffic.payloads[0] == b"abcdef"
    assert said(traffic) == [(0, 6, 100 * MS, 90 * MS), (1, 2, 1000 * MS, 890 * MS)]
    assert not traffic.segments["retransmission"].any()


def test_stream_offsets_go_on_where_sequence_numbers_wrap(tmp_path):
    isn = 2**32 - 3
    packets = [(0, client("S", isn)), (0.01, server("SA", 0, isn + 1))]
    packets += [(0.02, client("A", isn + 1, 1, b"12345")), (0.03, client("A", 3, 1, b"678"))]
    traffic = metered(tmp_path, packets)
    assert traffic.segments["stream_offset"].tolist() == [0, 0, 0, 5]
    assert traffic.payloads[0] == b"12345678"


def test_bytes_that_were_never_captured_leave_sizes_instead_of_payload(tmp_path):
    lost = [*handshake(), (0.1, client("A", 1001, 5001, b"ab")), (0.11, client("A", 1011, 5001, b"cd"))]
    traffic = metered(tmp_path, lost)
    assert row(traffic).grade == "sizes"
    assert (traffic.messages["octets"].tolist(), traffic.messages["payload_ref"].tolist()) == ([12], [-1])


def test_a_snaplen_leaves_exact_sizes_without_payload(tmp_path):
    packets = [*handshake(), (0.1, client("A", 1001, 5001, b"x" * 1000)), (0.2, server("A", 5001, 2001, b"y"))]
    traffic = metered(tmp_path, packets, snaplen=128)
    assert traffic.messages["octets"].tolist() == [1000, 1]
    assert traffic.messages["payload_ref"].tolist() == [-1, 0]
    assert row(traffic).grade == "sizes"


def test_a_flow_joined_in_mid_stream_is_metered_and_graded(tmp_path):
    flow = row(metered(tmp_path, [(0, server("PA", 1, 1, b"late", dport=443)), (0.1, client("A", 1, 5, dport=443))]))
    assert (flow.source_address, flow.outcome, flow.grade) == (CLIENT, "accepted", "sizes")
    assert not (flow.tcp_flags_forward | flow.tcp_flags_reverse) & 0x02


def test_the_same_five_tuple_with_a_new_syn_is_a_new_flow_with_its_own_name(tmp_path):
    packets = [*handshake(0, 1000), (0.1, client("FA", 1001)), (0.2, server("FA", 5001)), *handshake(1, 99_000)]
    traffic = metered(tmp_path, packets)
    assert traffic.flows["outcome"].tolist() == ["accepted", "accepted"]
    assert traffic.flows["forward_packets"].tolist() == [3, 2]
    assert traffic.flows["flow_id"].is_unique
    assert traffic.flows["flow_id"].str.fullmatch("[0-9a-f]{12}").all()
    again = metered(tmp_path, packets)
    assert again.flows.equals(traffic.flows)


def test_a_syn_sent_again_after_a_reset_stays_one_flow(tmp_path):
    refused = [(0, client("S", 7)), (0.01, server("RA", 0, 8)), (0.5, client("S", 7)), (0.51, server("RA", 0, 8))]
    flow = row(metered(tmp_path, refused))
    assert (flow.outcome, flow.close, flow.forward_packets) == ("reset", "rst_reverse", 2)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ([], "unanswered"),
        ([(0.1, IP(src="203.0.113.1", dst=CLIENT) / ICMP(type=3, code=13) / client("S", 7))], "denied"),
        ([(0.1, IP(src="203.0.113.1", dst=CLIENT) / ICMP(type=3, code=4) / client("S", 7))], "unanswered"),
        ([(0.1, IP(src="203.0.113.1", dst=CLIENT) / ICMP(type=11) / client("S", 7))], "unanswered"),
        ([(0.1, server("SA", 1, 8))], "accepted"),
    ],
)
def test_the_outcome_of_an_attempt_is_how_it_was_met(tmp_path, answer, outcome):
    assert row(metered(tmp_path, [(0, client("S", 7)), *answer])).outcome == outcome


def test_udp_is_denied_by_an_icmp_error_and_accepted_by_an_answer(tmp_path):
    def ask(port):
        return IP(src=CLIENT, dst=SERVER) / UDP(sport=port, dport=53) / Raw(b"?")

    answer = IP(src=SERVER, dst=CLIENT) / UDP(sport=53, dport=2000) / Raw(b"!")
    denial = IP(src=SERVER, dst=CLIENT) / ICMP(type=3, code=3) / ask(1000)
    traffic = metered(tmp_path, [(0, ask(1000)), (0.1, denial), (0.2, ask(2000)), (0.3, answer), (0.4, ask(3000))])
    assert traffic.flows["outcome"].tolist() == ["denied", "accepted", "unanswered"]


def test_an_icmp_error_about_nobody_is_counted(tmp_path):
    denial = IP(src=SERVER, dst=CLIENT) / ICMP(type=3, code=3) / client("S", 1, sport=1)
    traffic = metered(tmp_path, [(0, denial), (1, client("S", 1, sport=2))])
    assert traffic.skipped == {"icmp_error_without_flow": 1}
    assert traffic.packets == 2


def test_an_echo_and_its_reply_are_one_flow(tmp_path):
    there, back = IPv6(src="2001:db8::1", dst="2001:db8::2"), IPv6(src="2001:db8::2", dst="2001:db8::1")
    packets = [(0, there / ICMPv6EchoRequest(id=9, data=b"abc")), (0.01, back / ICMPv6EchoReply(id=9, data=b"abc"))]
    flow = row(metered(tmp_path, packets))
    assert (flow.protocol, flow.source_address, flow.outcome) == (58, "2001:db8::1", "accepted")


def test_every_datagram_is_a_message_even_an_empty_one(tmp_path):
    def datagram(data):
        return IP(src=CLIENT, dst=SERVER) / UDP(sport=1, dport=5000) / Raw(data)

    traffic = metered(tmp_path, [(n / 50, datagram(b"v" * n)) for n in (0, 1, 2)])
    assert traffic.messages["octets"].tolist() == [0, 1, 2]
    assert list(traffic.payloads) == [b"", b"v", b"vv"]
    assert traffic.segments["stream_offset"].tolist() == [0, 0, 1]


def test_timeouts_end_records_with_their_ipfix_reason(tmp_path):
    moments = [0, 1, 2, 10, 11, 12, 13, 14, 15]
    packets = [(at, IP(src=CLIENT, dst=SERVER) / UDP(sport=4000, dport=5000) / Raw(b"x")) for at in moments]
    second = 1_000_000_000
    idle = metered(tmp_path, packets, Timeouts(idle_ns=5 * second)).flows
    assert (idle["forward_packets"].tolist(), idle["end_reason"].tolist()) == ([3, 6], ["idle", "forced"])
    both = metered(tmp_path, packets, Timeouts(idle_ns=5 * second, active_ns=2 * second)).flows
    assert both["forward_packets"].tolist() == [3, 3, 3]
    assert both["end_reason"].tolist() == ["idle", "active", "forced"]


def test_times_are_those_of_the_capture(tmp_path):
    assert row(metered(tmp_path, [(0.5, client("S", 1))])).start_ns == START_S * 10**9 + 500 * MS


def conversations(path, protocol):
    command = ["tshark", "-r", str(path), "-q", "-z", f"conv,{protocol}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return len(re.findall("<->", done.stdout))


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_flow_counts_are_tsharks_but_for_the_differences_explained(name):
    golden, path = GOLDEN[name], stored(name)
    flows = read_traffic([path]).flows
    for protocol, number in (("tcp", 6), ("udp", 17)):
        assert int((flows["protocol"] == number).sum()) == golden[protocol]
        explained = sum(one["flows"] for one in golden["differences"] if one["protocol"] == protocol)
        if shutil.which("tshark"):
            assert conversations(path, protocol) + explained == golden[protocol]


def test_every_public_capture_has_a_golden_count():
    if not CAPTURES.exists():
        pytest.skip(f"no {CAPTURES}")
    assert {path.name for path in CAPTURES.glob("*.pcap*")} == set(GOLDEN)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_every_captured_byte_is_in_exactly_one_message_or_sent_again(name):
    traffic = read_traffic([stored(name)])
    segments, messages = traffic.segments, traffic.messages
    fresh = segments[~segments["retransmission"]]
    assert messages["octets"].sum() >= fresh["octets"].sum() - segments["octets"].sum() * 0.01
    assert (messages["gap_ns"] >= 0).all()
    assert messages.groupby("flow_id")["offset_ns"].apply(lambda one: one.is_monotonic_increasing).all()
    sizes = dict(zip(messages["payload_ref"], messages["octets"], strict=True))
    assert all(len(payload) == sizes[ref] for ref, payload in enumerate(traffic.payloads))
    assert int(traffic.flows[["forward_packets", "reverse_packets"]].sum().sum()) == len(segments)


SEGMENT = st.tuples(st.integers(0, 60), st.integers(1, 30), st.integers(0, 300))


@settings(max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SEGMENT, min_size=1, max_size=25), st.sampled_from([0, 1000, 2**32 - 20]))
def test_a_stream_cut_shuffled_and_repeated_at_will_comes_together_again(tmp_path, cuts, isn):
    text = bytes(range(100))
    packets = [(0, client("S", isn))]
    sent: set[int] = set()
    repeats = []
    for begin, size, pause in cuts:
        moment = packets[-1][0] + 0.001 + pause / 10_000
        packets.append((moment, client("A", (isn + 1 + begin) % 2**32, 1, text[begin : begin + size])))
        span = set(range(begin, begin + size))
        repeats.append(span <= sent)
        sent |= span
    traffic = metered(tmp_path, packets)
    assert traffic.segments["retransmission"].tolist() == [False, *repeats]
    assert traffic.segments["stream_offset"].tolist() == [0] + [begin for begin, _, _ in cuts]
    together = b"".join(traffic.payloads[ref] for ref in traffic.messages["payload_ref"] if ref >= 0)
    if sent == set(range(max(sent) + 1)):
        assert together == text[: len(sent)]
    assert int(traffic.messages["octets"].sum()) == max(sent) + 1


FIELD = st.integers(0, 2**32 - 1)
WILD = st.tuples(st.booleans(), st.integers(0, 255), FIELD, FIELD, st.binary(max_size=20), st.integers(0, 3))


@settings(max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WILD, min_size=1, max_size=30))
def test_wild_sequence_numbers_and_flags_never_crash_the_meter(tmp_path, wild):
    packets = []
    for number, (forward, flags, seq, ack, data, port) in enumerate(wild):
        side = client if forward else server
        packets.append((number / 1000, side(flags, seq, ack, data, sport=40000 + port)))
    traffic = metered(tmp_path, packets, Timeouts(idle_ns=3 * MS, active_ns=5 * MS))
    assert int(traffic.flows[["forward_packets", "reverse_packets"]].sum().sum()) == len(wild)
    assert np.all(traffic.messages["octets"] > 0)
