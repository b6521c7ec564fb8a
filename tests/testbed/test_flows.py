"""`testbed flows`: what a person reads, what a program reads, and what is said about bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from replay.meter import read_traffic
from testbed.cli.flows import document, flows, read_sources, show
from testbed.errors import InvalidInput

ROOT = Path(__file__).parents[2]
CAPTURE = ROOT / "topologies/shop/traffic/internet.pcap"
EXAMPLES = ROOT / "tests/replay/records"


def program(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "testbed", "flows", *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, check=False, **options,
    )  # fmt: skip


def run(*arguments):
    """The command inside this process: (status, output)."""
    done = CliRunner().invoke(flows, list(map(str, arguments)), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.output


def test_json_of_a_capture_is_what_the_meter_counts():
    status, printed = run(CAPTURE, "--json")
    told, metered = json.loads(printed), read_traffic([CAPTURE])
    assert status == 0
    assert told["sources"] == ["capture"]
    assert (told["packets"], told["flows"]) == (metered.packets, len(metered.flows))
    assert told["by_protocol"] == {"tcp": 265, "udp": 56}
    assert told["skipped"] == dict(metered.skipped)
    assert sum(told["by_outcome"].values()) == told["flows"]


@pytest.mark.parametrize("name", ["conn.log", "eve.json", "hubble.json", "vpc_v2.log"])
def test_json_of_records(name):
    told = json.loads(run(EXAMPLES / name, "--json")[1])
    assert told["flows"] == sum(told["by_protocol"].values()) > 0
    assert told["by_grade"] == {"totals": told["flows"]}
    assert told["skipped"]


def test_the_parquet_file_is_the_flow_table(tmp_path):
    output = tmp_path / "flows.parquet"
    run(CAPTURE, "-o", output, "--policy", ROOT / "topologies/shop/policy.yaml")
    written = pd.read_parquet(output)
    assert list(written.columns) == list(read_traffic([CAPTURE]).flows.columns)
    assert {"https", "dns", "ssh"} <= set(written["flow_class"])
    assert [path.name for path in tmp_path.iterdir()] == ["flows.parquet"]
    with pytest.raises(InvalidInput, match=r"absent/x.*expected a place where the table can be written"):
        run(EXAMPLES / "conn.log", "-o", tmp_path / "absent" / "x")


@pytest.mark.parametrize(
    ("by", "row"),
    [
        ("protocol", ["tcp", "265", "251", "–", "8", "6"]),
        ("outcome", ["accepted", "307", "7,585"]),
        ("class", ["other", "321", "307", "–", "8", "6"]),
    ],
)
def test_the_table_fits_80_columns(by, row):
    seen = read_sources([CAPTURE])
    told = Console(width=80, force_terminal=False)
    with told.capture() as captured:
        show(seen.flows, seen, by, told)
    lines = captured.get().splitlines()
    assert lines[0].startswith("321 flows of capture, ")
    assert all(len(line) <= 80 for line in lines[1:])
    assert any(line.split()[: len(row)] == row for line in lines), captured.get()
    assert "Left out: " in captured.get()


def test_a_folder_stands_for_its_captures_and_says_what_else_was_there():
    told = json.loads(run(CAPTURE.parent, "--json")[1])
    assert told["flows"] == 546
    assert told["skipped"]["other_file"] == 1


def test_no_flow_is_no_error(tmp_path):
    log = tmp_path / "log"
    log.write_text("2 1 eni-1 - - - - - - - 1718000000 1718000060 - NODATA\n")
    seen = read_sources([log])
    assert document(seen.flows, seen)["start_ns"] is None
    assert run(log)[1].startswith("0 flows of vpc, 0 packets\n")


def test_bad_input_ends_with_2_and_names_the_file_and_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("version srcaddr dstaddr action\n")
    done = program(log)
    assert done.returncode == 2
    assert f"{log}:1:1: found a format without srcport" in done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([ROOT / "README.md"], "expected a pcap or pcapng capture, or flow records: NetFlow"),
        ([ROOT / "absent"], "found no such file or directory"),
        ([CAPTURE, EXAMPLES / "conn.log"], "conn.log:1:1: found something else beside the capture"),
        ([ROOT / "topologies/shop/configs"], "found a folder with"),
    ],
)
def test_what_cannot_be_read_is_named(arguments, said):
    with pytest.raises(InvalidInput) as refused:
        run(*arguments)
    assert said in str(refused.value)


def test_a_layout_is_checked_before_anything_is_read():
    done = program(EXAMPLES / "vpc_v2.log", "--layout", "${srcaddr}")
    assert done.returncode == 2
    assert "a format without dstaddr" in done.stderr
