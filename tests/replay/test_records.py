"""Every format of flow records: what a real-shaped file becomes, row by row, and what is left out and why."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from replay.errors import InvalidCapture
from replay.meter import read_traffic
from replay.records import KINDS, kind_named, kind_of, read_flow_records
from replay.records.piece import Details
from replay.records.vpc import columns_of

EXAMPLES = Path(__file__).parent / "records"
CAPTURE = Path(__file__).parents[2] / "topologies/shop/traffic/internet.pcap"
KIND_OF = {
    "conn.json": "zeek", "conn.log": "zeek", "eve.json": "suricata", "hubble.json": "hubble", "vpc_v2.log": "vpc",
    "vpc_v5.log": "vpc",
}  # fmt: skip


def read(name, **options):
    return read_flow_records([EXAMPLES / name], **options)


def rows(records, *columns):
    return list(records.flows[list(columns)].itertuples(index=False, name=None))


def test_every_example_is_recognised_by_its_content(tmp_path):
    assert {path.name for path in EXAMPLES.iterdir()} == set(KIND_OF)
    for name, kind in KIND_OF.items():
        renamed = tmp_path / "anything"
        renamed.write_bytes((EXAMPLES / name).read_bytes())
        assert kind_of(renamed).name == kind


@pytest.mark.parametrize("name", sorted(KIND_OF))
def test_the_tables_are_the_meter_s(name):
    metered, records = read_traffic([CAPTURE]), read(name)
    for table in ("flows", "messages"):
        ours, theirs = getattr(records, table), getattr(metered, table)
        assert list(ours.columns) == list(theirs.columns)
        assert ours.dtypes.astype(str).to_dict() == theirs.dtypes.astype(str).to_dict()
    assert records.messages.empty
    assert set(records.flows["grade"]) == {"totals"}
    assert records.flows["flow_id"].is_unique
    assert list(records.details["flow_id"]) == list(records.flows["flow_id"])
    assert set(records.flows["outcome"]) <= {"accepted", "denied", "unanswered", "reset"}


def test_vpc_version_2_stitches_halves_and_windows_and_counts_what_has_no_data():
    records = read("vpc_v2.log")
    assert records.skipped == {"nodata": 1, "skipdata": 1, "damaged_address": 1}
    assert rows(records, "source_port", "destination_port", "forward_packets", "reverse_packets", "outcome") == [
        (51514, 5432, 25, 18, "accepted"),
        (60022, 22, 3, 0, "denied"),
        (40001, 53, 1, 1, "accepted"),
    ]
    first = records.flows.iloc[0]
    assert (first["start_ns"], first["end_ns"]) == (1718000000 * 10**9, 1718000110 * 10**9)
    assert (first["forward_octets"], first["reverse_octets"]) == (3000, 9000)


def test_vpc_version_5_keeps_the_packet_s_own_addresses_beside_the_interface_s():
    records = read("vpc_v5.log")
    assert rows(records, "source_address", "destination_address", "outcome") == [
        ("10.20.1.15", "198.51.100.20", "accepted"),
        ("10.20.9.9", "198.51.100.20", "unanswered"),
        ("198.51.100.99", "10.20.3.3", "reset"),
        ("2001:db8:1::9", "2001:db8:2::1", "denied"),
    ]
    told = records.details.iloc[0]
    assert (told["interface_source_address"], told["interface_destination_address"]) == ("", "10.20.9.9")
    assert list(records.details["flow_direction"]) == ["ingress", "egress", "ingress", "ingress"]
    assert records.details["state"].iloc[3] == "BPA"
    assert list(records.flows["tcp_flags_reverse"]) == [19, 0, 4, 0]


def test_vpc_columns_may_come_from_a_format_string(tmp_path):
    log = tmp_path / "log"
    log.write_text("10.0.0.1 10.0.0.2 4000 80 6 7 700 1718000000 1718000001 REJECT\n")
    layout = "${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} ${start} ${end} ${action}"
    assert rows(read_flow_records([log], layout=layout), "forward_packets", "outcome") == [(7, "denied")]
    with pytest.raises(ValueError, match="without srcaddr"):
        columns_of("${dstaddr} ${start}")
    with pytest.raises(ValueError, match="expected field names"):
        columns_of("${srcaddr} $(reboot)")


def test_a_vpc_header_without_a_needed_field_is_named_with_its_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("version srcaddr dstaddr action\n2 10.0.0.1 10.0.0.2 ACCEPT\n")
    with pytest.raises(InvalidCapture, match=r"log:1: found a format without srcport"):
        read_flow_records([log])


def test_one_flow_seen_by_two_interfaces_is_one_flow_counted_once_and_denied_when_either_denies(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "2 1 eni-a 10.0.0.1 10.0.1.1 4000 443 6 3 180 1718000000 1718000009 ACCEPT OK\n"
        "2 1 eni-b 10.0.0.1 10.0.1.1 4000 443 6 3 180 1718000001 1718000010 REJECT OK\n"
    )
    records = read_flow_records([log])
    assert rows(records, "forward_packets", "outcome") == [(3, "denied")]
    assert records.details["observer"].iloc[0] == "eni-a,eni-b"


@pytest.mark.parametrize("name", ["conn.log", "conn.json"])
def test_zeek_states_become_outcomes_and_histories_flags(name):
    records = read(name)
    assert records.skipped == {"icmp_error": 1, "damaged_line": 1}
    assert rows(records, "protocol", "destination_port", "outcome", "close", "application") == [
        (6, 443, "accepted", "fin_forward", "tls"),
        (6, 8080, "unanswered", "none", "http"),
        (6, 81, "reset", "rst_reverse", ""),
        (17, 53, "accepted", "none", "dns"),
        (1, 0, "accepted", "none", ""),
        (6, 22, "accepted", "rst_reverse", "ssh"),
    ]
    first = records.flows.iloc[0]
    assert (first["start_ns"], first["end_ns"]) == (1718000000_123456000, 1718000001_623456000)
    assert (first["forward_octets"], first["reverse_octets"]) == (1532, 5728)
    assert (first["tcp_flags_forward"], first["tcp_flags_reverse"]) == (0x1B, 0x1B)
    assert list(records.details["state"]) == ["SF", "S0", "REJ", "SF", "OTH", "RSTR"]
    assert records.details["history"].iloc[0] == "ShADadFf"


def test_suricata_flow_events_among_others():
    records = read("eve.json")
    assert records.skipped == {"other_event": 1, "missing_field": 1}
    assert rows(records, "destination_port", "outcome", "close", "end_reason", "application") == [
        (443, "accepted", "fin_forward", "end_of_flow", "tls"),
        (81, "reset", "rst_reverse", "end_of_flow", ""),
        (23, "denied", "none", "idle", ""),
        (53, "unanswered", "none", "idle", "dns"),
    ]
    assert records.flows["start_ns"].iloc[1] == 1718000002 * 10**9
    assert records.flows["destination_address"].iloc[3] == "2001:db8::53"


def test_hubble_packets_become_biflows_whoever_saw_them():
    records = read("hubble.json")
    assert records.skipped == {"application_event": 1, "other_event": 1}
    assert rows(records, "source_port", "forward_packets", "reverse_packets", "outcome", "close") == [
        (41000, 4, 3, "accepted", "fin_forward"),
        (41001, 2, 0, "denied", "none"),
        (50000, 1, 1, "accepted", "none"),
    ]
    assert records.details["state"].iloc[1] == "POLICY_DENIED"
    assert records.details["observer"].iloc[0] == "n0/TO_STACK,n1/TO_ENDPOINT"


def test_flows_may_span_the_files_of_a_rotating_log(tmp_path):
    whole = (EXAMPLES / "vpc_v2.log").read_text().splitlines(keepends=True)
    (tmp_path / "1").write_text("".join(whole[:1]))
    (tmp_path / "2").write_text("".join(whole[1:]))
    together = read_flow_records([tmp_path / "1", tmp_path / "2"])
    assert together.flows.equals(read("vpc_v2.log").flows)


def zstd(data):
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstd], ids=["gzip", "xz", "zstd"])
def test_packed_files_are_read_by_content_and_a_cut_off_tail_is_counted(tmp_path, pack):
    if pack is zstd and shutil.which("zstd") is None:
        pytest.skip("no zstd")
    plain = (EXAMPLES / "conn.log").read_bytes()
    log = tmp_path / "log"
    log.write_bytes(pack(plain))
    assert read_flow_records([log]).flows.equals(read("conn.log").flows)
    last = plain.splitlines(keepends=True)[-2]
    log.write_bytes(pack(plain + last * 60_000)[:-10])
    assert read_flow_records([log]).skipped["truncated_compression"] == 1
    log.write_bytes(pack(plain)[:9])
    with pytest.raises(InvalidCapture):
        read_flow_records([log])


def test_a_line_beyond_measure_is_counted_and_not_kept(tmp_path):
    log = tmp_path / "log"
    whole = (EXAMPLES / "vpc_v2.log").read_bytes()
    log.write_bytes(whole + b"x" * (3 << 20) + b"\n" + whole.splitlines(keepends=True)[0])
    records = read_flow_records([log])
    assert records.skipped["overlong_line"] == 1
    assert records.read == 7


def test_what_is_no_record_file_is_refused_with_the_choices(tmp_path):
    other = tmp_path / "other"
    other.write_text("hello\n")
    with pytest.raises(InvalidCapture, match=r"begins with b'hello.*Zeek conn.log \(zeek\).*VPC Flow Logs \(vpc\)"):
        read_flow_records([other])
    other.write_text("")
    with pytest.raises(InvalidCapture, match="an empty file"):
        read_flow_records([other])
    with pytest.raises(InvalidCapture, match="no such file"):
        read_flow_records([tmp_path / "absent"])
    with pytest.raises(ValueError, match="no record format 'netflow'; have: nfdump, zeek, suricata, hubble, vpc"):
        kind_named("netflow")
    assert set(KINDS) == set(KIND_OF.values()) | {"nfdump"}


def test_text_that_is_kept_is_short_and_printable(tmp_path):
    log = tmp_path / "log"
    line = (
        (EXAMPLES / "eve.json")
        .read_text()
        .splitlines()[1]
        .replace("{", '{"host":"\\u001b[31m\\ud800' + "x" * 400 + '",', 1)
    )
    log.write_text(line + "\n")
    observer = read_flow_records([log]).details["observer"].iloc[0]
    assert len(observer) <= 200
    assert observer.isprintable()
    assert Details().observer == ""
