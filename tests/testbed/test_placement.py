"""Which node plays which end: pure decisions on flow tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.session import Listener
from testbed.errors import InvalidInput
from testbed.placement import listeners, node_of, place, translations
from tests.testbed.labs import link, node, topology
from topologies.load import Lab

CAPTURE = Path("traffic/some.pcap")
NET = topology(
    [
        node("edge", {"eth0": ["203.0.113.1/24"]}, "edge", prefixes=["198.51.100.0/24"]),
        node("lb", {"eth0": ["203.0.113.2/24"], "eth1": ["10.0.0.1/24"]}, "loadbalancer"),
        node("web", {"eth0": ["10.0.0.2/24", "fe80::2/64"]}),
    ],
    [link("edge:eth0", "lb:eth0"), link("lb:eth1", "web:eth0")],
)


def flow(source: str, target: str, port: int = 80, protocol: int = 6, outcome: str = "accepted") -> dict[str, object]:
    return {
        "flow_id": f"{source}>{target}:{port}/{protocol}",
        "source_address": source,
        "destination_address": target,
        "destination_port": port,
        "protocol": protocol,
        "outcome": outcome,
    }


def placed(*flows: dict[str, object]):
    return place(pd.DataFrame(flows), NET, (CAPTURE,))


def test_a_flow_between_end_points_is_replayed():
    found = placed(flow("198.51.100.9", "203.0.113.2"))
    assert found.flows["source_address"].tolist() == ["198.51.100.9"]
    assert found.left_out == {}


def test_what_a_proxy_says_it_will_say_again_by_itself():
    found = placed(flow("10.0.0.1", "10.0.0.2"), flow("198.51.100.9", "203.0.113.2"))
    assert list(found.left_out.values()) == ["made by lb itself"]
    assert found.flows.index.tolist() == [0]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_end_that_no_node_owns_is_an_error_with_the_capture(address):
    for ends in ((address, "10.0.0.2"), ("10.0.0.2", address)):
        with pytest.raises(InvalidInput, match=address) as refusal:
            placed(flow(*ends))
        assert refusal.value.path == CAPTURE


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("10.0.0.2", "224.0.0.251"),
        ("192.0.2.77", "239.255.255.250"),
        ("fe80::99", "ff02::fb"),
        ("0.0.0.0", "255.255.255.255"),
        ("fe80::2", "fe80::99"),
    ],
)
def test_what_belongs_to_one_wire_is_left_out_whoever_says_it(source, target):
    assert list(placed(flow(source, target)).left_out.values()) == ["multicast, broadcast or link-local"]


def test_no_flows_are_no_error():
    empty = place(pd.DataFrame([flow("10.0.0.2", "10.0.0.2")]).iloc[:0], NET, (CAPTURE,))
    assert empty.flows.empty


def test_an_address_has_a_node_or_none():
    assert [node_of(NET, a) for a in ("198.51.100.1", "10.0.0.2", "192.0.2.1")] == ["edge", "web", None]


def test_every_port_on_which_somebody_must_answer_is_listened_on():
    lab = Lab(Path(), "tiny", NET, None, (), {})
    configs = {
        "lb": {
            "haproxy.cfg": b"backend b\n  server a 10.0.0.2:8080 check\n  server b unix@/x\n  server c 10.0.0.2:port\n"
        }
    }
    seen = pd.DataFrame(
        [
            flow("198.51.100.9", "10.0.0.2", 22),
            flow("198.51.100.9", "10.0.0.2", 53, 17),
            flow("198.51.100.9", "10.0.0.2", 23, outcome="denied"),
            flow("198.51.100.9", "203.0.113.2", 443),
        ]
    )
    assert listeners(lab, seen, configs) == [
        Listener("web", 6, 22),
        Listener("web", 6, 8080),
        Listener("web", 17, 53),
    ]


RULES = b"""*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 203.0.113.10/32 -p tcp -m multiport --dports 80,443 -j DNAT --to-destination 10.2.0.10
-A PREROUTING -d 203.0.113.10/32 -p tcp -m tcp --dport 8000:8010 -j DNAT --to-destination 10.2.0.11:80
-A PREROUTING -d www.shop.example -p tcp -j DNAT --to-destination 10.9.9.9
-A PREROUTING ! -d 203.0.113.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.2.0.53-10.2.0.60:53
-A PREROUTING -d 2001:db8::10/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination [2001:db8:1::10]:8080
-A PREROUTING -d 2001:db8::11/128 -p tcp -j DNAT --to-destination 2001:db8:1::11
COMMIT
*filter
-A FORWARD -d 203.0.113.99/32 -j DNAT --to-destination 10.0.0.1
COMMIT
"""


@pytest.mark.parametrize(
    ("address", "port", "protocol", "wanted"),
    [
        ("203.0.113.10", 443, 6, "10.2.0.10"),
        ("203.0.113.10", 443, 17, None),
        ("203.0.113.10", 8005, 6, "10.2.0.11"),
        ("203.0.113.10", 8011, 6, None),
        ("203.0.113.53", 53, 17, "10.2.0.53"),
        ("203.0.113.10", 53, 17, None),
        ("2001:db8::10", 80, 6, "2001:db8:1::10"),
        ("2001:db8::11", 5, 6, "2001:db8:1::11"),
        ("203.0.113.99", 80, 6, None),
    ],
)
def test_the_first_rule_that_matches_translates(address, port, protocol, wanted):
    assert translations(RULES, address, port, protocol) == wanted


WORDS = st.sampled_from(
    [
        "-d",
        "-p",
        "!",
        "--dport",
        "--dports",
        "tcp",
        "80",
        ":",
        "9:",
        ",",
        "10.0.0.1",
        "x",
        "[",
        "::1",
        "-j DNAT --to-destination",
    ]
)


@given(st.lists(WORDS | st.text(max_size=5)))
def test_hostile_rules_translate_nowhere_worse_than_nowhere(words):
    translated = translations(f"*nat\n-A PREROUTING {' '.join(words)}\n".encode(errors="replace"), "10.0.0.1", 80, 6)
    assert translated is None or node_of(NET, translated) in {None, "edge", "lb", "web"}
