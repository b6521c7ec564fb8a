"""KPIs of a capture point: exact times out of packets written by hand, and the shop's capture."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest

from replay.kpis import KPI_COLUMNS
from replay.meter import read_traffic
from replay.point_kpis import point_kpis
from tests.replay.capture_files import pcap

SHOP = Path(__file__).resolve().parents[2] / "topologies" / "shop" / "traffic" / "internet.pcap"
CLIENT, SERVER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04
FIRST = {0: 1000, 1: 5000}


class Line:
    """One TCP flow packet by packet: (second, from the server, flags, octets, sequence offset)."""

    def __init__(self):
        self.frames = []
        self.said = {0: 0, 1: 0}

    def packet(self, second, side, flags, octets=0, again=0):
        at = FIRST[side] + (0 if flags & SYN else 1 + self.said[side] - again)
        ports = (40000, 443) if side == 0 else (443, 40000)
        tcp = struct.pack(">HHIIBBHHH", *ports, at, 1, 5 << 4, flags, 65535, 0, 0) + b"x" * octets
        source, target = (CLIENT, SERVER) if side == 0 else (SERVER, CLIENT)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, source, target)
        self.frames.append((second, b"\2" * 12 + b"\x08\0" + ip + tcp))
        if not again:
            self.said[side] += octets
        return self

    def opened(self):
        return self.packet(0, 0, SYN).packet(0.01, 1, SYN | ACK).packet(0.02, 0, ACK)

    def kpis(self, folder):
        path = folder / "line.pcap"
        path.write_bytes(pcap(self.frames, nanoseconds=True))
        table = point_kpis(read_traffic([path]))
        assert tuple(table.columns) == KPI_COLUMNS
        assert len(table) == 1
        return table.iloc[0]


def test_delays_are_those_of_the_packets(tmp_path):
    line = Line().opened().packet(0.1, 0, ACK, 100).packet(0.13, 1, ACK, 300)
    line.packet(0.2, 0, ACK, 50).packet(0.25, 1, ACK, 10).packet(0.3, 0, ACK, 50).packet(0.37, 1, ACK, 10)
    flow = line.packet(0.4, 0, FIN | ACK).packet(0.41, 1, FIN | ACK).kpis(tmp_path)
    assert flow["connect_ns"] == 10_000_000
    assert flow["first_response_ns"] == 30_000_000
    assert flow["response_ns"] == 50_000_000
    assert flow["duration_ns"] == 370_000_000
    assert flow["delivered_octets"] == 520
    assert (flow["error"], flow["completed"], flow["role"]) == ("none", True, "production")
    for name in ("one_way_delay_forward_ns", "one_way_delay_reverse_ns", "pdv_ns", "lateness_ns"):
        assert math.isnan(flow[name])


def test_goodput_is_of_an_answer_that_is_large_enough(tmp_path):
    line = Line().opened().packet(0.1, 0, ACK, 100)
    for number in range(50):
        line.packet(0.15 + number * 0.001, 1, ACK, 1000)
    assert line.kpis(tmp_path)["goodput_bps"] == pytest.approx(50_000 * 8 / 0.099)


def test_what_is_sent_again_is_counted_and_not_delivered_twice(tmp_path):
    line = Line().opened().packet(0.1, 0, ACK, 100).packet(0.3, 0, ACK, 100, again=100).packet(0.31, 1, ACK, 100)
    flow = line.kpis(tmp_path)
    assert flow["retransmits"] == 1
    assert flow["loss_ratio"] == pytest.approx(1 / 3)
    assert flow["delivered_octets"] == 200


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (Line().packet(0, 0, SYN).packet(1, 0, SYN), "timeout"),
        (Line().packet(0, 0, SYN).packet(0.01, 1, RST | ACK), "refused"),
        (Line().opened().packet(0.1, 0, ACK, 100).packet(0.2, 1, RST | ACK), "reset"),
        (Line().opened().packet(0.1, 0, ACK, 100).packet(0.2, 1, FIN | ACK), "truncated"),
        (Line().opened().packet(0.1, 1, ACK, 9).packet(0.2, 0, ACK, 9).packet(0.3, 1, FIN | ACK), "none"),
    ],
)
def test_errors_by_kind(tmp_path, line, error):
    flow = line.kpis(tmp_path)
    assert (flow["error"], flow["completed"]) == (error, error == "none")


def test_an_answer_that_never_came_is_infinite(tmp_path):
    flow = Line().opened().packet(0.1, 0, ACK, 100).packet(0.2, 1, RST | ACK).kpis(tmp_path)
    assert math.isinf(flow["first_response_ns"])


def test_the_shop_as_its_edge_saw_it():
    metered = read_traffic([SHOP])
    table = point_kpis(metered)
    assert table["flow_id"].tolist() == metered.flows["flow_id"].tolist()
    assert table["error"].value_counts().to_dict() == {"none": 307, "refused": 8, "timeout": 6}
    accepted = (metered.flows["outcome"] == "accepted").to_numpy()
    assert np.isfinite(table["first_response_ns"][accepted]).all()
    tcp = (metered.flows["protocol"] == 6).to_numpy()
    assert np.isfinite(table["connect_ns"][accepted & tcp]).all()
