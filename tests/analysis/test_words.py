import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.kpi import KPIS
from analysis.words import moved, plural, quantity


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (12e6, "ns", "12 ms"),
        (1.234e9, "ns", "1.2 s"),
        (350e3, "ns", "350 µs"),
        (0, "ns", "0 ns"),
        (math.inf, "ns", "never"),
        (math.nan, "ns", "-"),
        (4.13e6, "bps", "4.1 Mbit/s"),
        (0.012, "ratio", "1.2 %"),
        (3, "count", "3"),
        (2_500_000, "octets", "2.5 MB"),
    ],
)
def test_quantities_are_said_as_people_say_them(value, unit, said):
    assert quantity(value, unit) == said


@given(st.floats(), st.sampled_from(["ns", "bps", "ratio", "count", "octets"]))
def test_every_number_can_be_said(value, unit):
    assert quantity(value, unit)


def test_a_move_is_one_sentence():
    assert moved("http", KPIS["response_ns"], 12e6, 84e6, 600) == "http response time 12 ms → 84 ms (+600 %)"
    assert moved("http", KPIS["goodput_bps"], 2e6, 1e6, 50) == "http goodput 2 Mbit/s → 1 Mbit/s (−50 %)"
    assert moved("dns", KPIS["loss_ratio"], 0, 0.04, math.inf) == "dns loss 0 % → 4 %"


def test_plurals():
    assert (plural(1, "flow"), plural(2, "flow"), plural(2, "class")) == ("1 flow", "2 flows", "2 classes")
