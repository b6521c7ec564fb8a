"""A folder that is being written into gives every packet once, in order, whatever the writer does with its files."""

from __future__ import annotations

import gzip
import random
from itertools import pairwise

import pytest
from scapy.all import IP, UDP, Ether, Raw

from replay.errors import InvalidCapture
from replay.packets import follow
from tests.replay.capture_files import MACS, START_S, enhanced, interface, pcap, section

FRAME = bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=9) / Raw(b"x" * 90))


def records(numbers):
    """The records of a pcap, one a second by number."""
    return pcap([(n, FRAME) for n in numbers])[24:]


class Writer:
    """A spool's writer: does one step whenever the reader pauses, and has ended after the last."""

    def __init__(self, folder, *steps):
        self.folder, self.steps, self.paused = folder, list(steps), []

    def pause(self, seconds):
        self.paused.append(seconds)
        self.steps.pop(0)()

    def ended(self):
        return not self.steps

    def append(self, name, octets):
        with (self.folder / name).open("ab") as file:
            file.write(octets)

    def followed(self, **options):
        stream = follow(self.folder, self.ended, pause=self.pause, interval_s=0.25, **options)
        chunks = list(stream)
        seen = [int(ns // 10**9) - START_S for chunk in chunks for ns in chunk.time_ns]
        return seen, stream


def test_files_that_grow_and_rotate_are_read_in_order_and_once(tmp_path):
    rng, content = random.Random(3), pcap([])
    writer = Writer(tmp_path)
    for number in range(4):
        file = content + records(range(number * 50, number * 50 + 50))
        cuts = [0, *sorted(rng.sample(range(len(file)), 7)), len(file)]
        for begin, end in pairwise(cuts):
            writer.steps.append(lambda name=f"{number}.pcap", octets=file[begin:end]: writer.append(name, octets))
    seen, stream = writer.followed(chunk_octets=1000)
    assert seen == list(range(200))
    assert not stream.skipped
    assert stream.late == 0
    assert writer.paused == [0.25] * 32


def test_blocks_that_grow_are_read_on_with_their_interfaces(tmp_path):
    content = section() + interface() + b"".join(enhanced(0, (START_S + n) * 10**6, FRAME) for n in range(30))
    writer = Writer(tmp_path)
    for begin in range(0, len(content), 333):
        writer.steps.append(lambda octets=content[begin : begin + 333]: writer.append("a", octets))
    assert writer.followed()[0] == list(range(30))


def test_a_rotated_file_that_is_packed_or_renamed_is_not_read_again_but_read_on(tmp_path):
    plain, packed, moved = tmp_path / "a.pcap", tmp_path / "a.pcap.gz", tmp_path / "b.old"

    def pack():
        packed.write_bytes(gzip.compress(plain.read_bytes() + records(range(10, 20))))
        plain.unlink()

    writer = Writer(
        tmp_path,
        lambda: writer.append("a.pcap", pcap([]) + records(range(10))),
        pack,
        lambda: writer.append("b.pcap", pcap([]) + records(range(20, 25))),
        lambda: (tmp_path / "b.pcap").rename(moved),
        lambda: writer.append("b.old", records(range(25, 30))),
    )
    seen, stream = writer.followed()
    assert seen == list(range(30))
    assert not stream.skipped


def test_a_file_that_is_written_anew_under_its_name_is_another_one(tmp_path):
    writer = Writer(
        tmp_path,
        lambda: writer.append("ring0", pcap([]) + records(range(10))),
        lambda: writer.append("ring1", pcap([]) + records(range(10, 20))),
        lambda: (tmp_path / "ring0").write_bytes(pcap([]) + records(range(20, 23))),
        lambda: writer.append("ring0", records(range(23, 40))),
    )
    assert writer.followed()[0] == list(range(40))


def test_two_writers_at_once_are_merged_by_time(tmp_path):
    for name, parity in (("even", 0), ("odd", 1)):
        (tmp_path / name).write_bytes(pcap([]) + records(range(parity, 100, 2)))
    writer = Writer(
        tmp_path,
        lambda: writer.append("even", records(range(100, 200, 2))),
        lambda: writer.append("odd", records(range(101, 200, 2))),
    )
    seen, stream = writer.followed(chunk_octets=500)
    assert seen == list(range(200))
    assert stream.late == 0


def test_what_is_no_capture_vanishes_or_is_cut_off_is_counted(tmp_path):
    (tmp_path / "notes.txt").write_text("no capture")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    writer = Writer(
        tmp_path,
        lambda: writer.append("a", pcap([]) + records(range(10))[:-3]),
        (tmp_path / "empty").unlink,
    )
    seen, stream = writer.followed()
    assert seen == list(range(9))
    assert stream.skipped == {"other_file": 1, "vanished_file": 1, "truncated_record": 1}


def test_a_reader_that_waits_in_vain_hands_on_what_it_held_back(tmp_path):
    (tmp_path / "a").write_bytes(pcap([]) + records(range(5)))
    handed_on = []
    rounds = iter(range(3))

    def ended():
        handed_on.append(sum(len(chunk) for chunk in chunks))
        return next(rounds) == 2

    chunks = []
    chunks.extend(follow(tmp_path, ended, pause=lambda _: None))
    assert handed_on == [0, 5, 5]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidCapture, match="a folder of captures"):
        list(follow(tmp_path / "absent", lambda: True))
