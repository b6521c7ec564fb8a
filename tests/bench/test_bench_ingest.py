"""The ingest bench's capture is what it says, for everyone who reads it, and the document has its figures."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
from click.testing import CliRunner

from replay.meter import read_traffic
from testbed.bench.ingest import bench_ingest, octets_of
from testbed.bench.ingest_capture import write_capture
from testbed.bench.ingest_dpkt import flow_totals
from testbed.cli import commands

MIB = 1 << 20


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("ingest") / "capture.pcap"
    return path, write_capture(path, 4 * MIB, seed=3)


def test_the_capture_is_the_same_for_the_same_seed_and_near_the_size_asked_for(capture, tmp_path):
    path, packets = capture
    again = tmp_path / "again.pcap"
    assert write_capture(again, 4 * MIB, seed=3) == packets
    assert again.read_bytes() == path.read_bytes()
    assert 2 * MIB < path.stat().st_size < 8 * MIB


def test_the_capture_holds_whole_conversations_of_every_kind(capture):
    path, packets = capture
    traffic = read_traffic([path])
    assert (traffic.packets, sum(traffic.skipped.values())) == (packets, 0)
    flows = traffic.flows
    assert set(flows["protocol"]) == {1, 6, 17} or set(flows["protocol"]) == {1, 6, 17, 58}
    assert {"http", "tls", "dns"} <= set(flows["application"])
    assert {"accepted", "reset", "unanswered"} <= set(flows["outcome"])
    assert Counter(flows["grade"])["payload"] > 0.95 * len(flows)
    assert flows["source_address"].str.contains(":").any()


def test_the_reference_counts_the_same_flows(capture):
    pytest.importorskip("dpkt")
    path, packets = capture
    read, flows = flow_totals(path, 10**9)
    assert read == packets
    assert abs(flows - len(read_traffic([path], flows_only=True).flows)) <= 0.05 * flows


@pytest.mark.slow
def test_the_bench_prints_its_figures_beside_its_references():
    pytest.importorskip("dpkt")
    if shutil.which("nfpcapd") is None:
        pytest.skip("no nfpcapd")
    result = bench_ingest(4 * MIB, seed=1, packed=True)
    document = json.loads(json.dumps(result.document()))
    assert set(document["references"]) == {"dpkt", "nfpcapd"}
    assert document["figures"]["packets"] > 1000
    assert 50 < document["figures"]["peak_rss_mib"] < 600
    assert 50 < document["figures"]["gzip_peak_rss_mib"] < 600


def test_sizes_are_read_and_refused():
    assert (octets_of("64M"), octets_of("1g"), octets_of("2097152")) == (64 * MIB, 1 << 30, 2 * MIB)
    for wrong in ("", "M", "1", "65G", "-1G", "1.5G"):
        done = CliRunner().invoke(commands, ["bench", "ingest", "--octets", wrong], standalone_mode=True)
        assert done.exit_code == 2, done.output
