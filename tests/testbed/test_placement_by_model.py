"""An end point that no node owns is placed with its like, only when asked, and it is told."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.ofcm import Grouping, Ofcm, Zone, model_of
from replay.ofcm.store import save
from testbed.devices.registry import known_devices
from testbed.errors import InvalidInput
from testbed.placement_by_model import placed_by_model
from testbed.prepare import prepared
from tests.testbed.labs import link, node, topology
from tests.testbed.preflight_lab import ALLOWED, HEAD, gate_lab
from topologies.load import Lab, load_lab

MODEL = Path("week.parquet")
EAST, WEST = "198.51.100.0/24", "192.0.2.0/24"


def lab(*edges: str) -> Lab:
    """Hosts behind a firewall, and an edge a prefix."""
    nodes = [node(f"edge{n}", {"eth0": [f"10.9.{n}.1/24"]}, "edge", prefixes=[p]) for n, p in enumerate(edges)]
    nodes.append(node("web", {"eth0": ["10.0.0.2/24"]}))
    nodes.append(node("db", {"eth0": ["10.0.8.2/24"]}))
    net = topology(nodes, [link("web:eth0", "db:eth0")])
    return Lab(name="tiny", folder=Path("/nowhere"), topology=net, captures=(), policy=None)


def flows(*ways: tuple[str, str, str]) -> pd.DataFrame:
    """Source, destination and outcome."""
    rows = [
        {
            "start_ns": 10**18 + n,
            "end_ns": 10**18 + n + 1,
            "protocol": 6,
            "source_address": source,
            "destination_address": target,
            "destination_port": 443,
            "forward_packets": 1,
            "reverse_packets": 1,
            "forward_octets": 60,
            "reverse_octets": 60,
            "outcome": outcome,
        }
        for n, (source, target, outcome) in enumerate(ways)
    ]
    return pd.DataFrame(rows)


def homes(made: Lab) -> dict[str, str]:
    return {str(p): n.name for n in made.topology.nodes for p in n.prefixes if p.num_addresses == 1}


def placed(where: Lab, seen: pd.DataFrame, model: Ofcm) -> tuple[dict[str, str], list[str]]:
    made, notes = placed_by_model(where, seen, model, MODEL)
    return homes(made), [str(note) for note in notes]


def test_an_address_of_a_zone_goes_to_the_edge_that_stands_for_it():
    known = flows((EAST.replace("0/24", "7"), "10.0.0.2", "accepted"))
    zones = (Zone("partners", (ip_network("192.0.2.0/24"), ip_network("100.64.0.0/16"))),)
    seen = flows(("192.0.2.9", "10.0.0.2", "accepted"), ("198.51.100.3", "10.0.0.2", "accepted"))
    found, notes = placed(lab(EAST, "192.0.2.0/25"), seen, model_of(known, Grouping(zones)))
    assert found == {}
    seen = flows(("192.0.2.200", "10.0.0.2", "accepted"))
    found, notes = placed(lab(EAST, "192.0.2.0/25"), seen, model_of(known, Grouping(zones)))
    assert found == {"192.0.2.200/32": "edge1"}
    assert notes == ["week.parquet:1: 192.0.2.200 is placed on edge1: most of zone partners 192.0.2.0/24 lives there"]


def test_the_longest_class_with_neighbours_decides():
    known = flows(
        *((f"10.0.0.{n}", "10.0.8.2", "accepted") for n in (2, 3, 5)),
        *((f"10.0.8.{n}", "198.51.100.1", "accepted") for n in (2, 3)),
    )
    found, _ = placed(lab(EAST, WEST), flows(("10.0.0.3", "10.0.8.3", "accepted")), model_of(known))
    assert found == {"10.0.0.3/32": "web", "10.0.8.3/32": "db"}


def test_a_stranger_goes_to_the_only_edge_and_nowhere_when_there_are_two():
    known, seen = flows(("10.0.0.2", "10.0.8.2", "accepted")), flows(("8.8.8.8", "10.0.0.2", "accepted"))
    found, notes = placed(lab(EAST), seen, model_of(known))
    assert found == {"8.8.8.8/32": "edge0"}
    assert "one edge alone" in notes[0]
    assert placed(lab(EAST, WEST), seen, model_of(known)) == ({}, [])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.ip_addresses().map(str), min_size=1, max_size=6))
def test_whatever_is_placed_is_owned_by_an_end_point_and_told(texts):
    seen = flows(*((text, "10.0.0.2", "accepted") for text in texts))
    made, notes = placed_by_model(lab(EAST), seen, model_of(seen), MODEL)
    assert len(homes(made)) == len(notes)
    for text, name in homes(made).items():
        owner = made.topology.owner(text.split("/")[0])
        assert owner is not None
        assert owner.name == name


def test_a_what_if_takes_it_when_asked_and_refuses_the_address_otherwise(tmp_path):
    rules = HEAD + "# reviewed\n" + ALLOWED + "COMMIT\n"
    folder = gate_lab(tmp_path, {"same": {"iptables.rules": rules}})
    text = (folder / "lab.yaml").read_text()
    (folder / "lab.yaml").write_text(text.replace("198.51.100.0/24, ", "203.0.113.0/24, "))
    devices, known = known_devices(), flows(("203.0.113.4", "10.0.1.11", "accepted"))
    where = load_lab(folder, frozenset(devices))
    with pytest.raises(InvalidInput, match=r"198\.51\.100\.7"):
        prepared(where, folder / "changes" / "same", devices)
    zone = Zone("customers", (ip_network("203.0.113.0/24"), ip_network("198.51.100.0/24")))
    save(model_of(known, Grouping((zone,))), tmp_path / "model.yaml")
    case = prepared(where, folder / "changes" / "same", devices, model=tmp_path / "model.yaml")
    assert case.lab.topology.owner("198.51.100.7").name == "outside"
    assert [note.what for note in case.notes] == ["198.51.100.7 is placed on outside"]
    assert len(case.schedule.scripts) == len(case.flows)
    (tmp_path / "broken.yaml").write_text("zones: [")
    with pytest.raises(InvalidInput, match=r"broken\.yaml"):
        prepared(where, folder / "changes" / "same", devices, model=tmp_path / "broken.yaml")
