"""Both numberings give the same numbers, ends, words and order, before and after tuples are forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.compiled import SWITCH, CompiledNumbering, compiled, numbering
from replay.tuples import Numbered, end_points
from tests.replay.packet_columns import TRAFFIC, packets_of


def told(way, packets):
    numbers, ends = way.numbered(packets)
    return numbers.tolist(), ends.tolist(), way.words().tolist(), way.by_number(numbers).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(TRAFFIC, min_size=1, max_size=4), st.integers(0, 2**20))
def test_compiled_code_numbers_as_the_dictionary_does(chunks, mask):
    library = compiled()
    if library is None:
        pytest.skip("no C compiler")
    ways = Numbered(), CompiledNumbering(library)
    for rows in chunks:
        packets = packets_of(rows)
        one, other = (told(way, packets) for way in ways)
        assert one == other
        kept = np.array([at for at in range(ways[0].count()) if mask >> at & 1], np.int64)
        for way in ways:
            way.keep(kept)
        assert ways[0].words().tolist() == ways[1].words().tolist()
        assert ways[0].count() == ways[1].count() == len(kept)


def test_a_table_grows_with_its_tuples():
    library = compiled()
    if library is None:
        pytest.skip("no C compiler")
    one, other = Numbered(), CompiledNumbering(library)
    random = np.random.default_rng(1)
    for _ in range(3):
        ends = Random(random, 5000)
        numbers, sources = one.numbered(ends)
        again, same = other.numbered(ends)
        assert np.array_equal(numbers, again)
        assert np.array_equal(sources, same)
    assert np.array_equal(one.words(), other.words())


class Random:
    def __init__(self, random, count):
        self.source_address, self.destination_address = random.integers(0, 3, (2, count, 16), dtype=np.uint8)
        self.source_port, self.destination_port = random.integers(0, 65536, (2, count), dtype=np.uint16)
        self.protocol, self.version = np.full(count, 6, np.uint8), np.full(count, 4, np.uint8)


def test_end_points_are_what_was_packed():
    ends = Random(np.random.default_rng(2), 50)
    way = Numbered()
    numbers, source = way.numbered(ends)
    points = end_points(way.words()[numbers])
    place = np.arange(50)
    assert np.array_equal(points.address[place, source], ends.source_address)
    assert np.array_equal(points.port[place, 1 - source], ends.destination_port)
    assert set(points.protocol.tolist()) == {6}


def test_compiled_code_can_be_left_out_and_needs_a_folder_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.setenv(SWITCH, "0")
    compiled.cache_clear()
    assert isinstance(numbering(), Numbered)
    monkeypatch.delenv(SWITCH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "shadow-testbed"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    compiled.cache_clear()
    assert isinstance(numbering(), Numbered)
    compiled.cache_clear()
