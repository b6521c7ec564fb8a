"""Readings around a window become rows: counters as what they grew by, gauges and states as they end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from testbed.counters import COLUMNS, counter_rows
from testbed.devices.base import Reading


def value_of(before: list[Reading], after: list[Reading]) -> float:
    return counter_rows(1, "baseline", {"n": before}, {"n": after})["value"].item()


def test_a_counter_is_what_it_grew_by():
    assert value_of([Reading("rule", "a", "packets", 7)], [Reading("rule", "a", "packets", 10)]) == 3


def test_a_counter_that_began_anew_counts_from_zero():
    assert value_of([Reading("rule", "a", "packets", 7)], [Reading("rule", "a", "packets", 2)]) == 2


def test_a_counter_that_was_not_there_before_counts_from_zero():
    assert value_of([], [Reading("rule", "a", "packets", 4)]) == 4
    table = counter_rows(1, "baseline", {}, {"n": [Reading("rule", "a", "packets", 4)]})
    assert table["value"].tolist() == [4.0]


def test_a_gauge_is_what_it_was_at_the_end():
    mtu = [Reading("interface", "ens3", "mtu", octets, cumulative=False) for octets in (1500.0, 1400.0)]
    assert value_of([mtu[0]], [mtu[1]]) == 1400


def test_a_state_is_kept_as_it_was_at_the_end():
    seen = [Reading("route", "10.0.0.0/8", "via", 1.0, cumulative=False, state=way) for way in ("a@x", "b@y")]
    table = counter_rows(3, "treatment", {"r1": [seen[0]]}, {"r1": [seen[1]]})
    assert table.to_dict("records") == [
        dict(zip(COLUMNS, (3, "treatment", "r1", "route", "10.0.0.0/8", "via", 1.0, "b@y"), strict=True))
    ]


def test_nothing_read_is_a_table_without_rows():
    assert counter_rows(1, "baseline", {}, {}).columns.tolist() == COLUMNS
    assert counter_rows(1, "baseline", {"n": [Reading("rule", "a", "packets", 4)]}, {"n": []}).empty


@given(st.floats(0, 1e15), st.floats(0, 1e15))
def test_a_counter_never_shrinks(before, after):
    assert value_of([Reading("rule", "a", "packets", before)], [Reading("rule", "a", "packets", after)]) >= 0
