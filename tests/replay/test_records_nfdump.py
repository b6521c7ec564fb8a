"""NetFlow files through the real nfdump, with its own totals as the witness."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.errors import InvalidCapture
from replay.meter import read_traffic
from replay.records import kind_of, nfdump, read_flow_records

CAPTURES = sorted((Path(__file__).parents[2] / "topologies/shop/traffic").glob("*.pcap"))

pytestmark = pytest.mark.skipif(
    not (shutil.which("nfdump") and shutil.which("nfpcapd")), reason="no nfdump: vagrant/provision.sh installs it"
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The packaged captures as nfpcapd's flow files."""
    files = []
    for capture in CAPTURES:
        folder = tmp_path_factory.mktemp("nfcapd")
        subprocess.run(["nfpcapd", "-r", capture, "-w", folder], check=True, capture_output=True)
        files.append(sorted(folder.glob("nfcapd.*")))
    assert all(files)
    return files


def told_totals(file):
    said = subprocess.run(["nfdump", "-I", "-r", file], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in re.findall(r"^(\w+): (\d+)$", said, re.M)}


def test_packets_and_octets_are_those_that_nfdump_tells(stored):
    for files in stored:
        for file in files:
            assert kind_of(file).name == "nfdump"
            records, told = nfdump.read(file), told_totals(file)
            assert records.read + sum(records.skipped.values()) == told["Flows"]
            for protocol, name in ((6, "tcp"), (17, "udp")):
                flows = records.flows[records.flows["protocol"] == protocol]
                for unit in ("packets", "octets"):
                    ours = flows[f"forward_{unit}"].sum() + flows[f"reverse_{unit}"].sum()
                    assert ours == told[f"{'Bytes' if unit == 'octets' else 'Packets'}_{name}"]


def by_tuple(flows):
    """Totals of each five-tuple: nfpcapd keeps one record when a port is used again before it has gone idle."""
    flows = flows[flows["protocol"].isin([6, 17])]
    ends = ["protocol", "source_address", "source_port", "destination_address", "destination_port"]
    totals = ["forward_packets", "reverse_packets", "forward_octets", "reverse_octets"]
    first = {"flow_id": "first", "outcome": "first", "start_ns": "min"}
    return flows.groupby(ends).agg({**dict.fromkeys(totals, "sum"), **first}).sort_index()


def test_the_flows_are_those_of_the_meter(stored):
    for capture, files in zip(CAPTURES, stored, strict=True):
        metered, records = read_traffic([capture]), read_flow_records(files)
        ours, theirs = by_tuple(records.flows), by_tuple(metered.flows)
        assert records.skipped["icmpv6_link_control"]
        assert set(records.flows["protocol"]) == set(metered.flows["protocol"])
        assert abs(ours["start_ns"] - theirs["start_ns"]).max() <= 1_000_000
        assert ours.drop(columns="start_ns").equals(theirs.drop(columns="start_ns"))
        both = metered.flows.merge(records.flows, on="flow_id")
        kind = [both[close].str.split("_").str[0] for close in ("close_x", "close_y")]
        assert kind[0].equals(kind[1].rename("close_x"))  # who was first lies within nfdump's ms


def test_a_packed_file_is_unpacked_for_nfdump(stored, tmp_path):
    packed = tmp_path / "flows"
    packed.write_bytes(gzip.compress(stored[0][0].read_bytes()))
    assert read_flow_records([packed]).flows.equals(read_flow_records([stored[0][0]]).flows)


def test_without_the_program_the_reader_says_what_to_install(stored, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidCapture, match="no program nfdump to read it, expected the Debian package nfdump"):
        read_flow_records([stored[0][0]])


def test_a_reading_that_takes_too_long_is_ended(stored, monkeypatch, tmp_path):
    slow = tmp_path / "nfdump"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InvalidCapture, match=r"took nfdump longer than 0\.2 s"):
        nfdump.read(stored[0][0], limit_s=0.2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_end_in_flows_or_a_sentence(stored, tmp_path, data):
    whole = bytearray(stored[0][0].read_bytes())
    for at, octet in data.draw(st.lists(st.tuples(st.integers(2, len(whole) - 1), st.integers(0, 255)), max_size=6)):
        whole[at] = octet
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[: data.draw(st.integers(2, len(whole)))])
    try:
        records = nfdump.read(damaged, limit_s=5.0)
    except InvalidCapture:
        return
    assert len(records.flows) <= records.read
