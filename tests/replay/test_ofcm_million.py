"""A million flows become hundreds of classes at a bounded multiple of the one grouping that is the least."""

from __future__ import annotations

import time

import pytest

from replay.ofcm import classes, model_of, updated
from tests.replay.ofcm_flows import many


@pytest.mark.parametrize(("flows", "most_ratio"), [(100_000, 120), pytest.param(1_000_000, 60, marks=pytest.mark.slow)])
def test_a_large_site_is_hundreds_of_classes_and_costs_a_few_groupings(flows, most_ratio):
    table = many(flows, seed=1)
    classes(model_of(table.head(10)))
    began = time.perf_counter()
    model = model_of(table)
    found = classes(model)
    took_s = time.perf_counter() - began
    began = time.perf_counter()
    table.groupby(["source_address", "destination_address", "protocol", "destination_port", "outcome"])[
        ["forward_octets", "reverse_octets"]
    ].sum()
    least_s = time.perf_counter() - began
    assert 50 < len(found) < 1_000
    assert found["flows"].sum() == flows
    ratio = took_s / least_s
    assert ratio < most_ratio, f"{len(model.cells)} cells, {len(found)} classes cost {ratio:.0f} groupings"


def test_a_model_brought_up_to_date_is_the_one_built_at_once_at_scale():
    table = many(40_000, seed=2)
    assert updated(model_of(table.iloc[30_000:]), table.iloc[:30_000]) == model_of(table)
