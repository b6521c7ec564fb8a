"""The benches really build, and their documents have the shape that programs read."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from testbed.bench.build import bench_build
from testbed.bench.stock_mininet import stock_mininet
from testbed.cli import commands
from testbed.errors import Unsupported

needs_mnexec = pytest.mark.skipif(shutil.which("mnexec") is None, reason="stock Mininet needs mnexec")


@needs_mnexec
def test_build_is_held_against_stock_mininet_and_the_kernel():
    document = bench_build(6, small=2, large=4).document()
    assert document["bench"] == "build"
    assert set(document["references"]) == {"mininet", "floor"}
    assert document["references"]["mininet"]["ratio"] > 1
    assert 0 < document["references"]["floor"]["ratio"] < 1.5
    assert document["figures"]["nodes"] == 6


@needs_mnexec
def test_churn_leaves_no_open_file():
    told = CliRunner().invoke(commands, ["bench", "churn", "--nodes", "2", "--cycles", "4", "--json"])
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document["figures"]["open_files_left"] == 0
    assert document["figures"]["live_change_s"] > 0


def test_without_mnexec_the_reference_is_refused_with_a_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported, match="mnexec"):
        stock_mininet(2)
