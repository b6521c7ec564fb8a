"""What a run record publishes as an engine's error is what this machine's kernel measured."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from testbed.errors import Unsupported
from testbed.network.calibration import calibrated
from testbed.network.impairment import Engine, has_netem
from testbed.sandbox import Sandbox
from tests.calibration.links import ENGINES, USER_MODE

ENDS = (ip_interface("192.0.2.1/24"), ip_interface("192.0.2.2/24"))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_tells_its_own_error(engine):
    found = Sandbox("calibrated").call(lambda: calibrated(engine, ENDS))
    assert found.engine == engine.value
    assert 0 <= found.excess_p50_ns <= found.excess_p99_ns
    assert found.report is not None
    # what the kernel's stamps show, the line told of itself
    assert found.excess_p50_ns < (found.report.excess_p50_ns or 5_000_000) + 500_000
    assert abs(found.rate_bps.error_percent) < (40 if USER_MODE else 15)
    assert 0.05 < found.loss_ratio.found < 0.15


@pytest.mark.skipif(has_netem(), reason="this kernel has netem")
def test_an_engine_that_is_missing_is_refused():
    with pytest.raises(Unsupported, match="no netem"):
        Sandbox("calibrated").call(lambda: calibrated(Engine.NETEM, ENDS))
