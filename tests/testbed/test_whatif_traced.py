"""A what-if whose culprit no counter shows: one flow is traced on its own shadow, and the way back lies beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from testbed.rejudge import read_run, rejudged
from testbed.verdict_file import read_verdict
from tests.testbed.quick_lab import quick_lab

BY_MAP = """\
table inet guard {
    chain forward {
        type filter hook forward priority -5; policy accept;
        ct state established accept
        udp dport vmap { 5001 : drop, 5002 : accept }
    }
}
"""


def test_a_map_that_drops_is_blamed_by_the_kernels_own_trace(tmp_path: Path):
    lab = quick_lab(tmp_path / "lab")
    folder = lab / "changes" / "map" / "configs" / "fw1"
    folder.mkdir(parents=True)
    (folder / "nftables.conf").write_text(BY_MAP)
    argv = [sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(folder.parents[1])]
    argv += ["--runs", str(tmp_path / "runs"), "--baseline", "2", "--treatment", "2", "--quiet"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 1, done.stderr
    (run,) = (tmp_path / "runs").glob("2*")
    verdict = read_verdict(run)
    blame = verdict.findings[0].blame
    assert blame is not None
    assert (blame.node, blame.file, blame.line) == ("fw1", "configs/fw1/nftables.conf", 5)
    assert (blame.decided_by, blame.in_change) == ("trace", True)
    said = "\n".join(blame.evidence)
    assert "before the change delivered to web1; with it dropped at fw1" in said
    assert "configs/fw1/nftables.conf:5" in said
    assert verdict.rollback.restored
    journeys = json.loads((run / "traced.json").read_text())["trace"]
    assert [hop["node"] for hop in journeys["before"]["legs"][0]["hops"]] == ["outside", "fw1", "r1", "sw1", "web1"]
    assert (run / "rollback" / "undo" / "fw1" / "nftables.conf").read_text() == (
        "add table inet guard\ndelete table inet guard\n"
    )
    assert "remove `nftables.conf`" in (run / "rollback" / "README.md").read_text()
    # judged again, the stored journeys give the same witness
    again = rejudged(read_run(run)).verdict
    assert again == verdict
