"""Mininet files as users write them, read by a real child process with the real Mininet."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.located import InvalidLab
from topologies.mininet import child
from topologies.mininet.links import end_options, impairment
from topologies.mininet.topo import from_mininet, split_arguments
from topologies.model import Impairment
from topologies.write import write_lab

SITES = Path(__file__).parent / "examples" / "two_sites.py"
TOPO = "from mininet.topo import Topo\nclass T(Topo):\n    def build(self, **k):\n"


@pytest.fixture(scope="module")
def sites():
    return from_mininet(f"{SITES}:sites,2,delay=7ms")


def file(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


def test_every_note_of_the_two_sites_is_as_written_beside_it(sites):
    notes = "".join(f"{note}\n" for note in sites.notes).replace(f"{SITES.parent}/", "")
    assert notes == (SITES.parent / "two_sites_notes.txt").read_text()


def test_a_router_class_becomes_a_forwarding_node_with_its_addresses(sites):
    router = sites.topology.node("r0")
    assert router.kind == "firewall"
    assert [(i.name, [str(a) for a in i.addresses]) for i in router.interfaces] == [
        ("r0-eth1", ["192.168.1.1/24"]),
        ("r0-eth2", ["172.16.0.1/12"]),
    ]


def test_hosts_have_address_mac_and_default_route(sites):
    server = sites.topology.node("server")
    assert server.interfaces[0].mac == "00:00:00:00:00:aa"
    assert [str(route.via) for route in server.routes] == ["172.16.0.1"]
    assert sites.topology.owner("192.168.1.101").name == "h2"


def test_link_options_hold_for_both_directions(sites):
    link = sites.topology.link_between("s2", "r0")
    wanted = Impairment(
        rate_bps=10_000_000, delay_ns=7_000_000, pdv_ns=1_000_000, loss_ratio=0.005, queue_octets=150_000
    )
    assert link.a.egress == link.b.egress == wanted


def test_it_is_a_lab_like_any_other(sites, tmp_path):
    assert len(write_lab(sites.topology, sites.files, tmp_path / "lab").topology.nodes) == 6


def test_mininets_own_names_and_numbers():
    tree = from_mininet("mininet:tree,depth=2,fanout=3").topology
    assert [node.name for node in tree.nodes if node.kind == "host"] == [f"h{i}" for i in range(1, 10)]
    assert tree.owner("10.0.0.9").name == "h9"
    assert str(tree.node("h9").interfaces[0].addresses[0]) == "10.0.0.9/8"
    assert tree.node("s1").interfaces[0].name == "s1-eth1"
    assert not any(node.stp for node in tree.nodes)
    assert len(from_mininet("mininet:linear,4").topology.nodes) == 8


def test_a_loop_of_switches_gets_a_spanning_tree_and_a_note():
    torus = from_mininet("mininet:torus,3,3")
    assert all(node.stp for node in torus.topology.nodes if node.kind == "bridge")
    assert any("spanning tree" in note.why for note in torus.notes)


@pytest.mark.parametrize(
    ("text", "asked", "line", "found"),
    [
        ("def f(:\n", "", 1, "SyntaxError"),
        ("x = 1\n\nimport nowhere_at_all\n", "", 3, "ModuleNotFoundError"),
        (TOPO + "        self.addHost('a')\n        1 / 0\n", "", 5, "ZeroDivisionError"),
        (TOPO + "        pass\n", "", 2, "a Topo without nodes"),
        ("x = 1\n", "", 1, "no Topo"),
        ("raise SystemExit(3)\n", "", 1, "SystemExit: 3"),
        ("import os\nos._exit(7)\n", "", 1, "status 7"),
        (TOPO + "        self.addHost('a')\n", ":Other", 1, "no topology 'Other'"),
        ("topos = {'a': dict}\n", ":a", 1, "an object of class dict"),
        (
            TOPO + "        self.addHost('a', ip='10.0.0.300')\n        self.addLink('a', self.addSwitch('s1'))\n",
            "",
            1,
            "ip",
        ),
        (TOPO + "        self.addHost('a', mac='x')\n        self.addLink('a', self.addSwitch('s1'))\n", "", 1, "mac"),
        (TOPO + "        self.addLink(self.addHost('a'), self.addSwitch('s1'), loss=200)\n", "", 2, "loss=200"),
        (TOPO + "        self.addLink(self.addHost('a'), self.addSwitch('s1'), delay='soon')\n", "", 2, "delay='soon'"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(tmp_path, text, asked, line, found):
    with pytest.raises(InvalidLab) as raised:
        from_mininet(file(tmp_path, text) + asked)
    assert raised.value.line == line
    assert found in raised.value.found


def test_a_file_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "SECONDS", 0.5)
    text = "import subprocess, time, pathlib\nchild = subprocess.Popen(['sleep', '60'])\n"
    text += f"pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(child.pid))\ntime.sleep(60)\n"
    with pytest.raises(InvalidLab, match=r"runs for more than 0\.5 s"):
        from_mininet(file(tmp_path, text))
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(InvalidLab, match="no such file"):
        from_mininet("nowhere/x.py:y")


def test_arguments_are_read_as_mininet_reads_them():
    assert split_arguments("tree,depth=2,3,1.5,x,k=v=w") == ("tree", [3, 1.5, "x"], {"depth": 2, "k": "v=w"})


def test_options_of_one_end_win():
    options = {"bw": 5, "params1": {"bw": 1, "ip": "10.0.0.1/8"}, "intfName2": "x", "addr1": "m"}
    assert end_options(options, 1)[0] == {"bw": 1, "ip": "10.0.0.1/8", "addr": "m"}
    assert end_options(options, 2)[0] == {"bw": 5, "intfName": "x"}


VALUES = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=10), st.booleans(), st.lists(st.integers()))


@given(st.dictionaries(st.sampled_from(["bw", "delay", "jitter", "loss", "max_queue_size"]), VALUES))
@settings(max_examples=200, deadline=None)
def test_any_option_is_a_limit_or_refused(options):
    with suppress(ValueError):
        limits = impairment(options)
        assert 0 <= limits.loss_ratio <= 1
        assert limits.delay_ns >= 0
