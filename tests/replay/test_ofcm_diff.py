"""A comparison of two models tells access opened and closed, and keeps quiet about noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from replay.ofcm import Grouping, model_of
from replay.ofcm.diff import Kind, diff
from tests.replay.ofcm_flows import FLOWS, flow, table

OPPOSITE = {Kind.OPENED: Kind.CLOSED, Kind.CLOSED: Kind.OPENED, Kind.APPEARED: Kind.VANISHED}
OPPOSITE |= {other: kind for kind, other in OPPOSITE.items()}


def told(before, after, **options):
    changes = diff(model_of(table(*before)), model_of(table(*after)), **options)
    return [(one.kind, one.source, one.port, one.certain) for one in changes]


def test_opened_and_closed_access_come_first_and_certain_ones_before_others():
    before = [flow("10.0.0.1", times=9), flow("10.0.0.2", port=22, outcome="denied", times=2)]
    before += [flow("10.0.0.3", port=80, times=2), flow("10.0.0.4", port=25, outcome="denied", times=9)]
    after = [flow("10.0.0.1", outcome="reset", times=9), flow("10.0.0.2", port=22, times=2)]
    after += [flow("10.0.0.3", port=80, outcome="denied", times=2), flow("10.0.0.4", port=25, outcome="reset", times=9)]
    assert told(before, after) == [
        (Kind.OPENED, "10.0.0.2", 22, False),
        (Kind.CLOSED, "10.0.0.1", 443, True),
        (Kind.CLOSED, "10.0.0.3", 80, False),
        (Kind.DISPOSITION, "10.0.0.4", 25, True),
    ]


def test_one_source_that_is_newly_denied_is_told_apart_from_its_neighbours():
    before = [flow(f"10.0.0.{host}", times=9) for host in range(8)]
    after = [flow(f"10.0.0.{host}", outcome="denied" if host == 5 else "accepted", times=9) for host in range(8)]
    assert told(before, after) == [(Kind.CLOSED, "10.0.0.5", 443, True)]


def test_a_new_client_beside_others_is_no_change_and_a_new_service_is_one():
    before = [flow("10.0.0.1", times=20), flow("10.0.0.9", port=22, times=20)]
    after = [flow("10.0.0.2", times=20), flow("10.0.0.1", port=8443, times=20)]
    assert told(before, after) == [
        (Kind.APPEARED, "10.0.0.1", 8443, True),
        (Kind.VANISHED, "10.0.0.9", 22, True),
    ]


def test_volume_changes_beyond_noise_only_and_by_time():
    def both(first, second, **options):
        return told([flow("10.0.0.1", times=first)], [flow("10.0.0.1", times=second)], **options)

    assert both(100, 120) == []
    assert both(100, 220) == [(Kind.VOLUME, "10.0.0.1", 443, True)]
    assert both(100, 220, spans_ns=(10**9, 2 * 10**9)) == []
    assert both(1000, 1200) == [], "significant, but a small effect"
    assert both(1000, 1200, least_ratio=1.1) == [(Kind.VOLUME, "10.0.0.1", 443, True)]


def test_equal_rates_are_rarely_called_different():
    """With Poisson counts of one rate no more than the false discovery rate of the comparisons may tell a change."""
    random = np.random.default_rng(3)
    false = 0
    for _ in range(8):
        pair = []
        for _ in range(2):
            counts = random.poisson(6, 10).tolist()
            pair.append([flow("10.0.0.1", port=port + 1, times=count) for port, count in enumerate(counts)])
        false += any(one[0] is Kind.VOLUME for one in told(*pair))
    assert false <= 1


def test_models_of_another_grain_cannot_be_compared():
    one = model_of(table(flow("10.0.0.1")))
    with pytest.raises(ValueError, match="grain"):
        diff(one, model_of(table(flow("10.0.0.1")), Grouping(grain_ipv4=24)))


@settings(max_examples=6, deadline=None)
@given(FLOWS, FLOWS)
def test_nothing_changed_from_a_model_to_itself_and_back_is_the_opposite(first, second):
    one, other = model_of(first), model_of(second)
    assert diff(one, one) == ()
    there, back = diff(one, other), diff(other, one)
    assert {
        (OPPOSITE.get(c.kind, c.kind), c.source, c.destination, c.protocol, c.port, c.application) for c in there
    } == {(c.kind, c.source, c.destination, c.protocol, c.port, c.application) for c in back}
    for change in there:
        assert (change.before.flows == 0) == (change.kind is Kind.APPEARED)
        assert 0 <= change.q_value <= 1
        assert not math.isnan(change.rate_ratio)
