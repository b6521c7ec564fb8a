"""A router beyond OSPF: BGP, IS-IS and BFD by protocol state, changed live; the `daemons` file as Debian has it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from testbed.devices.frr_daemons import ALWAYS, OPTIONAL, check_daemons, daemons_of
from testbed.devices.frr_state import (
    bfd_lack,
    bgp_lack,
    bgp_readings,
    isis_active,
    isis_neighbours,
    rib_readings,
)
from testbed.devices.ospf_origination import TOLD_SECONDS, untold
from testbed.devices.ospf_state import passive_interfaces
from tests.testbed.labs import files, link, node, on_shadow, soon, topology, with_file

DAEMONS = """# as Debian ships it
bgpd=yes
isisd=yes
bfdd=yes
ospfd=no
vtysh_enable=yes
zebra_options="  -A 127.0.0.1 -s 90000000"
bgpd_options="   -A 127.0.0.1 -e 4"
#MAX_FDS=1024
"""

FRR = """frr defaults traditional
hostname r{n}
service integrated-vtysh-config
!
interface mid
 ip router isis A
 isis network point-to-point
 isis hello-interval 1
 isis hello-multiplier 3
exit
!
interface lan
 ip router isis A
 isis passive
exit
!
router isis A
 net 49.0001.0000.0000.000{n}.00
 is-type level-2-only
 spf-interval 1
exit
!
bfd
 peer 10.0.0.{other}
 exit
 peer 10.0.0.8
  shutdown
 exit
exit
!
router bgp 6500{n}
 bgp router-id 10.255.0.{n}
 no bgp ebgp-requires-policy
 neighbor 10.0.0.{other} remote-as 6500{other}
 neighbor 10.0.0.{other} timers connect 1
 neighbor 10.0.0.9 remote-as 65099
 neighbor 10.0.0.9 shutdown
 address-family ipv4 unicast
  network 10.{n}.0.0/24
 exit-address-family
exit
!
end
"""


def test_bgp_is_is_and_bfd_come_up_change_live_and_are_counted(tmp_path):
    texts = {n: FRR.format(n=n, other=3 - n) for n in (1, 2)}
    routers = [
        node(
            f"r{n}",
            {"mid": [f"10.0.0.{n}/24"], "lan": [f"10.{n}.0.1/24"]},
            "router",
            configs=files(tmp_path, f"r{n}", {"frr.conf": text, "daemons": DAEMONS}),
        )
        for n, text in texts.items()
    ]
    lab = topology(
        [*routers, node("h1", {"eth0": ["10.1.0.2/24"]}), node("h2", {"eth0": ["10.2.0.2/24"]})],
        [link("r1:mid", "r2:mid"), link("r1:lan", "h1:eth0"), link("r2:lan", "h2:eth0")],
    )

    def job(shadow):
        def told():
            return {
                (r.kind, r.object, r.metric): r.state or r.value
                for r in shadow.readings()["r1"]
                if r.kind in ("neighbour", "rib")
            }

        first, before = told(), shadow.configs["r2"]
        quiet = (
            texts[2]
            .replace("  network 10.2.0.0/24\n", "")
            .replace(" isis passive\n", " isis passive\n isis metric 50\n")
        )
        shadow.reconfigure("r2", with_file(shadow, "r2", "frr.conf", quiet))
        shadow.wait_ready(10, lambda reason: None)
        soon(lambda: told()["rib", "ipv4", "hash"] != first["rib", "ipv4", "hash"])
        changed = told()
        shadow.reconfigure("r2", before)
        shadow.wait_ready(10, lambda reason: None)
        same = soon(lambda: told() == first, 15)
        argv = [line for line in shadow.boxes["r1"].run(["ps", "-eo", "args"]).splitlines() if "/bgpd" in line]
        shadow.boxes["r2"].process("bgpd").kill()
        shadow.boxes["r2"].process("bgpd").wait()
        dead = shadow.device("r2").ready(shadow.boxes["r2"], before)
        return first, changed, same, told if not same else None, argv, dead, list(shadow.readings()["r2"])

    def run(shadow):
        first, changed, same, _, argv, dead, rest = job(shadow)
        return first, changed, same, argv, dead, len(rest)

    first, changed, same, argv, dead, rest = on_shadow(lab, tmp_path, run)
    assert first["neighbour", "bgp 10.0.0.2", "state"] == "Established"
    assert first["neighbour", "bgp 10.0.0.9", "state"] == "Idle (Admin)"
    assert first["neighbour", "bgp 10.0.0.2 ipv4Unicast", "prefixes_received"] == 1
    assert first["neighbour", "bfd 10.0.0.2", "state"] == "up"
    assert first["neighbour", "bfd 10.0.0.8", "state"] == "shutdown"
    assert first["neighbour", "isis mid", "state"] == "1 of 1 neighbours up"
    assert first["rib", "ipv4 bgp", "routes"] == 1
    assert ("rib", "ipv4 bgp", "routes") not in changed
    assert changed["neighbour", "bgp 10.0.0.2 ipv4Unicast", "prefixes_received"] == 0
    assert changed["rib", "ipv4", "hash"] != first["rib", "ipv4", "hash"]
    assert same
    assert any(line.endswith("bgpd -A 127.0.0.1 -e 4") for line in argv)
    assert not dead.ready
    assert "bgpd ended by itself" in dead.waiting_for
    assert rest > 10


def test_the_daemons_file_is_honoured_or_refused_by_name():
    found = daemons_of({"daemons": DAEMONS.encode()})
    assert found.asked == ("bgpd", "isisd", "bfdd")
    assert found.argv("bgpd") == ["-A", "127.0.0.1", "-e", "4"]
    assert found.argv("zebra") == ["-A", "127.0.0.1", "-s", "90000000"]
    assert check_daemons({"daemons": DAEMONS.encode()}) == []
    text = b"ospfd=yes\nospfd_instances=1,2\nzebra_options=' --daemon -N here'\nbgpd_wrap=valgrind\n"
    text += b"frr_profile=datacenter\n"
    assert [(c.line, c.message.split()[0]) for c in check_daemons({"daemons": text})] == [
        (2, "ospfd_instances"),
        (3, "zebra_options:"),
        (4, "bgpd_wrap"),
    ]
    assert daemons_of({"daemons": text}).argv("ospfd") == ["-F", "datacenter", "-A", "127.0.0.1"]
    assert "--daemon" not in daemons_of({"daemons": text}).argv("zebra")


def test_without_a_daemons_file_frr_conf_says_what_runs():
    assert daemons_of({"frr.conf": FRR.format(n=1, other=2).encode()}).asked == ("bgpd", "isisd", "bfdd")
    assert daemons_of({"frr.conf": b"router ospf\nrouter ospf6\n"}).asked == ("ospfd", "ospf6d")
    assert daemons_of({}).asked == ()


@given(
    st.binary(max_size=120)
    | st.lists(st.sampled_from([b"bgpd=yes", b"_options=", b"'", b'"', b"\n", b"x"])).map(b"".join)
)
def test_any_daemons_file_is_read_without_a_fall(text):
    found = daemons_of({"daemons": text, "frr.conf": text})
    assert set(found.asked) <= set(OPTIONAL)
    assert set(found.options) <= {*ALWAYS, *OPTIONAL}
    assert all(1 <= (c.line or 0) <= text.count(b"\n") + 1 for c in check_daemons({"daemons": text}))
    passive_interfaces(text.decode(errors="replace"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["peers", "circuits", "interface", "default", "bgpState", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(VALUES, VALUES)
def test_answers_of_any_shape_are_read_without_a_fall(one, other):
    assert isinstance(bgp_lack(one, other), str)
    assert isinstance(bfd_lack(one), str)
    bgp_readings(one)
    isis_neighbours(one)
    isis_active(one)
    assert rib_readings("ipv4", one)[-1].metric == "hash"


def test_a_peer_counts_once_its_first_routes_are_through():
    up = {"default": {"ipv4Unicast": {"peers": {"10.0.0.2": {"state": "Established"}}}}}
    facts = {
        "bgpState": "Established",
        "neighborCapabilities": {
            "gracefulRestart": "advertisedAndReceived",
            "multiprotocolExtensions": {"ipv4Unicast": {"advertisedAndReceived": True}},
        },
        "gracefulRestartInfo": {"endOfRibRecv": {}, "endOfRibSend": {"ipv4Unicast": True}},
    }
    assert bgp_lack(up, {"default": {"10.0.0.2": facts}}) == "BGP peer 10.0.0.2 to send its first routes (ipv4Unicast)"
    facts["gracefulRestartInfo"]["endOfRibRecv"] = {"ipv4Unicast": True}
    assert bgp_lack(up, {"default": {"10.0.0.2": facts}}) == ""
    idle = {"default": {"ipv4Unicast": {"peers": {"10.0.0.2": {"state": "Active"}}}}}
    assert bgp_lack(idle, {}) == "BGP peer 10.0.0.2 (Active)"


def full(router_id: str, seconds: float, state: str = "Full/-", unsent: int = 0):
    entry = {
        "nbrState": state,
        "upTimeInMsec": int(seconds * 1000),
        "ifaceName": "ens3:10.0.0.1",
        "linkStateRetransmissionListCounter": unsent,
    }
    return {"neighbors": {router_id: [entry]}}


def own_lsa(*links: dict[str, str]):
    described = {f"link{n}": link for n, link in enumerate(links)}
    return {"Router Link States": {"0.0.0.0": {"1.1.1.1": {"numOfLinks": len(links), "routerLinks": described}}}}


POINT = {"linkType": "another Router (point-to-point)", "neighborRouterId": "2.2.2.2"}
TRANSIT = {"linkType": "a Transit Network", "designatedRouterAddress": "10.0.0.2"}
STUB = {"linkType": "Stub Network", "networkAddress": "10.0.0.0"}


def test_a_full_neighbour_that_the_network_was_not_told_of_is_waited_for():
    assert "2.2.2.2 on ens3" in untold("", full("2.2.2.2", 1), own_lsa(STUB))
    assert untold("", full("2.2.2.2", 1), own_lsa(STUB, POINT)) == ""
    assert "shared" in untold("", full("2.2.2.2", 1, "Full/DR"), own_lsa(STUB))
    assert untold("", full("2.2.2.2", 1, "Full/DR"), own_lsa(TRANSIT)) == ""
    assert "3 LSAs" in untold("", full("2.2.2.2", 1, unsent=3), own_lsa(POINT))


def test_no_router_is_waited_for_when_it_has_had_the_time_to_be_told_of():
    assert untold("", full("2.2.2.2", TOLD_SECONDS + 1), own_lsa(STUB)) == ""
    assert untold("", {}, {}) == ""


def test_ospfv3_tells_its_neighbours_in_its_own_words():
    neighbours = {
        "neighbors": [
            {
                "neighborId": "2.2.2.2",
                "state": "Full",
                "interfaceState": "PointToPoint",
                "interfaceName": "ens3",
                "duration": "00:00:02",
            }
        ]
    }
    lsa = {"lsaDescription": [{"type": "Point-To-Point", "neighborRouterId": "2.2.2.2"}]}
    assert "2.2.2.2" in untold("6", neighbours, {"areaScopedLinkStateDb": []})
    assert untold("6", neighbours, {"areaScopedLinkStateDb": [{"lsa": [lsa]}]}) == ""


ANSWERS = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(ANSWERS)
def test_whatever_frr_says_of_its_neighbours_is_survived(answer):
    for version in ("", "6"):
        assert isinstance(untold(version, answer, answer), str)


ROW = 3


def test_ready_means_that_the_ends_of_a_row_of_ospf_routers_reach_each_other_at_once(tmp_path):
    def conf(n: int) -> str:
        ports = [name for name, there in (("before", n > 0), ("after", n < ROW)) if there]
        lines = [f"hostname r{n}", "service integrated-vtysh-config", "interface lo", " ip ospf area 0"]
        for port in ports:
            lines += [f"interface {port}", " ip ospf area 0", " ip ospf network point-to-point"]
            lines += [" ip ospf hello-interval 1", " ip ospf dead-interval 4"]
        return "\n".join([*lines, "router ospf", f" ospf router-id 10.255.0.{n + 1}", ""])

    nodes, links = [], []
    for n in range(ROW + 1):
        interfaces = {"lo": [f"10.255.0.{n + 1}/32"]}
        if n:
            interfaces["before"] = [f"10.0.{n - 1}.2/30"]
            links.append(link(f"r{n - 1}:after", f"r{n}:before"))
        if n < ROW:
            interfaces["after"] = [f"10.0.{n}.1/30"]
        nodes.append(node(f"r{n}", interfaces, "router", configs=files(tmp_path, f"r{n}", {"frr.conf": conf(n)})))

    def job(shadow):
        return shadow.boxes["r0"].run(["ping", "-c1", "-W1", "-I", "10.255.0.1", f"10.255.0.{ROW + 1}"])

    assert "1 received" in on_shadow(topology(nodes, links), tmp_path, job)
