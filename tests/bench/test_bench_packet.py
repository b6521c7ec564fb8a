"""The packet bench on one short run: what it prints, and that it keeps time where its reference does not."""

from __future__ import annotations

import shutil

import pytest

from testbed.bench.packet import bench_packet


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tcpreplay") is None, reason="tcpreplay is not installed")
def test_the_end_is_kept_and_nothing_is_lost():
    result = bench_packet(seconds=2.0)
    assert result.document()["bench"] == "packet"
    assert (result.figures["sent"], result.figures["lost"]) == (4_000, 0)
    # other work may hold the processor back at the very end, but what is late does not add up
    assert abs(result.figures["end_drift_us"]) < 10_000
    assert result.figures["packets_per_s"] > 100_000
    assert set(result.references) == {
        "tcpreplay",
        "tcpreplay_gap_error_p50",
        "tcpreplay_gap_error_p99",
        "tcpreplay_version",
    }
