"""Flows cut and split at will come together again; who opened them is found by the strongest witness."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.biflow import Timeouts
from replay.columns import ACK, FIN, RST, SYN, TCP, UDP
from replay.records.piece import Details, Initiator, Piece
from replay.records.stitch import first_close, outcome, stitched

S = 10**9


def half(start, end, source, destination, packets=1, octets=100, flags=0, protocol=TCP, **more):
    return Piece(
        start, end, protocol, source[0], source[1], destination[0], destination[1], packets, octets,
        forward_flags=flags, **more,
    )  # fmt: skip


CLIENT, SERVER = ("10.0.0.9", 40000), ("10.0.0.1", 443)


@st.composite
def cut_flows(draw):
    """A TCP flow's packets, and the records of exporters who cut it where they liked."""
    count = draw(st.integers(2, 30))
    ways = [False, True, *draw(st.lists(st.booleans(), min_size=count, max_size=count)), False, True, False]
    sizes = draw(st.lists(st.integers(40, 1500), min_size=len(ways), max_size=len(ways)))
    gaps = draw(st.lists(st.integers(1, 10**12), min_size=len(ways), max_size=len(ways)))
    flags = [SYN, SYN | ACK, *[ACK] * count, FIN | ACK, FIN | ACK, ACK]
    observers = draw(st.integers(1, 3))
    pieces, at, times = [], 10**18, []
    for gap in gaps:
        at += gap
        times.append(at)
    packets = list(zip(times, ways, sizes, flags, strict=True))
    for observer in range(observers):
        for way in (False, True):
            held = []
            mine = [packet for packet in packets if packet[1] == way]
            for number, packet in enumerate(mine):
                held.append(packet)
                if number == len(mine) - 1 or draw(st.booleans()):
                    ends = (SERVER, CLIENT) if way else (CLIENT, SERVER)
                    seen = 0
                    for one in held:
                        seen |= one[3]
                    octets, who = sum(one[2] for one in held), Details(observer=str(observer))
                    pieces.append(half(held[0][0], held[-1][0], *ends, len(held), octets, seen, details=who))
                    held = []
    return packets, draw(st.permutations(pieces))


@settings(max_examples=150, deadline=None)
@given(cut_flows())
def test_a_biflow_cut_and_split_at_will_comes_together_again(case):
    packets, pieces = case
    (flow,) = stitched(pieces)
    forward = [packet for packet in packets if not packet[1]]
    reverse = [packet for packet in packets if packet[1]]
    assert (flow.source_address, flow.source_port) == CLIENT
    assert (flow.forward_packets, flow.forward_octets) == (len(forward), sum(one[2] for one in forward))
    assert (flow.reverse_packets, flow.reverse_octets) == (len(reverse), sum(one[2] for one in reverse))
    assert (flow.start_ns, flow.end_ns) == (packets[0][0], packets[-1][0])
    assert outcome(flow) == "accepted"
    assert flow.close == "fin_forward"
    assert stitched([flow]) == [flow]
    assert stitched([flow.turned()]) == [flow]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([CLIENT, SERVER, ("10.0.0.2", 53), ("2001:db8::1", 53)]),
            st.sampled_from([CLIENT, SERVER, ("10.0.0.2", 50)]),
            st.integers(0, 100),
            st.integers(0, 100),
            st.integers(0, 255),
            st.sampled_from([TCP, UDP]),
            st.sampled_from(list(Initiator)),
        ),
        max_size=12,
    ),
    st.sampled_from([Timeouts(), Timeouts(5, None), Timeouts(None, 5)]),
)
def test_no_octet_is_lost_or_made_up_by_one_observer_s_records(rows, timeouts):
    pieces = [
        half(start, start + packets, source, destination, packets, packets * 50, flags, protocol, initiator=initiator)
        for source, destination, start, packets, flags, protocol, initiator in rows
    ]
    flows = stitched(pieces, timeouts)
    assert sum(flow.forward_octets + flow.reverse_octets for flow in flows) == sum(p.forward_octets for p in pieces)
    assert sum(flow.forward_packets + flow.reverse_packets for flow in flows) == sum(p.forward_packets for p in pieces)
    assert [flow.start_ns for flow in flows] == sorted(flow.start_ns for flow in flows)


HIGH = ("10.0.0.5", 50000)
LOW = ("10.0.0.6", 40000)


@pytest.mark.parametrize(
    ("pieces", "initiator"),
    [
        ([half(5, 9, SERVER, CLIENT, initiator=Initiator.SOURCE), half(1, 9, CLIENT, SERVER)], SERVER),
        ([half(1, 9, CLIENT, SERVER, initiator=Initiator.DESTINATION)], SERVER),
        ([half(5, 9, HIGH, LOW, flags=SYN | ACK), half(5, 9, LOW, HIGH, flags=SYN)], LOW),
        ([half(6, 9, HIGH, LOW, flags=SYN | ACK), half(5, 9, LOW, HIGH, flags=SYN | ACK)], LOW),
        ([half(1, 9, SERVER, CLIENT), half(2, 9, CLIENT, SERVER)], CLIENT),
        ([half(2, 9, HIGH, LOW), half(1, 9, LOW, HIGH)], LOW),
        ([half(1, 9, HIGH, LOW), half(1, 9, LOW, HIGH)], HIGH),
    ],
    ids=["exporter", "rfc5103-reverse", "syn", "both-syns-first-seen", "well-known-port", "first-seen", "higher-port"],
)
def test_the_initiator_is_found_by_the_strongest_witness(pieces, initiator):
    for order in (pieces, pieces[::-1]):
        (flow,) = stitched(order)
        assert (flow.source_address, flow.source_port) == initiator


def test_an_end_that_had_finished_and_opens_again_is_another_flow():
    again = [
        half(1, 9, CLIENT, SERVER, flags=SYN | ACK | FIN),
        half(2, 9, SERVER, CLIENT, flags=SYN | ACK | FIN),
        half(20, 29, CLIENT, SERVER, flags=SYN | ACK | FIN),
        half(20, 29, SERVER, CLIENT, flags=SYN | ACK | FIN),
    ]
    first, second = stitched(again)
    assert (first.start_ns, first.end_reason, second.start_ns) == (1, "end_of_flow", 20)
    assert (second.forward_packets, second.reverse_packets) == (1, 1)


def test_timeouts_end_a_record_with_their_ipfix_reason():
    stretches = [half(at * S, at * S, CLIENT, SERVER) for at in (0, 1, 100)]
    assert [flow.end_reason for flow in stitched(stretches, Timeouts(idle_ns=10 * S))] == ["idle", ""]
    assert [flow.end_reason for flow in stitched(stretches, Timeouts(active_ns=50 * S))] == ["active", ""]
    assert len(stitched(stretches)) == 1


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([half(1, 2, CLIENT, SERVER, flags=SYN)], "unanswered"),
        ([half(1, 2, CLIENT, SERVER, flags=SYN), half(1, 2, SERVER, CLIENT, flags=RST | ACK)], "reset"),
        ([half(1, 2, CLIENT, SERVER, flags=SYN | ACK), half(1, 2, SERVER, CLIENT, flags=SYN | ACK | RST)], "accepted"),
        ([half(1, 2, CLIENT, SERVER, flags=SYN, refused=True)], "denied"),
        ([half(1, 2, CLIENT, SERVER), half(1, 2, SERVER, CLIENT, refused=True)], "denied"),
        (
            [half(1, 2, CLIENT, SERVER), half(1, 2, SERVER, CLIENT), half(5, 6, CLIENT, SERVER, refused=True)],
            "accepted",
        ),
        ([half(1, 2, CLIENT, SERVER, protocol=UDP)], "unanswered"),
    ],
)
def test_outcomes(pieces, expected):
    (flow,) = stitched(pieces)
    assert outcome(flow) == expected


@pytest.mark.parametrize(
    ("forward", "reverse", "expected"),
    [
        ((FIN, 5), (FIN, 6), "fin_reverse"),  # who was seen last still acknowledged,
        ((FIN, 6), (FIN, 5), "fin_forward"),
        ((RST, 6), (FIN, 5), "fin_reverse"),
        ((RST, 4), (RST, 5), "rst_forward"),
        ((0, 4), (RST, 5), "rst_reverse"),
        ((0, 4), (0, 5), "none"),
    ],
)
def test_who_closed_first(forward, reverse, expected):
    ends = (
        half(1, forward[1], CLIENT, SERVER, 3, flags=forward[0]),
        half(1, reverse[1], SERVER, CLIENT, 3, flags=reverse[0]),
    )
    assert first_close([ends[0], ends[1].turned()]) == expected
