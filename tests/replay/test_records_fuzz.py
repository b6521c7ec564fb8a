"""Hostile bytes for every reader: no crash, bounded time, and every line either used or counted."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replay.errors import InvalidCapture
from replay.records import KINDS, read_flow_records
from replay.records.fields import DamagedRecord, address, seconds_ns, stamp_ns, whole

EXAMPLES = Path(__file__).parent / "records"
TEXT_KINDS = [name for name in KINDS if name != "nfdump"]
SEEDS = [path.read_bytes() for path in sorted(EXAMPLES.iterdir())]
WORDS = [
    b"-", b"", b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999999", b"18446744073709551615", b"null", b"[]",
    b"{}", b'"x"', b"\xff\xfe", b"\x00", b"\xd9\xa1", b"1718000000.1.2", b"::1%eth0", b"true", b"\\ud800", b"\t", b" ",
    b"[" * 3000, b"9" * 5000, b"\r",
]  # fmt: skip


def read(data, kind=None):
    with tempfile.NamedTemporaryFile(prefix="records-") as file:
        file.write(data)
        file.flush()
        return read_flow_records([Path(file.name)], kind=kind)


@settings(max_examples=150, deadline=2000)
@given(st.binary(max_size=400), st.sampled_from(TEXT_KINDS))
def test_any_bytes_are_read_or_refused(data, kind):
    try:
        records = read(data, kind)
    except InvalidCapture:
        return
    assert records.read + sum(records.skipped.values()) <= data.count(b"\n") + 2


@settings(max_examples=250, deadline=2000)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 12), st.sampled_from(WORDS)), max_size=5),
)
def test_real_shaped_files_with_damage_are_read_or_refused(seed, damage):
    data = seed
    for at, length, word in damage:
        place = at % len(data)
        data = data[:place] + word + data[place + length :]
    try:
        records = read(data)
    except InvalidCapture:
        return
    assert (records.flows[["forward_packets", "forward_octets", "start_ns"]] >= 0).all(axis=None)
    assert (records.flows["end_ns"] >= records.flows["start_ns"]).all()
    for table in (records.flows, records.details):
        table.to_parquet(io.BytesIO())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["TCP", "10.0.0.1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["flow", "tcp", "type"]), inner),
    max_leaves=6,
)


@settings(max_examples=250, deadline=2000)
@given(st.data(), st.sampled_from(["conn.json", "eve.json", "hubble.json"]))
def test_json_of_the_wrong_kind_anywhere_is_counted(data, name):
    lines = [line for line in (EXAMPLES / name).read_text().splitlines() if line.endswith("}")]
    document = json.loads(data.draw(st.sampled_from(lines)))
    inside = document
    while True:
        key = data.draw(st.sampled_from(sorted(inside)))
        if not (isinstance(inside[key], dict) and inside[key] and data.draw(st.booleans())):
            break
        inside = inside[key]
    inside[key] = data.draw(VALUES)
    kind = {"conn.json": "zeek", "eve.json": "suricata", "hubble.json": "hubble"}[name]
    records = read(json.dumps(document).encode(), kind)
    assert records.read + sum(records.skipped.values()) == 1


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([whole, seconds_ns, stamp_ns, address]),
    VALUES | st.text(alphabet="0123456789.:-TZ+e_", max_size=40),
)
@example(seconds_ns, "1718000000.9999999999")
@example(stamp_ns, "0001-01-01T00:00:00+14:00")
@example(stamp_ns, "9999-12-31T23:59:59.9-14:00")
def test_a_field_is_a_value_in_its_range_or_damage(parse, written):
    try:
        value = parse(written)
    except DamagedRecord:
        return
    assert isinstance(value, str) if parse is address else 0 <= value < 1 << 63


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2024-06-10T06:13:20Z", 1718000000_000000000),
        ("2024-06-10T06:13:20.123456789Z", 1718000000_123456789),
        ("2024-06-10T08:13:20.5+0200", 1718000000_500000000),
        ("2024-06-10T06:13:20.099", 1718000000_099000000),
    ],
)
def test_stamps_keep_their_nanoseconds(stamp, expected):
    assert stamp_ns(stamp) == expected
