"""The pytest plugin for real: a test file of somebody's, run by pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from testbed.testing import plugin
from tests.testbed.quick_lab import quick_lab

TESTS = """
import warnings
from pathlib import Path

import pytest

import pytest

from testbed.errors import InvalidInput
from testbed.testing.plugin import ShadowWarning

LAB = Path({lab!r})


@pytest.fixture(scope="session")
def seen():
    return []


def test_hard(shadow, seen):
    tried = shadow.whatif(LAB, LAB / "changes" / "drop", preflight_only=True)
    seen.append(tried)
    assert tried.restored
    assert tried.verdict.verdict == "FAIL"
    shadow.assert_no_regression(tried)


def test_soft(shadow, seen):
    with pytest.warns(ShadowWarning, match="FAIL: .*other"):
        assert shadow.assert_no_regression(seen[0], soft=True) is seen[0]


def test_wrong_change(shadow):
    with pytest.raises(InvalidInput, match="no such file or folder"):
        shadow.assert_no_regression(LAB, LAB / "changes" / "nope")


def test_no_change(shadow):
    with pytest.raises(TypeError, match="expected both"):
        shadow.assert_no_regression(LAB)
"""


@pytest.mark.slow
def test_a_regression_fails_a_test_with_its_line(tmp_path):
    lab = quick_lab(tmp_path / "lab")
    (tmp_path / "test_change.py").write_text(TESTS.format(lab=str(lab)))
    loaded = any(entry.value == plugin.__name__ for entry in entry_points(group="pytest11"))
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(() if loaded else ("-p", plugin.__name__)),
    ]
    argv += ["--rootdir", str(tmp_path), "--shadow-runs", "kept", "--junitxml", "result.xml", "test_change.py"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 3 passed" in done.stdout
    assert "configs/fw1/iptables.rules:6" in done.stdout
    assert "-A FORWARD -p udp -m udp --dport 5001 -j DROP" in done.stdout
    assert "Traceback" not in done.stdout
    (run,) = (tmp_path / "kept").glob("*-quick-drop-*")
    assert (run / "report.html").is_file()
    assert f'value="FAIL {run}"' in (tmp_path / "result.xml").read_text()


def test_the_plugin_costs_nothing_before_it_is_used():
    code = "import sys, testbed.testing.plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "pyroute2", "scapy", "testbed.whatif"} & set(done.stdout.split())
