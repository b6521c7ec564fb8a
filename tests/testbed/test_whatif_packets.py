"""Packet mode and background load in a what-if: which flows go which way, and a change that stops an odd protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from replay.effort import Effort
from replay.instrument import Instrument
from testbed.background import InvalidLoad
from testbed.beside import Part, joined
from testbed.beside_load import unreached
from testbed.devices.registry import known_devices
from testbed.packet_flows import Manner, Mode
from testbed.prepare import Case, prepared
from testbed.whatif import EXIT_CODES
from tests.replay.packet_captures import ESP, GRE, TCP, capture, esp, gre, ip4, tcp
from tests.testbed.quick_lab import RULES, quick_lab
from topologies.load import load_lab

CLIENT, SERVER = "198.51.100.200", "10.1.0.11"
LETS = "-A FORWARD -p esp -j ACCEPT\n-A FORWARD -p gre -j ACCEPT\n-A FORWARD -p tcp -m tcp --dport 5201 -j ACCEPT\n"


@pytest.fixture
def lab(tmp_path) -> Path:
    """The quick lab with ESP both ways and GRE one way beside its UDP, and a change that stops ESP."""
    folder = quick_lab(tmp_path / "quick")
    packets = []
    for n in range(50):
        packets += [
            (20_000 * n, ip4(CLIENT, SERVER, ESP, esp(n))),
            (20_000 * n + 1_500, ip4(SERVER, CLIENT, ESP, esp(5_000 + n))),
            (20_000 * n + 2_500, ip4(CLIENT, SERVER, GRE, gre(n))),
        ]
    capture(folder / "traffic" / "odd.pcap", packets)
    rules = RULES.format(more=LETS)
    (folder / "configs/fw1/iptables.rules").write_text(rules)
    stopped = rules.replace("-A FORWARD -p esp -j ACCEPT\n", "-A FORWARD -p esp -j DROP\n")
    (folder / "changes/drop/configs/fw1/iptables.rules").write_text(stopped)
    return folder


def case_of(folder: Path, **manner) -> Case:
    return prepared(load_lab(folder), folder / "changes" / "drop", known_devices(), manner=Manner(**manner))


def test_session_mode_is_as_it_was(lab):
    case = case_of(lab)
    assert case.packets is None
    assert len(case.schedule.scripts) == len(case.flows) == 20


def test_auto_sends_as_packets_what_no_socket_can_replay_on_the_same_clock(lab):
    case = case_of(lab, mode=Mode.AUTO)
    assert len(case.schedule.scripts) == 20
    sent = case.packets.flows
    assert sorted(sent["protocol"]) == [GRE, ESP]
    assert set(sent["flow_id"]) <= set(case.flows["flow_id"])
    assert len(case.packets) == 150
    speed = case.schedule.speed
    assert np.diff(case.packets.offset_ns[case.packets.flow == 0])[0] == pytest.approx(1_500_000 / speed, abs=2)
    assert case.duration_ns >= case.packets.duration_ns


def test_malformed_packets_are_flows_of_their_own_and_garbage_is_left_out_with_its_reason(lab):
    strange = tcp((1, 2), 7, 0, 0x03)
    packets = [(7, ip4("203.0.113.99", SERVER, TCP, strange)), (9, ip4(CLIENT, SERVER, TCP, strange))]
    capture(lab / "traffic" / "strange.pcap", packets)
    case = case_of(lab, mode=Mode.AUTO)
    assert (case.flows["application"] == "malformed").sum() == 1
    assert (case.flows["protocol"] == TCP).sum() == 1, "the meter's flow of the same packet is there too"
    ((_, reason),) = [(flow, said) for flow, said in case.placed.left_out.items() if "malformed" in said]
    assert "203.0.113.99" in reason


def test_packet_mode_sends_everything_and_plays_nothing(lab):
    case = case_of(lab, mode=Mode.PACKET)
    assert case.schedule.scripts == ()
    assert len(case.packets.flows) == len(case.flows) == 22


def test_a_bare_rate_goes_from_the_edge_to_the_busiest_server(lab):
    (load,) = case_of(lab, background=("5M",)).background
    assert (load.source, load.target, load.rate_bps) == ("outside", "web1", 5_000_000)
    assert load.speaks_as.startswith("198.51.100.")
    assert load.speaks_to == SERVER


def test_two_loads_to_one_node_have_ports_of_their_own(lab):
    loads = case_of(lab, background=("1M", "outside>web1:2M")).background
    assert [load.port for load in loads] == [5201, 5202]


@pytest.mark.parametrize("written", ["nobody>web1:5M", "outside>sw1:5M", "web1>web1:5M", "5"])
def test_a_load_between_nodes_that_are_not_is_refused(lab, written):
    with pytest.raises(InvalidLoad, match="expected SOURCE>TARGET:RATE"):
        case_of(lab, background=(written,))


def told(reason: str = "") -> Instrument:
    return Instrument(10.0, 20.0, 5, 5, 0, realtime=False, valid=not reason, reason=reason, effort=Effort())


def test_a_window_of_packets_alone_is_a_window():
    whole = joined(told("no flow was attempted"), [Part(offered=10, sent=10, lateness_us=[1.0, 900.0])])
    assert (whole.valid, whole.reason) == (True, "")
    assert (whole.offered, whole.sent, whole.lateness_max_us) == (15, 15, 900.0)


def test_a_part_that_was_not_as_planned_makes_its_window_invalid():
    whole = joined(
        told("the taps dropped 3 packets"), [Part(offered=10, sent=2, reason="8 of 10 packets could not be sent")]
    )
    assert not whole.valid
    assert whole.reason == "the taps dropped 3 packets; 8 of 10 packets could not be sent"
    assert not joined(told("no flow was attempted"), [Part()]).valid


def test_what_was_not_reached_is_told_by_window():
    entry = {"window": 4, "role": "treatment", "load": "5 Mbit/s", "arrived_bps": 2_100_000.0, "error": ""}
    record = {"background": {"windows": [{**entry, "reached": False}, {**entry, "reached": True}]}}
    assert unreached(record) == ["treatment window 4: 5 Mbit/s was not reached: 2.1 Mbit/s arrived"]
    assert unreached({}) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed")
def test_a_change_that_stops_esp_fails_with_its_line_and_the_load_is_recorded(lab):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / "drop")),
            *("--mode", "auto", "--background", "2M", "--runs", str(lab / "runs"), "--json"),
            *("--baseline", "2", "--treatment", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in EXIT_CODES.values(), done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["verdict"] == "FAIL", verdict["reason"]
    (blame,) = [finding["blame"] for finding in verdict["findings"] if finding["verdict"] == "FAIL"]
    assert (blame["node"], blame["text"]) == ("fw1", "-A FORWARD -p esp -j DROP")
    record = json.loads(next((lab / "runs").glob("*quick*/run.json")).read_text())
    assert all(window["reached"] for window in record["background"]["windows"])
    treatment = [window for window in record["packet_mode"]["windows"] if window["role"] == "treatment"]
    assert treatment[0]["not_arrived"]["lost on the way"] == 50
    assert sum(treatment[0]["not_arrived"].values()) == 100
