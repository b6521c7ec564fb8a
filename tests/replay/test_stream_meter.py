"""A stream of chunks gives the tables of the whole, whatever the chunks; what has ended is told and forgotten."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.meter import Timeouts, joined, meter, metered, read_traffic
from replay.packets import PacketStream
from tests.replay.capture_files import stored
from tests.replay.packet_columns import MS, TRAFFIC, cut, packets_of
from tests.replay.test_meter import GOLDEN

TIMEOUTS = st.builds(
    Timeouts,
    idle_ns=st.sampled_from([None, 20 * MS, 1000 * MS]),
    active_ns=st.sampled_from([None, 4 * MS, 100 * MS]),
    linger_ns=st.sampled_from([None, 0, 10 * MS]),
    forget_ns=st.sampled_from([None, None, 1200 * MS]),
)


def assert_same(one, other):
    pd.testing.assert_frame_equal(one.flows, other.flows)
    for name in ("messages", "segments"):
        left, right = getattr(one, name), getattr(other, name)
        pd.testing.assert_frame_equal(
            left.drop(columns="payload_ref", errors="ignore"), right.drop(columns="payload_ref", errors="ignore")
        )
    assert said(one) == said(other)
    assert one.skipped == other.skipped
    assert one.packets == other.packets


def said(traffic):
    return [traffic.payloads[ref] if ref >= 0 else None for ref in traffic.messages["payload_ref"].tolist()]


@settings(max_examples=60, deadline=None)
@given(TRAFFIC, st.lists(st.integers(0, 40), max_size=6), TIMEOUTS)
def test_any_cutting_into_chunks_gives_the_tables_of_the_whole(rows, places, timeouts):
    packets = packets_of(rows)
    whole = meter(packets, timeouts)
    assert_same(joined(list(metered(cut(packets, places), timeouts))), whole)
    flows = joined(list(metered(cut(packets, places), timeouts, flows_only=True))).flows
    assert flows.equals(whole.flows)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_every_public_capture_is_the_same_in_chunks(name):
    path = stored(name)
    whole = read_traffic([path])
    for chunk_octets in (2_000, 50_000):
        stream = PacketStream([path], chunk_octets=chunk_octets)
        pieces = joined(list(metered(stream)))
        pieces.skipped.update(stream.skipped)
        assert_same(pieces, whole)
