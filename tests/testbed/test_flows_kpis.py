"""`testbed flows --kpis` and `--model`: what is told, what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from replay.kpis import KPI_COLUMNS
from replay.meter import read_traffic
from replay.ofcm import model_of, timed
from replay.ofcm.store import load
from testbed.cli.flow_kpis import percentiles
from testbed.cli.flows import flows
from testbed.errors import InvalidInput

ROOT = Path(__file__).parents[2]
CAPTURE = ROOT / "topologies/shop/traffic/internet.pcap"
POLICY = ROOT / "topologies/shop/policy.yaml"
RECORDS = ROOT / "tests/replay/records/conn.log"


def run(*arguments):
    done = CliRunner().invoke(flows, list(map(str, arguments)), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_json_has_a_group_a_class_the_critical_first(tmp_path):
    output = tmp_path / "kpis.parquet"
    told = json.loads(run(CAPTURE, "--kpis", "--by", "class", "--policy", POLICY, "--json", "-o", output))
    assert [group["group"] for group in told["groups"]][:4] == ["checkout", "payment", "http", "https"]
    assert [group["priority"] for group in told["groups"]][-1] == "low"
    checkout = told["groups"][0]
    assert checkout["completed"] == checkout["flows"] == 26
    assert checkout["kpis"]["connect_ns"]["p50"] <= checkout["kpis"]["connect_ns"]["p99"]
    assert "goodput_bps" not in checkout["kpis"]
    assert tuple(pd.read_parquet(output).columns) == KPI_COLUMNS


def test_the_table_tells_errors_and_times():
    told = run(CAPTURE, "--kpis")
    assert "8 refused, 6 timeout" in " ".join(told.split())
    assert "connect time" in told


def test_percentiles_are_values_that_were_measured():
    assert percentiles(pd.Series([float("nan"), 3.0, 1.0, 2.0])) == (2.0, 3.0, 3.0)
    assert percentiles(pd.Series([float("nan")])) is None


def test_flow_records_have_no_kpis():
    with pytest.raises(InvalidInput, match="expected a capture"):
        run(RECORDS, "--kpis")


@pytest.mark.parametrize("source", [CAPTURE, RECORDS])
def test_the_model_is_what_model_build_makes(tmp_path, source):
    told = run(source, "--model", tmp_path / "m.parquet")
    assert "m.parquet" in told
    if source == CAPTURE:
        assert load(tmp_path / "m.parquet") == model_of(timed(read_traffic([CAPTURE])))
    twice = tmp_path / "twice.yaml"
    run(source, "--model", twice, "--onto", tmp_path / "m.parquet", "--json")
    assert load(twice).flows == 2 * load(tmp_path / "m.parquet").flows


def test_onto_needs_a_place(tmp_path):
    run(CAPTURE, "--model", tmp_path / "m.yaml")
    with pytest.raises(click.UsageError):
        run(CAPTURE, "--onto", tmp_path / "m.yaml")
    with pytest.raises(InvalidInput, match="suffix"):
        run(CAPTURE, "--model", tmp_path / "m.txt")
