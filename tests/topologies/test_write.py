"""A topology written as a lab folder loads as the same topology."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.load import load_lab
from topologies.model import Impairment, Interface, Link, LinkEnd, Node, Route, Service, Topology
from topologies.write import lab_text, writable, write_lab

SHOP = Path(__file__).parents[2] / "topologies" / "shop"
NAMES = st.one_of(
    st.sampled_from(["yes", "null", "1e3", "0x1f", "on", "1.5", "r1", "007", "12:30", "a.b-c_d", "Inf", "0o7"]).filter(
        lambda name: ":" not in name
    ),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
)
PORTS = st.one_of(
    st.sampled_from(
        ["ens3", "Gi0/1", "xe-0/0/1.100", "<<", "true", "ä#:{", '"', "'q'", "\\n", "*x", "&y", "- z"]
    ).filter(lambda name: " " not in name),
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20),
)
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
ARGVS = st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=2)
SERVICES = st.builds(Service, st.sampled_from(["tcp", "udp"]), st.integers(1, 65535))
RATIOS = st.floats(0, 1, exclude_max=True, allow_subnormal=False).filter(lambda ratio: ratio == 0 or ratio > 1e-15)
LIMITS = st.builds(
    Impairment,
    rate_bps=st.none() | st.integers(1, 2**62),
    delay_ns=st.integers(0, 2**62),
    pdv_ns=st.integers(0, 10**12),
    loss_ratio=RATIOS | st.just(1.0),
    duplicate_ratio=RATIOS,
    reorder_ratio=RATIOS,
    corrupt_ratio=RATIOS,
    queue_octets=st.none() | st.integers(1, 2**62),
)


@st.composite
def topologies(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    nodes, ports, number = [], [], 0
    for name in names:
        interfaces = []
        for port in draw(st.lists(PORTS, max_size=3, unique=True)):
            number += 1
            addresses = draw(
                st.sampled_from([(), (f"10.0.{number}.1/24",), (f"10.0.{number}.1/24", f"2001:db8:{number}::1/64")])
            )
            mac = draw(st.none() | st.just("02:00:00:00:00:0a"))
            vlan, trunk = (
                draw(st.none() | st.integers(1, 4094)),
                tuple(draw(st.lists(st.integers(1, 4094), max_size=2))),
            )
            vrf = draw(st.sampled_from([None, "vrf-of-its-own"]))
            interfaces.append(Interface(port, tuple(map(ip_interface, addresses)), mac, vlan, trunk, vrf))
            ports.append((name, port))
        routes = tuple(
            Route(ip_network("0.0.0.0/0"), ip_address(str(address.ip + 1)))
            for interface in interfaces
            for address in interface.addresses[:1]
        )
        node = Node(
            name,
            draw(st.sampled_from(["host", "router", "edge", "bridge"])),
            tuple(interfaces),
            routes,
            prefixes=(ip_network(f"198.51.{len(nodes)}.0/24"),),
            listen=tuple(draw(st.lists(SERVICES, max_size=2, unique=True))),
            programs=tuple(map(tuple, draw(ARGVS))),
            commands=tuple(map(tuple, draw(ARGVS))),
            stp=draw(st.booleans()),
        )
        nodes.append(node)
    links = []
    while len(ports) >= 2 and draw(st.booleans()):
        a, b = ports.pop(), ports.pop()
        both = draw(LIMITS)
        back = draw(st.just(both) | LIMITS)
        links.append(Link(LinkEnd(*a, both), LinkEnd(*b, back), draw(st.integers(68, 65535))))
    return Topology(draw(NAMES), tuple(nodes), tuple(links))


@given(topologies(), st.binary(max_size=50))
@settings(max_examples=50, deadline=None)
def test_what_is_written_loads_as_the_same(topology, content):
    with TemporaryDirectory() as folder:
        first = topology.nodes[0].name
        files = {(first, "sysctl.conf"): content, (first, "files/etc/a b"): b"x"}
        lab = write_lab(topology, files, Path(folder) / "lab")
        bare = replace(lab.topology, nodes=tuple(replace(node, configs={}) for node in lab.topology.nodes))
        assert bare == topology
        assert {name: path.read_bytes() for name, path in lab.topology.node(first).configs.items()} == {
            name: octets for (_, name), octets in files.items()
        }


def test_the_shop_survives_being_written(tmp_path):
    shop = load_lab(SHOP).topology
    files = {(node.name, name): path.read_bytes() for node in shop.nodes for name, path in node.configs.items()}
    lab = write_lab(shop, files, tmp_path / "shop", {"a.pcap": b""})
    assert lab_text(lab.topology) == lab_text(shop)
    assert [path.name for path in lab.captures] == ["a.pcap"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_lab(Topology("x", (Node("a", "host"),), ()), {}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "files/../../x", ".hidden", "files/root/.ssh/key", "a//b", "a\0"]
)
def test_a_file_that_the_loader_would_pass_over_is_refused(tmp_path, name):
    assert not writable(name)
    with pytest.raises(ValueError, match="cannot be named"):
        write_lab(Topology("x", (Node("a", "host"),), ()), {("a", name): b""}, tmp_path / "lab")
    assert not (tmp_path / "lab").exists()
