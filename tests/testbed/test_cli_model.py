"""`testbed model` on the shop's capture: what people and programs are told, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.meter import read_traffic
from replay.ofcm import model_of
from replay.ofcm.store import load, save
from testbed.cli import main

TRAFFIC = Path(__file__).resolve().parents[2] / "topologies" / "shop" / "traffic"
INTERNET = TRAFFIC / "internet.pcap"


@pytest.fixture(scope="module")
def flows():
    return read_traffic([INTERNET]).flows


@pytest.fixture
def ended(monkeypatch, capsys):
    """Run the command line in this process: its exit code, what it said, and what it said of errors."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["testbed", "model", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


def test_a_capture_becomes_a_model_that_is_shown(ended, tmp_path):
    code, out, _ = ended("build", INTERNET, "-o", tmp_path / "m.yaml", "--zone", "customers[de]=198.51.100.0/24")
    assert code == 0
    assert "321 flows" in out
    code, out, _ = ended("show", tmp_path / "m.yaml")
    assert code == 0
    https = next(line for line in out.splitlines() if "customers[de]" in line and "tcp/443" in line)
    assert "203.0.113.10" in https
    assert "accepted 100% (96% to 100%)" in https
    code, out, _ = ended("show", tmp_path / "m.yaml", "--json")
    listed = json.loads(out)
    assert listed["schema"] == 1
    ssh = next(one for one in listed["classes"] if one["port"] == 22)
    assert (ssh["source"], ssh["disposition"], ssh["connect_ns"]) == ("customers[de]", "unanswered", None)


def test_a_flow_table_and_a_second_capture_bring_a_model_up_to_date(ended, tmp_path, flows):
    flows.to_parquet(tmp_path / "flows.parquet")
    half = tmp_path / "half.parquet"
    assert ended("build", tmp_path / "flows.parquet", "-o", half, "--grain-ipv4", "24", "--grain-ipv6", "56")[0] == 0
    assert {address.rsplit(".", 1)[1] for address in load(half).cells["source_address"] if "." in address} == {"0"}
    twice = tmp_path / "twice.parquet"
    assert ended("build", tmp_path / "flows.parquet", "--onto", half, "--keep", "0.5", "-o", twice)[0] == 0
    assert load(twice).flows == 1.5 * len(flows)
    assert ended("build", INTERNET, "--onto", half, "--zone", "a=10.0.0.0/8", "-o", twice)[0] == 2


def test_flow_records_come_onto_the_model_of_a_capture(ended, tmp_path):
    log = tmp_path / "vpc.log"
    log.write_text(
        "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action "
        "log-status\n"
        "2 1 eni-1 192.0.2.9 203.0.113.10 40000 3389 6 1 40 1700000000 1700000001 REJECT OK\n"
    )
    code, _, told = ended("build", INTERNET, log, "-o", tmp_path / "m.yaml")
    assert (code, "a flow record beside a capture" in told) == (2, True)
    assert ended("build", INTERNET, "-o", tmp_path / "m.yaml")[0] == 0
    assert ended("build", log, "--onto", tmp_path / "m.yaml", "-o", tmp_path / "m.yaml")[0] == 0
    code, out, _ = ended("show", tmp_path / "m.yaml", "--json")
    refused = next(one for one in json.loads(out)["classes"] if one["port"] == 3389)
    assert (code, refused["source"], refused["disposition"]) == (0, "192.0.2.9", "denied")


def test_a_comparison_tells_what_opened_and_closed_and_fails_only_when_asked(ended, tmp_path, flows):
    before, after = tmp_path / "a.yaml", tmp_path / "b.parquet"
    save(model_of(flows), before)
    turned = flows.assign(
        outcome=flows["outcome"]
        .mask(flows["destination_port"] == 443, "denied")
        .mask(flows["destination_port"] == 22, "accepted")
    )
    save(model_of(turned), after)
    code, out, _ = ended("diff", before, after)
    assert code == 0
    assert out.index("opened") < out.index("closed")
    assert ended("diff", before, after, "--fail-on-change")[0] == 1
    code, out, _ = ended("diff", before, after, "--json")
    assert code == 0
    listed = json.loads(out)
    assert listed["changed"]
    assert {one["kind"] for one in listed["changes"]} == {"opened", "closed"}
    assert all(one["certain"] for one in listed["changes"] if one["before"]["flows"] > 3)
    code, out, _ = ended("diff", before, before, "--fail-on-change")
    assert (code, out) == (0, "nothing changed\n")


def test_bad_input_ends_with_two_and_its_place(ended, tmp_path, flows):
    other = tmp_path / "other.yaml"
    other.write_text("ofcm: 1\ngrouping: 3\nclasses: []\ncolumns: []\ncells: []\n")
    assert ended("show", other)[0::2] == (2, f"{other}:2:11: found '3', expected a mapping\n")
    assert ended("diff", other, other)[0] == 2
    assert ended("show", tmp_path / "absent.yaml")[0] == 2
    code, _, told = ended("build", other, "-o", tmp_path / "m.yaml")
    assert (code, "capture" in told) == (2, True)
    flows.drop(columns="outcome").to_parquet(tmp_path / "flows.parquet")
    code, _, told = ended("build", tmp_path / "flows.parquet", "-o", tmp_path / "m.yaml")
    assert (code, "no column 'outcome'" in told) == (2, True)
    assert ended("build", INTERNET, "-o", tmp_path / "m.json")[0] == 2
    assert ended("build", INTERNET, "-o", tmp_path / "m.yaml", "--zone", "a=nonsense")[0] == 2
    assert ended("build", INTERNET, "-o", tmp_path / "m.yaml", "--keep", "2")[0] == 2
    assert ended("build", INTERNET, "-o", tmp_path / "no" / "m.yaml")[0] == 2
