"""containerlab files as users write them: what becomes of them, what is noted, and what is refused with its line."""

from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from topologies.containerlab.exec import AddAddress, AddRoute, Command, NotDone, Settings, meaning
from topologies.containerlab.file import from_containerlab
from topologies.containerlab.programs import as_one_account
from topologies.frr_addresses import configured_addresses
from topologies.load import KNOWN_KINDS
from topologies.located import InvalidLab
from topologies.write import write_lab

EXAMPLES = Path(__file__).parent / "examples"
CAMPUS = EXAMPLES / "campus" / "campus.clab.yml"
HEAD = "name: x\ntopology:\n  nodes:\n"


@pytest.fixture(scope="module")
def campus():
    return from_containerlab(CAMPUS)


def told(error: InvalidLab) -> list[tuple[int, str]]:
    return [(problem.line, problem.found) for problem in error.problems]


def clab(folder: Path, text: str) -> Path:
    path = folder / "x.clab.yml"
    path.write_text(text)
    return path


def test_every_note_of_the_campus_is_as_written_beside_it(campus):
    notes = "".join(f"{note}\n" for note in campus.notes).replace(f"{CAMPUS.parent}/", "")
    assert notes == (CAMPUS.parent / "expected_notes.txt").read_text()


def test_kinds_come_from_kind_image_and_forwarding(campus):
    kinds = {node.name: node.kind for node in campus.topology.nodes}
    assert kinds == {
        "r1": "router", "r2": "router", "lb": "loadbalancer", "web1": "host", "web2": "host", "gw": "firewall",
        "sw": "bridge", "ovs": "openvswitch", "pc": "host",
    }  # fmt: skip


def test_without_open_vswitch_an_ovs_bridge_is_a_bridge_and_noted():
    made = from_containerlab(CAMPUS, KNOWN_KINDS - {"openvswitch"})
    assert made.topology.node("ovs").kind == "bridge"
    assert any("Open vSwitch" in note.why for note in made.notes)


def test_addresses_come_from_exec_from_long_links_and_from_frr(campus):
    topology = campus.topology
    for address, owner in (
        ("10.20.0.22", "web2"), ("2001:db8:20::22", "web2"), ("10.10.9.5", "pc"), ("2001:db8:9::5", "pc"),
        ("10.0.12.1", "r1"), ("10.255.0.1", "r1"), ("2001:db8:20::1", "r2"), ("10.10.0.2", "gw"),
    ):  # fmt: skip
        assert topology.owner(address).name == owner
    assert topology.owner("10.99.0.1") is None
    assert topology.node("gw").interface("eth1").mac == "02:00:00:aa:00:01"


def test_routes_programs_commands_and_settings(campus):
    web1, web2, gw = (campus.topology.node(name) for name in ("web1", "web2", "gw"))
    assert [(route.to, route.via) for route in web1.routes] == [(ip_network("0.0.0.0/0"), ip_address("10.20.0.1"))]
    assert web1.programs == (("env", "TZ=UTC", "SERVER=one", "nginx", "-g", "daemon off; master_process off;"),)
    assert web2.commands == (("ip", "link", "set", "dev", "eth1", "txqueuelen", "500"),)
    assert gw.routes[0].to == ip_network("10.20.0.0/16")
    assert campus.files["gw", "sysctl.conf"] == b"net.ipv4.ip_forward = 1\n"
    assert campus.files["web2", "sysctl.conf"] == b"net.ipv4.tcp_syncookies = 0\n"


def test_bound_files_go_where_their_device_or_their_path_is(campus):
    root = CAMPUS.parent
    assert campus.files["r1", "frr.conf"] == (root / "frr/r1.conf").read_bytes()
    assert campus.files["r2", "frr.conf"] == (root / "frr/r2/frr.conf").read_bytes()
    assert campus.files["r2", "daemons"] == (root / "frr/daemons").read_bytes()
    assert campus.files["lb", "haproxy.cfg"] == (root / "web/haproxy.cfg").read_bytes()
    assert campus.files["web1", "files/usr/share/nginx/html/index.html"] == b"<h1>campus</h1>\n"


def test_links_have_containerlabs_mtu_unless_they_name_one(campus):
    mtus = {(link.a.node, link.b.node): link.mtu for link in campus.topology.links}
    assert mtus["r1", "r2"] == 1500
    assert mtus["gw", "r1"] == 1400
    assert mtus["web1", "sw"] == 9500


def test_the_campus_is_a_lab_like_any_other(campus, tmp_path):
    lab = write_lab(campus.topology, campus.files, tmp_path / "lab")
    assert lab.name == "campus"
    assert len(lab.topology.nodes) == 9


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        (HEAD + "    a: {kind: nokia_srlinux}\n", 4, "node 'a' of kind 'nokia_srlinux'"),
        (HEAD + "    a: {image: alpine}\n", 4, "node 'a' without a kind"),
        (HEAD + "    a: {kind: linux, binds: [nothing.conf:/etc/x]}\n", 4, "no file"),
        (HEAD + "    a: {kind: linux, binds: [relative:target]}\n", 4, "the bind 'relative:target'"),
        (HEAD + "    a: {kind: linux}\n  links:\n    - endpoints: [a:e1, b:e1]\n", 6, "a link to node 'b'"),
        (HEAD + "    a: {kind: linux}\n  links:\n    - endpoints: [a:e1]\n", 6, "a list"),
        (HEAD + "    a: {kind: linux}\n  links:\n    - endpoints: [a:e1, a:e1]\n", 6, "a second link at 'a:e1'"),
        (HEAD + "    a: {kind: linux}\n  links:\n    - endpoints: [a, a:e1]\n", 6, "the end point 'a'"),
        (HEAD + "    a: {kind: linux}\n  links:\n    - {type: wormhole}\n", 6, "'wormhole'"),
        (HEAD + "    a: {kind: linux}\n  links:\n    - {endpoints: [a:e1, a:e2], mtu: 9}\n", 6, "9"),
        (HEAD + "    a b: {kind: linux}\n", 4, "'a b'"),
        (HEAD + "    a: [1]\n", 4, "a list"),
        ("name: x\n", 1, "no key 'topology'"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, line, found):
    with pytest.raises(InvalidLab) as raised:
        from_containerlab(clab(tmp_path, text))
    assert told(raised.value)[0][0] == line
    assert found in told(raised.value)[0][1]


def test_a_vendor_kind_is_told_with_what_can_be_run(tmp_path):
    with pytest.raises(InvalidLab, match=r"linux \(FRR and HAProxy by their image\), frr, bridge, ovs-bridge"):
        from_containerlab(clab(tmp_path, HEAD + "    a: {kind: ceos}\n"))


def test_merge_keys_and_every_level_of_inheritance(tmp_path):
    text = """name: x
topology:
  defaults: {kind: linux, env: {A: 1, B: 1}, exec: [first]}
  kinds: {linux: {image: redis, cmd: redis-server, env: {B: 2}, exec: [second]}}
  groups: {g: &g {env: {C: 3}, exec: [third]}}
  nodes:
    a: {group: g, exec: [fourth]}
    b: {<<: *g, env: {C: 4}}
"""
    a, b = from_containerlab(clab(tmp_path, text)).topology.nodes
    assert a.commands == (("first",), ("second",), ("third",), ("fourth",))
    assert a.programs == (("env", "A=1", "B=2", "C=3", "redis-server"),)
    assert b.programs == (("env", "A=1", "B=2", "C=4", "redis-server"),)
    assert b.commands == (("first",), ("second",), ("third",))


def test_an_address_of_two_nodes_has_one_owner_and_a_note(tmp_path):
    node = "{kind: linux, exec: [ip addr add 10.0.0.1/24 dev e1]}"
    made = from_containerlab(
        clab(tmp_path, f"{HEAD}    a: {node}\n    b: {node}\n  links:\n    - endpoints: [a:e1, b:e1]\n")
    )
    assert [note.line for note in made.notes if "one owner" in note.why] == [5]
    assert made.topology.node("b").interface("e1").addresses == ()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ip addr add 10.0.0.1/24 dev eth1", AddAddress),
        ("/sbin/ip -6 a add dev eth1 2001:db8::1/64", AddAddress),
        ("ip addr add 10.0.0.1/24 dev eth1 label eth1:0", Command),
        ("ip addr add 10.0.0.999/24 dev eth1", Command),
        ("ip r add default via 10.0.0.1", AddRoute),
        ("ip -6 route add default via 2001:db8::1 dev eth1", AddRoute),
        ("ip route add 10.0.0.1/8 via 10.0.0.1", Command),
        ("ip route add 10.0.0.0/8 via 10.0.0.1 metric 5", Command),
        ("ip route del default via 172.20.20.1", NotDone),
        ("sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1", Settings),
        ("sysctl net.ipv4.ip_forward = 1", Settings),
        ("sysctl -p", Command),
        ("bash -lc 'ip addr'", NotDone),
        ("echo a > /b", NotDone),
        ("python3 -c 'print(1)'", Command),
        ("echo 'unfinished", NotDone),
        ("", NotDone),
    ],
)
def test_what_an_exec_line_means(line, kind):
    assert isinstance(meaning(line), kind)


def test_addresses_of_frr_stand_under_their_interface():
    text = "ip address 9.9.9.9/8\ninterface e1 vrf x\n ip address 10.0.0.1/24\n ip address bad/24\nexit\n"
    text += "router ospf\n ip address 10.9.9.9/24\n!\ninterface lo\n ipv6 address 2001:db8::1/128\n"
    assert [(c.line, c.interface, str(c.address)) for c in configured_addresses(text)] == [
        (3, "e1", "10.0.0.1/24"),
        (10, "lo", "2001:db8::1/128"),
    ]


PIECES = [
    b"name: x", b"topology:", b"  nodes:", b"    a: {kind: linux}", b"  links:", b"  - endpoints: [a:e1, a:e2]",
    b"<<: ", b"&a ", b"*a", b"[", b"]", b"{", b"}", b": ", b"- ", b"  - {type: veth, endpoints: [",
    b"    b: {kind: frr, exec: ['ip addr add 1.1.1.1/8 dev lo']}", b"{node: a, interface: e", b"binds: [':']",
    b"exec: ['sysctl -w net.a=b']", b"  kinds: {linux: {", b"  defaults: {", b"env: [A=b]", b"~", b"1", b"true",
    b"\x00", b"startup-config: ", b"group: g", b"\n", b"\n", b"\n",
]  # fmt: skip
EXEC_WORDS = ["ip", "-6", "addr", "add", "route", "dev", "via", "e1", "1.1.1.1/8", "default", "=", "sysctl", "'", "-w"]


@given(st.one_of(st.binary(max_size=120), st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join)))
@example(b"name: x\ntopology: {nodes: {a: &a {<<: *a}}}")
@example(b"name: x\ntopology: {nodes: {a: {kind: linux, binds: ['/:/:ro', '~nobody-here/x:/y']}}}")
@example(b"name: x\ntopology: {nodes: {a: {kind: linux, binds: ['/dev/zero:/y', '/proc:/z']}}}")
@example(b"name: x\ntopology: {nodes: {a: {kind: frr, startup-config: '/'}}}")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_files_only_give_invalid_lab(tmp_path: Path, raw: bytes):
    path = tmp_path / "x.clab.yml"
    path.write_bytes(raw)
    with suppress(InvalidLab):
        assert from_containerlab(path).topology.nodes


@given(st.text(max_size=60) | st.lists(st.sampled_from(EXEC_WORDS), max_size=8).map(" ".join))
@settings(max_examples=200, deadline=None)
def test_any_exec_line_means_something(line):
    assert isinstance(meaning(line), AddAddress | AddRoute | Command | NotDone | Settings)


def test_servers_that_would_change_their_account_are_started_so_that_they_do_not():
    assert as_one_account(["nginx"]) == ("nginx", "-g", "daemon off; master_process off;")
    assert as_one_account(["/usr/sbin/nginx", "-g", "daemon off;"])[2] == "daemon off; master_process off;"
    assert as_one_account(["dnsmasq", "-k", "-p", "53"]) == ("dnsmasq", "-p", "53", "--no-daemon")
    assert as_one_account(["postgres", "-D", "/data"])[:2] == ("unshare", "--user")
    assert as_one_account(["redis-server"]) == ("redis-server",)
