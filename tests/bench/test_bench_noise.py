"""The noise bench measures by the kernel's stamps and in user space, idle and busy, on a real path."""

from __future__ import annotations

import pytest

from testbed.bench.noise import bench_noise, spread_us


def test_noise_is_measured_idle_and_busy_beside_user_space():
    document = bench_noise(0.4).document()
    figures, references = document["figures"], document["references"]
    assert {"user_space_idle", "user_space_busy"} <= set(references)
    for state in ("idle", "busy"):
        assert figures[f"{state}_flows"] == 80
        assert figures[f"{state}_flows_failed"] == 0
        assert 0 < figures[f"{state}_one_way_delay_p50_us"] < figures[f"{state}_connect_p50_us"] < 10_000
        assert references[f"user_space_{state}"]["value"] > 0
    # four loops on a processor each: who stamps after waking up must wait for them
    assert references["user_space_busy_one_way_delay"]["ratio"] > 1


def test_the_spread_is_the_99th_percentile_less_the_median():
    assert spread_us(range(0, 1_000_001, 1_000)) == pytest.approx(490)
