"""Fates by arithmetic: no socket, no clock.  The claims hold for any settings and arrivals."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network.delay_line.fate import UNTURNED, Fate, takes_super_frames
from testbed.network.delay_line.ring import NEEDS_CHECKSUM, VNET, VNET_OCTETS, turned
from topologies.model import Impairment

MS = 1_000_000
RATIOS = st.floats(0, 1)
IMPAIRMENTS = st.builds(
    Impairment,
    rate_bps=st.none() | st.integers(8, 10**10),
    delay_ns=st.integers(0, 10**9),
    pdv_ns=st.integers(0, 10**9),
    loss_ratio=RATIOS,
    duplicate_ratio=RATIOS,
    reorder_ratio=RATIOS,
    corrupt_ratio=RATIOS,
    queue_octets=st.none() | st.integers(1, 10**7),
)
ARRIVALS = st.lists(st.tuples(st.integers(0, 10**7), st.integers(14, 65_549)), min_size=1, max_size=40)


def fate(impairment, seed=1, interface="eth0"):
    return Fate("h1", interface, impairment, seed)


def met(some, arrivals):
    """The copies of frames that arrive so many ns after each other."""
    now, copies = 0, []
    for gap_ns, octets in arrivals:
        now += gap_ns
        copies.append(some.meet(now, octets))
    return copies


@settings(max_examples=60, deadline=None)
@given(IMPAIRMENTS, ARRIVALS)
def test_a_frame_never_leaves_before_it_came_and_equal_seeds_make_equal_fates(impairment, arrivals):
    first, again = met(fate(impairment), arrivals), met(fate(impairment), arrivals)
    assert first == again
    now = 0
    for (gap_ns, octets), copies in zip(arrivals, first, strict=True):
        now += gap_ns
        assert all(due_ns >= now for due_ns, _ in copies)
        assert all(bit == UNTURNED or 0 <= bit < 8 * octets for _, bit in copies)
        assert len(copies) <= 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 10**9), ARRIVALS)
def test_a_delay_made_shorter_keeps_the_order(before_ns, after_ns, arrivals):
    some = fate(Impairment(delay_ns=before_ns))
    due = [copies[0][0] for copies in met(some, arrivals)]
    some.change(Impairment(delay_ns=after_ns))
    due += [copies[0][0] for copies in met(some, [(10**9, 100), *arrivals])]
    ahead = [due_ns for due_ns in due if due_ns > 0]
    assert all(a <= b for a, b in pairwise(due[: len(arrivals)]))
    assert all(a <= b for a, b in pairwise(ahead[len(arrivals) :]))


def test_a_delay_made_shorter_waits_for_what_is_on_the_way():
    some = fate(Impairment(delay_ns=50 * MS))
    assert some.meet(0, 100) == ((50 * MS, UNTURNED),)
    some.change(Impairment())
    assert some.meet(10 * MS, 100) == ((50 * MS, UNTURNED),)
    assert some.meet(60 * MS, 100) == ((60 * MS, UNTURNED),)


def test_a_rate_spaces_frames_by_their_length_and_drops_the_tail():
    some = fate(Impairment(rate_bps=8_000_000, delay_ns=MS, queue_octets=3_000))
    assert met(some, [(0, 1_000)] * 4) == [((n * MS + MS, UNTURNED),) for n in (1, 2, 3)] + [()]
    losses = some.counted()
    assert (losses.by_chance, losses.by_queue) == (0, 1)
    assert some.counted().by_queue == 0
    # an idle link begins at once
    assert some.meet(100 * MS, 1_000) == ((102 * MS, UNTURNED),)


@pytest.mark.parametrize("other", [{"seed": 2}, {"interface": "eth1"}])
def test_another_seed_or_direction_has_another_fate(other):
    lossy = Impairment(loss_ratio=0.5)
    arrivals = [(1, 100)] * 64
    assert met(fate(lossy), arrivals) != met(fate(lossy, **other), arrivals)


def test_the_nth_frame_is_lost_whatever_else_is_set_and_again_after_a_restart():
    arrivals = [(1, 100)] * 200

    def losses(some):
        return [n for n, copies in enumerate(met(some, arrivals)) if not copies]

    plain = fate(Impairment(loss_ratio=0.1))
    rich = fate(Impairment(loss_ratio=0.1, corrupt_ratio=0.5, delay_ns=MS, pdv_ns=MS, reorder_ratio=0.1))
    first = losses(plain)
    plain.restart()
    assert first == losses(plain) == losses(rich)
    assert 5 < len(first) < 40


def test_only_equal_fates_pass_as_one():
    assert takes_super_frames(Impairment(delay_ns=MS, pdv_ns=1))
    for own in ({"rate_bps": 8}, {"loss_ratio": 0.1}, {"reorder_ratio": 0.1}, {"corrupt_ratio": 0.1}):
        assert not takes_super_frames(Impairment(delay_ns=MS, **own))


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=14, max_size=200), st.data())
def test_one_bit_is_turned_and_no_other(octets, data):
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    frame = bytes(VNET_OCTETS) + octets
    damaged = turned(frame, bit)
    assert int.from_bytes(damaged) ^ int.from_bytes(frame) == 1 << (8 * (len(octets) - 1 - bit // 8) + bit % 8)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=8, max_size=100), st.integers(0, 0xFFFF))
def test_a_checksum_that_was_owed_is_put_in_before_the_damage(payload, pseudo_header):
    start, offset = 34, 6
    segment = bytearray(payload)
    struct.pack_into(">H", segment, offset, pseudo_header)
    frame = VNET.pack(NEEDS_CHECKSUM, 0, 0, 0, start, offset) + bytes(start) + segment
    damaged = turned(frame, 0)
    assert damaged[:VNET_OCTETS] == bytes(VNET_OCTETS)
    body = damaged[VNET_OCTETS + start :]
    # one's complement arithmetic: the sum with the checksum in place, less the pseudo header's, is all ones
    words = struct.unpack(f">{(len(body) + 1) // 2}H", body + bytes(len(body) % 2))
    total = sum(words) + pseudo_header
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_a_super_frame_is_never_damaged():
    frame = VNET.pack(NEEDS_CHECKSUM, 1, 54, 1448, 34, 16) + bytes(100)
    assert turned(frame, 5) == frame
