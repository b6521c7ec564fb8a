"""A what-if on flows that are known by record alone: sizes and times are the record's, the words are synthesised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from testbed.devices.registry import known_devices
from testbed.errors import InvalidInput
from testbed.packet_flows import Manner, Mode
from testbed.prepare import open_lab, prepared
from testbed.traffic import read_flows
from tests.testbed.quick_lab import RULES, quick_lab

ROOT = Path(__file__).parents[2]
WEB = "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\n"
WEB_FLOWS, UDP_FLOWS = 12, 6


def conn(number, source, target, protocol, service, octets):
    """A line of Zeek's conn.log in JSON."""
    return json.dumps(
        {
            "ts": 1_700_000_000 + number * 0.05, "uid": f"C{number}", "id.orig_h": source[0], "id.orig_p": source[1],
            "id.resp_h": target[0], "id.resp_p": target[1], "proto": protocol, "service": service, "duration": 0.02,
            "orig_bytes": octets[0], "resp_bytes": octets[1], "conn_state": "SF", "orig_pkts": 4,
            "orig_ip_bytes": octets[0] + 208, "resp_pkts": 4, "resp_ip_bytes": octets[1] + 208,
        }
    )  # fmt: skip


@pytest.fixture
def lab(tmp_path):
    folder = quick_lab(tmp_path / "quick")
    (folder / "configs/fw1/iptables.rules").write_text(RULES.format(more=WEB))
    changed = folder / "changes/drop/configs/fw1/iptables.rules"
    changed.write_text(RULES.format(more="-A FORWARD -p tcp -m tcp --dport 80 -j DROP\n" + WEB))
    return folder


@pytest.fixture
def records(tmp_path):
    web = [
        conn(n, (f"198.51.100.{n + 1}", 30_000 + n), ("10.1.0.10", 80), "tcp", "http", (400, 20_000))
        for n in range(WEB_FLOWS)
    ]
    datagrams = [
        conn(n, (f"198.51.100.{n + 1}", 31_000 + n), ("10.1.0.11", 5001), "udp", "-", (200, 300))
        for n in range(UDP_FLOWS)
    ]
    path = tmp_path / "conn.log"
    path.write_text("\n".join([*web, *datagrams]) + "\n")
    return path


def test_records_are_replayed_and_judged_with_the_line_to_blame(lab, records, tmp_path):
    runs = tmp_path / "runs"
    argv = ["whatif", lab, "--change", lab / "changes/drop", "--capture", records, "--runs", runs, "--speed", "1",
            "--baseline", "2", "--treatment", "2", "--json"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "testbed", *map(str, argv)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    blame = verdict["findings"][0]["blame"]
    assert blame["text"] == "-A FORWARD -p tcp -m tcp --dport 80 -j DROP"
    kpis = pd.concat(pd.read_parquet(path) for path in sorted(next(runs.glob("2*/kpis")).glob("*.parquet")))
    baseline = kpis[kpis["role"] == "baseline"]
    assert len(baseline) == 2 * (WEB_FLOWS + UDP_FLOWS)
    assert baseline["completed"].all()
    assert set(kpis[kpis["role"] == "treatment"].query("not completed")["error"]) == {"timeout"}
    octets = baseline.groupby("flow_id")["delivered_octets"].max()
    assert (octets > 20_000).sum() == WEB_FLOWS


def test_a_flow_table_is_taken_as_records_are(records, tmp_path):
    told = read_flows([records])
    table = tmp_path / "flows.parquet"
    told.flows.assign(grade="payload").to_parquet(table)
    again = read_flows([table])
    assert (again.kind, set(again.flows["grade"]), len(again.messages)) == ("flow table", {"totals"}, 0)
    assert again.flows["flow_id"].tolist() == told.flows["flow_id"].tolist()
    assert again.packets == told.packets == 8 * (WEB_FLOWS + UDP_FLOWS)


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (lambda table: table.drop(columns=["outcome"]), "without the columns outcome"),
        (lambda table: pd.concat([table, table]), "twice"),
    ],
)
def test_a_table_that_is_none_is_refused(records, tmp_path, spoilt, told):
    table = tmp_path / "flows.parquet"
    spoilt(read_flows([records]).flows).to_parquet(table)
    with pytest.raises(InvalidInput, match=told):
        read_flows([table])


def test_kinds_are_not_mixed_and_records_have_no_packets_to_send(lab, records, tmp_path):
    with pytest.raises(InvalidInput, match="a capture beside a flow record"):
        read_flows([records, lab / "traffic/second.pcap"])
    devices = known_devices()
    opened = open_lab(str(lab), tmp_path / "work", devices)
    with pytest.raises(InvalidInput, match="a flow record in the mode packet"):
        prepared(opened.lab, lab / "changes/drop", devices, (records,), manner=Manner(Mode.PACKET))
