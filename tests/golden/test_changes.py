"""Every packaged change gets the verdict, the flows and the blame that are written beside it, on the real shadow."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
LABS = ("depot", "shop")
CHANGES = [f"{lab}/{path.name}" for lab in LABS for path in sorted((TOPOLOGIES / lab / "changes").iterdir())]
QUICK = {"shop/syntax-error"}
"""Run by ./lab test too; ./lab golden runs all, ./lab demo asks for block-https."""

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}


def whatif(change: str, runs: Path) -> tuple[int, dict, Path]:
    lab, name = change.split("/")
    folder = TOPOLOGIES / lab
    argv = [sys.executable, "-m", "testbed", "whatif", str(folder), "--change", str(folder / "changes" / name)]
    done = subprocess.run(
        [*argv, "--runs", str(runs), "--json", "--treatment", "3"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.stdout, done.stderr
    verdict = json.loads(done.stdout)
    return done.returncode, verdict, runs / verdict["run_id"]


def expected_file(change: str) -> Path:
    lab, name = change.split("/")
    return TOPOLOGIES / lab / "changes" / name / "expected.yaml"


def told(verdict: dict) -> str:
    lines = [f"{verdict['verdict']}: {verdict['reason']}", str(verdict["rollback"]), str(verdict["instrument"])]
    return "\n".join([*lines, *(f"{f['verdict']} {f['effect']} {f['blame']}" for f in verdict["findings"])])


def test_there_are_changes():
    for lab, fewest in (("depot", 5), ("shop", 12)):
        assert sum(change.startswith(f"{lab}/") for change in CHANGES) >= fewest
    assert set(CHANGES) >= QUICK


@pytest.mark.golden
@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CHANGES]
)
def test_change_gets_its_verdict_and_its_blame(change, tmp_path):
    expected = YAML(typ="safe").load(expected_file(change))

    status, verdict, run = whatif(change, tmp_path / "first")
    if verdict["verdict"] == "INCONCLUSIVE":
        # the instrument said that it could not tell, and why: what anyone does then is to measure again, once
        warnings.warn(f"{change} measured twice: {verdict['reason']}", stacklevel=1)
        status, verdict, run = whatif(change, tmp_path / "second")

    assert verdict["verdict"] == expected["verdict"], told(verdict)
    assert status == EXIT_CODES[expected["verdict"]], told(verdict)
    failures = [finding for finding in verdict["findings"] if finding["verdict"] == "FAIL"]
    flows = pd.read_parquet(run / "flows.parquet").set_index("flow_id")
    hit = {flows.loc[flow, "flow_class"] for finding in failures for flow in finding["flows"]}
    assert hit >= set(expected.get("classes", ())), told(verdict)
    assert blamed_as(expected.get("blame", {}), failures), told(verdict)
    assert (run / "report.html").stat().st_size > 10_000
    assert verdict["timings"]["total_s"] > 0
    if change == "shop/block-https":
        names_rule_line_and_exact_flows(verdict, run)


def blamed_as(expected: dict, failures: list[dict]) -> bool:
    """Whether some failure's blame has the node and file, and contains the text and evidence, that are expected."""
    blames = [finding["blame"] for finding in failures if finding["blame"]]
    return not expected or any(
        all(
            value in str(blame[key]) if key in {"text", "evidence"} else blame[key] == value
            for key, value in expected.items()
        )
        for blame in blames
    )


def names_rule_line_and_exact_flows(verdict: dict, run: Path) -> None:
    """block-https: fw1, the rule's text, its line, and the HTTPS flows, all of them and no other."""
    flows = pd.read_parquet(run / "flows.parquet")
    https = set(flows.loc[(flows["protocol"] == 6) & (flows["destination_port"] == 443), "flow_id"])
    failures = [finding for finding in verdict["findings"] if finding["verdict"] == "FAIL"]
    assert {flow for finding in failures for flow in finding["flows"]} == https, told(verdict)
    rule = "-A FORWARD -p tcp -m tcp --dport 443 -j DROP"
    place = {"node": "fw1", "file": "configs/fw1/iptables.rules", "line": 24, "text": rule}
    assert any(place.items() <= failure["blame"].items() for failure in failures), told(verdict)
    report = (run / "report.html").read_text()
    assert "fw1" in report
    assert rule in report
    timings = json.loads((run / "run.json").read_text())["timings"]
    assert {"build_s", "converge_s", "replay_s", "judge_s"} <= set(timings)
    assert verdict["instrument"]["lateness_p99_us"] is not None
