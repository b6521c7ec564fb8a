"""Where TLS is ended and begun anew, by HAProxy's words and the packet filters' translations."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.placement import translated
from testbed.tls_ends import begun_anew, certificates, ends_of_tls, ends_tls
from topologies.model import Interface, Node, Topology

NAT = b"""*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 203.0.113.10/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.1.0.10:8443
-A PREROUTING -d 203.0.113.11/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.1.0.10
COMMIT
"""


def configs(haproxy: str) -> dict[str, dict[str, bytes]]:
    return {"lb1": {"haproxy.cfg": haproxy.encode()}, "fw1": {"iptables.rules": NAT}}


TOPOLOGY = Topology(
    "t",
    (
        Node("lb1", "loadbalancer", (Interface("e", (ip_interface("10.1.0.10/24"), ip_interface("2001:db8::1/64"))),)),
        Node("internet", "edge", prefixes=(ip_network("203.0.113.0/24"),)),
    ),
    (),
)


@pytest.mark.parametrize(
    ("bind", "ends"),
    [
        ("bind :443 ssl crt /x.pem", [("10.1.0.10", 443), ("2001:db8::1", 443), ("203.0.113.11", 443)]),
        ("bind *:8443 ssl crt /x.pem alpn h2", [("10.1.0.10", 8443), ("203.0.113.10", 443)]),
        ("bind ipv4@10.1.0.10:440-445,[2001:db8::1]:1 ssl", [("10.1.0.10", 443), ("2001:db8::1", 1)]),
        ("bind [::]:443 v4v6 ssl crt /x", [("10.1.0.10", 443)]),
        ("bind 10.1.0.99:443 ssl crt /x", []),
        ("bind :443", []),
        ("bind :443 # ssl", []),
        ("bind /run/socket ssl crt /x", []),
    ],
)
def test_what_meets_a_bind_with_ssl_ends_there(bind, ends) -> None:
    met = ends_tls(TOPOLOGY, configs(f"frontend web\n  {bind}\n"))
    asked = [(a, p) for a in ("10.1.0.10", "2001:db8::1", "203.0.113.10", "203.0.113.11") for p in (1, 443, 8443)]
    assert {one for one in asked if met(*one)} >= set(ends)
    assert bool(ends) == any(met(*one) for one in asked)


def test_a_translation_keeps_the_port_or_names_another() -> None:
    assert translated(NAT, "203.0.113.10", 443, 6) == ("10.1.0.10", 8443)
    assert translated(NAT, "203.0.113.11", 443, 6) == ("10.1.0.10", 443)
    assert translated(NAT, "203.0.113.12", 443, 6) is None


def test_servers_that_are_spoken_to_in_tls_are_found() -> None:
    text = """
backend one
  server a 10.0.0.1:8443 check ssl verify none sni str(shop.example) verifyhost www.shop.example
  server b 10.0.0.2:8080 check
backend two
  default-server ssl verify none
  server c [2001:db8::2]:443
  server d name.example:443
backend three
  server e 10.0.0.3:80
"""
    found = begun_anew(configs(text))
    assert [(one.address, one.port) for one in found] == [
        ("10.0.0.1", 8443),
        ("2001:db8::2", 443),
        ("name.example", 443),
    ]
    assert found[0].names == ("shop.example", "www.shop.example")


def test_certificates_are_taken_once_each() -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"
    key = b"-----BEGIN PRIVATE KEY-----\nBB==\n-----END PRIVATE KEY-----\n"
    assert certificates({"lb1": {"files/x.pem": key + pem}, "lb2": {"files/x.pem": pem}}) == [pem.decode()]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="bindserv ssl:*[]@,-0123456789.\"'#\n", max_size=200))
def test_no_text_is_a_crash(text: str) -> None:
    ends_of_tls(configs(text))
    begun_anew(configs(text))
