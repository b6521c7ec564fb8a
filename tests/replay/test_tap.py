"""Taps against the kernel's own stamps and drop counters."""

import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from replay.packets import read_packets
from replay.schedule import TCP, UDP
from replay.session import Listener, Player
from replay.tap import Tap, TapFailed, Tapped, Taps
from tests.replay.netns import Net, apart, routed
from tests.replay.scripts import FORWARD, REVERSE, plan, script

Column = np.ndarray


def _window(net: Net, folder: Path, *, octets: int) -> tuple[Tapped, dict[str, dict[str, Column]]]:
    flows = [script("big", ("10.0.0.2", 8080), (FORWARD, 0, b"all"), (REVERSE, 1, b"z" * octets))]
    flows += [
        script(
            f"u{n}",
            ("10.0.0.2", 53),
            (FORWARD, 0, b"q%d" % n),
            (REVERSE, 0, b"a"),
            protocol=UDP,
            source=("198.51.100.1", 5_000 + n),
            start_ms=40 + n,
        )
        for n in range(20)
    ]
    nodes = ("client", "server")
    with (
        Player(plan(*flows), net.fds, [Listener("server", TCP, 8080), Listener("server", UDP, 53)]) as player,
        Taps([Tap(node, net.fds[node], "eth0") for node in nodes]) as taps,
    ):
        taps.start_window()
        player.play(0).wait(20)
        tapped = taps.end_window({node: folder / f"{node}.pcap" for node in nodes})
    columns = {}
    for node, path in tapped.paths.items():
        packets, _ = read_packets([path])
        names = ("time_ns", "protocol", "source_port", "destination_port", "payload_octets")
        columns[node] = {name: np.asarray(getattr(packets, name)).astype(np.int64) for name in names}
    return tapped, columns


def test_both_ends_stamp_the_same_packet_in_order_in_nanoseconds() -> None:
    def body(net: Net) -> tuple[list[int], int, int]:
        routed(net)
        with tempfile.TemporaryDirectory() as folder:
            tapped, seen = _window(net, Path(folder), octets=100)
        stamps = {}
        for node, columns in seen.items():
            query = (columns["protocol"] == UDP) & (columns["destination_port"] == 53)
            stamps[node] = dict(
                zip(columns["source_port"][query].tolist(), columns["time_ns"][query].tolist(), strict=True)
            )
        delays = [stamps["server"][port] - left for port, left in stamps["client"].items()]
        odd = sum(1 for at in stamps["client"].values() if at % 1_000)
        return delays, odd, tapped.dropped

    delays, odd, dropped = apart(body)
    assert len(delays) == 20
    assert all(delay > 0 for delay in delays)
    assert sorted(delays)[10] < 1_000_000
    assert odd > 10, "stamps are whole microseconds"
    assert dropped == 0


def test_a_super_frame_cut_by_the_snap_length_counts_fully() -> None:
    def body(net: Net) -> tuple[int, int, int, int]:
        routed(net)
        with tempfile.TemporaryDirectory() as folder:
            tapped, seen = _window(net, Path(folder), octets=2_000_000)
            size = tapped.paths["server"].stat().st_size
        columns = seen["server"]
        back = (columns["protocol"] == TCP) & (columns["source_port"] == 8080)
        octets = columns["payload_octets"][back]
        return int(octets.sum()), int(octets.max()), size, tapped.dropped

    octets, largest, size, dropped = apart(body)
    assert octets >= 2_000_000
    assert largest > 1_500
    assert size < 500_000
    assert dropped == 0


def test_each_window_has_its_own_packets_and_loopback_none() -> None:
    def body(net: Net) -> list[int]:
        routed(net)
        counts = []
        with tempfile.TemporaryDirectory() as folder, Taps([Tap("client", net.fds["client"])]) as taps:
            net.enter("client")
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own.bind(("127.0.0.1", 7_777))
            for window in range(3):
                sender.sendto(b"before", ("10.0.0.2", 9))
                own.sendto(b"loopback", ("127.0.0.1", 7_777))
                time.sleep(0.02)
                taps.start_window()
                for _ in range(window + 1):
                    sender.sendto(b"during", ("10.0.0.2", 9))
                    own.sendto(b"loopback", ("127.0.0.1", 7_777))
                tapped = taps.end_window({"client": Path(folder, f"{window}.pcap")})
                packets, _ = read_packets([tapped.paths["client"]])
                counts.append(int(np.sum((packets.protocol == UDP) & (packets.destination_port == 9))))
        return counts

    assert apart(body) == [1, 2, 3]


def test_a_full_ring_tells_how_much_it_lost() -> None:
    def body(net: Net) -> tuple[int, int]:
        routed(net)
        with (
            tempfile.TemporaryDirectory() as folder,
            Taps([Tap("client", net.fds["client"])], blocks=2, block_octets=4_096) as taps,
        ):
            net.enter("client")
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender.sendto(b"who has", ("10.0.0.2", 9))
            time.sleep(0.05)
            taps.start_window()
            for _ in range(3_000):
                sender.sendto(b"flood", ("10.0.0.2", 9))
            tapped = taps.end_window({"client": Path(folder, "x.pcap")})
            packets, _ = read_packets([tapped.paths["client"]])
        sent = int(np.sum((packets.protocol == UDP) & (packets.destination_port == 9)))
        return sent, tapped.dropped

    seen, dropped = apart(body)
    assert dropped > 0
    assert seen + dropped >= 3_000


def test_a_tap_on_an_interface_that_is_not_there_is_named() -> None:
    def body(net: Net) -> str:
        net.node("client")
        with pytest.raises(TapFailed) as refused, Taps([Tap("client", net.fds["client"], "eth9")]):
            pass
        return str(refused.value)

    assert "client:eth9" in apart(body)
