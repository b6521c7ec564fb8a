"""A SYN that was answered in vain leaves a server waiting; the next window must not meet it."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from ipaddress import ip_interface

import pytest

from testbed.network.addressing import set_addresses
from testbed.network.half_open import end_half_open
from testbed.network.link import Port, Veth
from testbed.network.mininet_api import ShadowNet
from testbed.sandbox import Sandbox
from topologies.model import Interface

SERVER, CLIENT_PORT, PORT = "10.9.0.2", 40_001, 7000
ANSWERS = ["-p", "tcp", "--tcp-flags", "SYN,ACK", "SYN,ACK", "-j", "DROP"]
TOTAL_RETRANSMITS_AT = 100
"""Of tcpi_total_retrans in struct tcp_info (linux/tcp.h)."""


def tried_twice(net: ShadowNet, *, ended: bool) -> tuple[int, int]:
    """How many half-open connections are left in between, and how often the second try's SYN was sent again."""
    client, server = (net.add(name, {}).namespace for name in ("h1", "h2"))
    net.connect([Veth(Port(client, "eth0"), Port(server, "eth0"), 1500)])
    for number, space in enumerate((client, server), start=1):
        set_addresses(space, [Interface("eth0", (ip_interface(f"10.9.0.{number}/24"),))])
    with server.inside(socket.socket) as listener:
        listener.bind((SERVER, PORT))
        listener.listen(8)
        client.run(["iptables", "-A", "INPUT", *ANSWERS])
        with suppress(TimeoutError), connecting(client, 0.3):
            pass
        client.run(["iptables", "-D", "INPUT", *ANSWERS])
        left = end_half_open(server) if ended else 1
        with connecting(client, 2.0) as connection:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        return left, int(struct.unpack_from("=I", told, TOTAL_RETRANSMITS_AT)[0])


def connecting(client, seconds: float) -> socket.socket:
    one = client.inside(socket.socket)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.bind(("10.9.0.1", CLIENT_PORT))
    one.settimeout(seconds)
    try:
        one.connect((SERVER, PORT))
    except TimeoutError:
        one.close()
        raise
    return one


@pytest.mark.parametrize(("ended", "again"), [(False, 1), (True, 0)])
def test_a_connection_after_one_that_failed_is_the_first_of_its_kind(ended, again):
    def job():
        net = ShadowNet()
        try:
            return tried_twice(net, ended=ended)
        finally:
            net.close()

    left, retransmits = Sandbox("half").call(job)
    assert left == (0 if ended else 1)
    assert retransmits == again
