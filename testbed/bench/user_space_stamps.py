"""The same exchange as everybody measures it: stamped in user space, before a system call and after it.

A blocking client and a blocking server, a process each, as prompt as such programs are. It knows no tap and no player.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import cast

from replay.child import Channel, Child, enter_namespace

REQUEST_OCTETS = RESPONSE_OCTETS = 200
_STAMP = struct.Struct("!q")
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Stamped:
    """Connect times, and one-way delays of requests and responses, in ns."""

    connect_ns: list[int]
    one_way_delay_ns: list[int]


def stamped_in_user_space(
    client_fd: int, server_fd: int, source: str, target: tuple[str, int], count: int, gap_ns: int
) -> Stamped:
    """Connect, ask, hear and close `count` times, every `gap_ns`; raises ChildFailed when a side fails."""

    def serve(channel: Channel) -> None:
        enter_namespace(server_fd)
        with socket.create_server(target, backlog=128) as listening:
            channel.send(("ready", None))
            channel.send(("delays", [_answered(listening) for _ in range(count)]))
            channel.receive()

    def ask(channel: Channel) -> None:
        enter_namespace(client_fd)
        channel.send(("ready", None))
        due_ns = time.monotonic_ns()
        told = []
        for _ in range(count):
            due_ns += gap_ns
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            told.append(_asked(source, target))
        channel.send(("asked", told))
        channel.receive()

    server, client = Child("server", serve), Child("client", ask)
    try:
        server.start()
        client.start()
        wait_s = count * gap_ns / 1e9 + _LONGEST_WAIT_S
        asked = cast("list[tuple[int, int]]", client.receive("asked", wait_s))
        there = cast("list[int]", server.receive("delays", wait_s))
    finally:
        client.stop()
        server.stop()
    return Stamped([connect for connect, _ in asked], [*there, *(back for _, back in asked)])


def _asked(source: str, target: tuple[str, int]) -> tuple[int, int]:
    """One exchange as the client sees it: how long the connect took, and the response's delay."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.bind((source, 0))
        begun_ns = time.time_ns()
        line.connect(target)
        connected_ns = time.time_ns()
        line.sendall(_STAMP.pack(time.time_ns()).ljust(REQUEST_OCTETS, b"?"))
        heard = line.recv(RESPONSE_OCTETS, socket.MSG_WAITALL)
        heard_ns = time.time_ns()
    return connected_ns - begun_ns, heard_ns - int(_STAMP.unpack_from(heard)[0])


def _answered(listening: socket.socket) -> int:
    """One exchange as the server sees it: the request's delay."""
    line, _ = listening.accept()
    with line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = line.recv(REQUEST_OCTETS, socket.MSG_WAITALL)
        asked_ns = time.time_ns()
        line.sendall(_STAMP.pack(time.time_ns()).ljust(RESPONSE_OCTETS, b"!"))
        line.recv(1)
    return asked_ns - int(_STAMP.unpack_from(asked)[0])
