"""What is said to netem is what is read from it: the same words both ways."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network.netem import PRNG_SEED, WHOLE, Netem
from testbed.network.rtnl import attributes
from topologies.model import Impairment

SHARES = st.integers(0, WHOLE)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        Netem,
        delay_ns=st.integers(0, 2**62),
        pdv_ns=st.integers(0, 2**62),
        loss=SHARES,
        duplicate=SHARES,
        reorder=SHARES,
        corrupt=SHARES,
    ),
    st.integers(0, 2**64 - 1),
)
def test_a_request_reads_back_as_it_was_meant(netem, seed):
    options = netem.options(seed)
    told = attributes(options[Netem.fixed_octets() :])
    assert Netem.read(options, told) == netem
    assert int.from_bytes(told[PRNG_SEED], "little") == seed


@given(st.floats(0, 1))
def test_a_ratio_is_kept_to_one_in_four_thousand_million(ratio):
    assert abs(Netem.of(Impairment(loss_ratio=ratio)).loss / WHOLE - ratio) < 2**-31


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_octets_are_taken_apart_without_a_fall(data):
    assert all(isinstance(value, bytes) for value in attributes(data).values())
