"""Graphs of places become routed labs: GraphML, topohub names, their demands as a capture."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from replay.meter import read_traffic
from topologies.graphml import distance_km, from_graphml
from topologies.located import InvalidLab
from topologies.names import free_name, valid_name
from topologies.offered_load import SECONDS, TOTAL_BPS
from topologies.routed import HOSTS_EVERYWHERE_UP_TO, Graph, Place, Wire, routed_lab
from topologies.topohub_names import from_topohub
from topologies.write import write_lab

ALPS = Path(__file__).parent / "examples" / "alps.graphml"
OPEN = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'


def graphml(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.graphml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_note_of_the_alps_is_as_written_beside_it():
    notes = "".join(f"{note}\n" for note in from_graphml(ALPS).notes).replace(f"{ALPS.parent}/", "")
    assert notes == (ALPS.parent / "alps_notes.txt").read_text()


def test_distance_becomes_delay_and_speed_becomes_rate():
    links = from_graphml(ALPS).topology.links
    first = links[0].a.egress
    assert first.rate_bps == 1_000_000_000
    assert first.delay_ns == pytest.approx(242e3 * 5, rel=0.01)
    assert [link.a.egress.delay_ns for link in links[1:3]] == [491_000, 491_000]
    assert links[4].a.egress.delay_ns == 0


def test_parallel_edges_are_two_links_and_a_loop_is_none():
    topology = from_graphml(ALPS).topology
    between = [link for link in topology.links if {link.a.node, link.b.node} == {"Muenchen", "Innsbruck-West"}]
    assert len(between) == 2
    assert all(link.a.node != link.b.node for link in topology.links)


def test_germany50_is_a_lab_with_a_router_and_a_host_for_each_place(tmp_path):
    made = from_topohub("topohub:sndlib/germany50")
    lab = write_lab(made.topology, made.files, tmp_path / "lab", made.captures)
    kinds = [node.kind for node in lab.topology.nodes]
    assert (kinds.count("router"), kinds.count("host"), len(lab.topology.links)) == (50, 50, 88 + 50)
    conf = lab.topology.node("Muenchen").configs["frr.conf"].read_text()
    assert "point-to-point" in conf
    assert "hello-interval" not in conf
    assert {node for node, _ in made.files} == set(made.positions)


def test_demands_come_back_from_the_meter_in_proportion(tmp_path):
    made = from_topohub("topohub:sndlib/polska")
    (path,) = [tmp_path / name for name in made.captures]
    path.write_bytes(made.captures[path.name])
    metered = read_traffic([path])
    flows = metered.flows
    assert not metered.skipped
    assert len(flows) == 66
    assert set(flows["outcome"]) == {"accepted"}
    assert flows["forward_octets"].sum() * 8 / SECONDS == pytest.approx(TOTAL_BPS, rel=1e-4)
    assert (flows["forward_packets"] == flows["reverse_packets"]).all()
    largest, least = flows["forward_octets"].max(), flows["forward_octets"].min()
    assert largest / least == pytest.approx(198 / 100, rel=0.01)
    owners = {made.topology.owner(address).kind for address in flows["source_address"]}
    assert owners == {"host"}
    assert np.all(flows["end_ns"] - flows["start_ns"] < SECONDS * 10**9)


def test_options_of_a_name_are_strict():
    bare = from_topohub("topohub:sndlib/polska?delay=off&hosts=off")
    assert all(link.a.egress.delay_ns == 0 for link in bare.topology.links)
    assert {node.kind for node in bare.topology.nodes} == {"router"}
    assert not bare.captures
    for asked in ("delay=no", "dely=off", "delay=off&delay=on", "load=4", "load=", "delay", "&"):
        with pytest.raises(InvalidLab):
            from_topohub(f"topohub:sndlib/polska?{asked}")


@pytest.mark.parametrize(
    "name", ["sndlib/germany51", "nowhere/x", "", "../../setup", "sndlib/../sndlib/polska", "a b", "/"]
)
def test_an_unknown_name_is_told_with_choices(name):
    with pytest.raises(InvalidLab, match=r"one of|GROUP/NAME"):
        from_topohub(f"topohub:{name}")


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=80))
@settings(max_examples=40, deadline=None)
def test_no_address_is_given_twice_and_every_wire_has_a_network_of_its_own(count, pairs):
    wires = [Wire(a % count, b % count) for a, b in pairs]
    topology = routed_lab(Graph("g", Path("g"), [Place("same")] * count, wires)).lab.topology
    addresses = [address.ip for node in topology.nodes for i in node.interfaces for address in i.addresses]
    assert len(addresses) == len(set(addresses))
    for link in topology.links:
        ends = [topology.node(end.node).interface(end.interface).addresses[0] for end in (link.a, link.b)]
        assert ends[0].network == ends[1].network
    names = [node.name for node in topology.nodes]
    assert len(names) == len(set(names))


def test_thousands_of_places_have_room():
    count = 5_000
    graph = Graph(
        "g", Path("g"), [Place(f"p{i}") for i in range(count)], [Wire(i, i + 1, 1.0) for i in range(count - 1)]
    )
    made = routed_lab(graph)
    assert len(made.lab.topology.nodes) == count
    assert any(f"above {HOSTS_EVERYWHERE_UP_TO}" in note.why for note in made.lab.notes)


def test_what_no_path_joins_is_noted():
    graph = Graph("g", Path("g"), [Place("a"), Place("b"), Place("c")], [Wire(0, 1)], {(0, 2): 1, (0, 0): 1, (0, 1): 2})
    made = routed_lab(graph)
    assert made.demands == {(0, 1): 2}
    assert {"routers of different parts do not reach each other", "no path joins them; left out"} <= {
        note.why for note in made.lab.notes
    }


def test_opposite_edges_of_a_directed_graph_are_one_wire(tmp_path):
    graph = nx.MultiDiGraph([("a", "b"), ("b", "a"), ("a", "b"), ("b", "a"), ("b", "c")])
    path = tmp_path / "d.graphml"
    nx.write_graphml(graph, path)
    wires, to_hosts = 3, 3
    assert len(from_graphml(path).topology.links) == wires + to_hosts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<!DOCTYPE g [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + OPEN + "</graphml>", "document type"),
        ('<!DOCTYPE g SYSTEM "file:///etc/passwd">' + OPEN + "</graphml>", "document type"),
        (OPEN + "<graph>" * 40 + "</graph>" * 40 + "</graphml>", "second <graph>"),
        (OPEN + "<a>" * 40 + "</a>" * 40 + "</graphml>", "level 33"),
        (OPEN + '<graph><node id="a"/><node id="a"/></graph></graphml>', "a second time"),
        (OPEN + '<graph><node id="a"/><edge source="a" target="b"/></graph></graphml>', "an edge to node 'b'"),
        (OPEN + '<graph><node id="a"/><edge source="a"/></graph></graphml>', "an edge without 'target'"),
        (OPEN + "<graph/></graphml>", "0 places"),
        (OPEN + "</graphml>", "cannot be read"),
        (OPEN + '<graph><node id="a"><data key="k">1</data></node></graph></graphml>', "cannot be read"),
        ("<html/>", "<html>"),
        ("", "no element found"),
        ("<a", "unclosed"),
    ],
)
def test_hostile_or_broken_graphml_is_refused(tmp_path, text, found):
    with pytest.raises(InvalidLab, match="found .*" + found):
        from_graphml(graphml(tmp_path, text))


def test_numbers_that_are_none_are_told_with_their_line(tmp_path):
    text = ALPS.read_text()
    for before, after, found in (
        ("48.13743", "148.1", "Latitude 148.1"),
        ("1000000000.0", "-1", "LinkSpeedRaw -1"),
        ("48.13743", "nan", "Latitude"),
    ):
        with pytest.raises(InvalidLab, match=found) as raised:
            from_graphml(graphml(tmp_path, text.replace(before, after)))
        assert raised.value.line > 10


WHOLE = ALPS.read_bytes()


@given(st.binary(max_size=100), st.integers(0, len(WHOLE)), st.integers(0, 60))
@example(b"", 0, 0)
@example(b"\xff\xfe", 0, 0)
@example(b'<?xml version="1.0" encoding="utf-7"?>', 0, 39)
@example(b"NaN", 1300, 8)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_only_give_invalid_lab(tmp_path, put_in, at, left_out):
    path = graphml(tmp_path, WHOLE[:at] + put_in + WHOLE[at + left_out :])
    with suppress(InvalidLab):
        assert from_graphml(path).topology.nodes


def test_distance_of_known_towns():
    assert distance_km((13.405, 52.52), (11.576, 48.137)) == pytest.approx(504, rel=0.01)
    assert distance_km(None, (0.0, 0.0)) is None


@given(st.lists(st.text(max_size=70), max_size=20))
@settings(max_examples=100, deadline=None)
def test_names_are_valid_and_differ(texts):
    taken: set[str] = set()
    for text in texts:
        taken.add(free_name(text, taken, "node"))
    assert len(taken) == len(texts)
    assert all(valid_name(name, "x") == name or name.endswith(("-", ".", "_")) for name in taken)


def test_names_of_places_are_spelt_out():
    assert [valid_name(t, "x") for t in ("Zürich HB", "São Paulo", "Łódź", "東京", "St. Gallen/Süd")] == [
        "Zuerich-HB", "Sao-Paulo", "Lodz", "x", "St.-Gallen-Sued",
    ]  # fmt: skip


def test_flows_of_one_source_have_ports_of_their_own(tmp_path):
    made = from_topohub("topohub:sndlib/polska")
    path = tmp_path / "d.pcap"
    path.write_bytes(made.captures["demands.pcap"])
    flows = read_traffic([path]).flows.sort_values("source_port")
    assert all(a < b for a, b in pairwise(flows["source_port"]))


def test_flows_do_not_send_in_step(tmp_path):
    made = from_topohub("topohub:sndlib/polska")
    path = tmp_path / "d.pcap"
    path.write_bytes(made.captures["demands.pcap"])
    first = np.sort(read_traffic([path]).flows["start_ns"].to_numpy())
    assert np.diff(first).max() < 20_000_000
    assert np.histogram(first, bins=10)[0].min() >= 1
