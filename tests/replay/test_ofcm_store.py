"""A saved model is the model again; a damaged or foreign file is refused with its place and crashes nothing."""

from __future__ import annotations

import os
from ipaddress import ip_network

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.ofcm import Grouping, Zone, decayed, model_of
from replay.ofcm.errors import InvalidModel
from replay.ofcm.store import load, save
from replay.ofcm.yaml_file import MOST_CELLS
from tests.replay.ofcm_flows import FLOWS, flow, table

ZONES = (Zone("no", (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))), Zone("1e3", (ip_network("0.0.0.0/8"),)))
SUFFIXES = ["yaml", "parquet"]
HURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture(scope="module")
def small():
    return model_of(table(flow("10.0.0.1", times=3, connect_ns=5e6, label="shop"), flow("2001:db8::1", port=22)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=6, **HURRIED)
@given(flows=FLOWS, keep=st.sampled_from([1.0, 0.3]))
def test_a_saved_model_is_the_model_again(suffix, tmp_path, flows, keep):
    model = decayed(model_of(flows, Grouping(zones=ZONES, most_sources=3, grain_ipv6=64)), keep)
    path = tmp_path / f"model.{suffix}"
    save(model, path)
    assert load(path) == model
    first = path.read_bytes()
    save(load(path), path)
    assert path.read_bytes() == first
    assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208  the name of what is left over


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_model_can_be_saved(suffix, tmp_path):
    empty = model_of(table(flow("10.0.0.1")).iloc[:0])
    save(empty, tmp_path / f"model.{suffix}")
    assert load(tmp_path / f"model.{suffix}") == empty


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("ofcm: 1", "ofcm: 2", 2, "schema 2"),
        ("ofcm: 1", "lab: 1", 2, "no key 'ofcm'"),
        ("most_ports: 32", "most_ports: 0", 4, "most_ports is 0"),
        ("most_ports: 32", "most_ports: many", 7, "'many'"),
        ("most_ports: 32", "most_porst: 32", 7, "unknown key 'most_porst'"),
        ("disposition: accepted, flows: 3", "disposition: denied, flows: 3", 13, "edited by hand"),
        ("- [10.0.0.1,", "- [10.0.0.300,", 17, "the address '10.0.0.300'"),
        ("- [10.0.0.1,", "- [2001:DB8::1,", 17, "2001:db8::1"),
        ("- [10.0.0.1,", "- [3000::1,", 17, "out of order"),
        ('443, "", shop', '443000, "", shop', 17, "a port that cannot be"),
        ('"", 3, 0, 0, 0', '"", nan, 0, 0, 0', 17, "no number"),
        ('"", 3, 0, 0, 0', '"", -3, 0, 0, 0', 17, "negative"),
        ('"", 3, 0, 0, 0', '"", 3, 0, 0', 17, "values"),
    ],
)
def test_a_damaged_yaml_is_refused_at_its_line(small, tmp_path, old, new, line, said):
    path = tmp_path / "model.yaml"
    save(small, path)
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidModel, match=said) as refused:
        load(path)
    assert refused.value.line == line, str(refused.value)
    assert str(path) in str(refused.value)


def test_foreign_files_are_refused(small, tmp_path):
    foreign = tmp_path / "flows.parquet"
    table(flow("10.0.0.1")).to_parquet(foreign)
    with pytest.raises(InvalidModel, match="Parquet of something else"):
        load(foreign)
    for name, content in {
        "empty": b"",
        "zip": b"PK\x03\x04\xff",
        "text": b"just words",
        "pcap": b"\xd4\xc3\xb2\xa1",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidModel):
            load(tmp_path / name)
    with pytest.raises(InvalidModel, match="No such file"):
        load(tmp_path / "absent")
    with pytest.raises(ValueError, match="expected one that ends with"):
        save(small, tmp_path / "model.json")


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=15, **HURRIED)
@given(data=st.data())
def test_bytes_changed_anywhere_are_a_model_or_refused(suffix, small, tmp_path, data):
    path = tmp_path / f"model.{suffix}"
    save(small, path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    try:
        model = load(path)
    except InvalidModel:
        return
    assert model.flows > 0


def test_a_column_name_that_is_no_text_is_refused(small, tmp_path):
    path = tmp_path / "model.parquet"
    save(small, path)
    path.write_bytes(path.read_bytes().replace(b"forward_packets", b"forward_\xe1ackets"))
    with pytest.raises(InvalidModel, match="damaged Parquet"):
        load(path)


def test_a_model_no_person_reads_is_not_written_as_yaml(tmp_path):
    flows = table(flow("10.0.0.1"))
    flows = pd.concat([flows] * (MOST_CELLS + 1), ignore_index=True)
    flows["source_address"] = [f"10.0.{place >> 8}.{place & 255}" for place in range(len(flows))]
    with pytest.raises(ValueError, match=r"use \.parquet"):
        save(model_of(flows), tmp_path / "model.yaml")
    assert not list(tmp_path.iterdir())
    save(model_of(flows), tmp_path / "model.parquet")
