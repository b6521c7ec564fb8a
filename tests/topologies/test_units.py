"""Quantities mean what their units say, and nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies import units


@pytest.mark.parametrize(
    ("parse", "written", "value"),
    [
        (units.rate_bps, "5Mbit", 5_000_000),
        (units.rate_bps, "1.5kbit", 1500),
        (units.rate_bps, "1Gbit", 10**9),
        (units.duration_ns, "10ms", 10_000_000),
        (units.duration_ns, "250us", 250_000),
        (units.duration_ns, 0, 0),
        (units.ratio, "1%", 0.01),
        (units.ratio, 0.25, 0.25),
        (units.octets, "64KB", 64_000),
        (units.octets, "64KiB", 65_536),
        (units.octets, 1500, 1500),
    ],
)
def test_a_quantity_has_its_value(parse, written, value):
    assert parse(written) == value


@pytest.mark.parametrize(
    ("parse", "written"),
    [
        (units.rate_bps, "5mbps"),
        (units.rate_bps, "5Mbps"),
        (units.rate_bps, 5_000_000),
        (units.rate_bps, "0bit"),
        (units.duration_ns, 10),
        (units.duration_ns, "-1ms"),
        (units.ratio, 1),
        (units.ratio, "101%"),
        (units.ratio, float("nan")),
        (units.octets, 0),
        (units.octets, True),
        (units.octets, "1.5B"),
    ],
)
def test_an_ambiguous_or_impossible_quantity_is_refused(parse, written):
    with pytest.raises(ValueError, match="such as"):
        parse(written)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_anything_else_is_a_value_error(written):
    for parse in (units.rate_bps, units.duration_ns, units.ratio, units.octets):
        try:
            assert parse(written) >= 0
        except ValueError:
            continue
