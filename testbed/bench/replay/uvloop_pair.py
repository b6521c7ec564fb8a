"""The exchange as a client and a server on uvloop, a process each, written the way its users write it.

Protocols and transports, `call_later` for think times; both processes are forked as the player's are.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from itertools import count
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from replay.child import Channel, Child, enter_namespace
from replay.promptness import ask_promptness
from testbed.bench.replay.exchange import EXCHANGES, Load, Played

LINGER_SECONDS = 3.0
REAL_TIME_PRIORITY = 20
_Account: TypeAlias = "tuple[int, npt.NDArray[np.int64], int]"


def play_uvloop(load: Load, client_fd: int, server_fd: int) -> Played:
    """Play a load between two network namespaces; raises ChildFailed, TimeoutError."""
    server = Child("uvloop server", lambda channel: _live(channel, server_fd, _serve(channel, load)))
    client = Child("uvloop client", lambda channel: _live(channel, client_fd, _speak(channel, load)))
    limit = load.seconds + 4 * LINGER_SECONDS
    try:
        server.start()
        client.start()
        finished, said, ended_ns = cast("_Account", client.receive("played", limit))
        _, answered, _ = cast("_Account", server.receive("played", limit))
    finally:
        client.stop()
        server.stop()
    return Played(np.concatenate([said, answered]), finished, ended_ns)


def _live(channel: Channel, netns_fd: int, body: Coroutine[Any, Any, tuple[int, list[int], int]]) -> None:
    import uvloop  # noqa: PLC0415  for the bench alone: not among what the product needs

    ask_promptness(REAL_TIME_PRIORITY)
    enter_namespace(netns_fd)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    finished, lateness, ended_ns = loop.run_until_complete(body)
    channel.send(("played", (finished, np.asarray(lateness, dtype=np.int64), ended_ns)))


class _Side(asyncio.Protocol):
    """What both sides do: count what arrives, think, speak."""

    def __init__(self, load: Load, number: int, wanted: int, payload: bytes, lateness: list[int]) -> None:
        self._whole = self._wanted = wanted
        self._payload = payload
        self._load = load
        self._number = number
        self._lateness = lateness
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._due_ns = 0
        self.heard = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Count; with the last octet it is this side's turn."""
        self._wanted -= len(data)
        if self._wanted <= 0:
            self._wanted += self._whole
            self.heard += 1
            self.turn()

    def turn(self) -> None:
        """Think, then speak."""
        think_ns = self._load.think_of(self._number, self.heard)
        self._due_ns = time.monotonic_ns() + think_ns
        self._loop.call_later(think_ns / 1e9, self._speak)

    def _speak(self) -> None:
        self._lateness.append(time.monotonic_ns() - self._due_ns)
        if self._transport is not None:
            self._transport.write(self._payload)


class _Client(_Side):
    def __init__(self, load: Load, number: int, lateness: list[int]) -> None:
        super().__init__(load, number, load.response_octets, b"q" * load.request_octets, lateness)
        self.over: asyncio.Future[bool] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first request leaves at once."""
        super().connection_made(transport)
        transport.write(self._payload)  # type: ignore[attr-defined]

    def turn(self) -> None:
        """After the last response the client closes."""
        if self.heard < EXCHANGES:
            super().turn()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The flow's end."""
        if not self.over.done():
            self.over.set_result(exc is None and self.heard == EXCHANGES)


async def _speak(channel: Channel, load: Load) -> tuple[int, list[int], int]:
    loop = asyncio.get_running_loop()
    lateness: list[int] = []
    finished = 0
    flows: set[asyncio.Task[None]] = set()

    async def flow(number: int) -> None:
        nonlocal finished
        side = _Client(load, number, lateness)
        await loop.create_connection(lambda: side, load.target, load.port, local_addr=load.source_of(number))
        if await side.over:
            finished += 1

    channel.send(("ready", None))
    begin_ns = time.monotonic_ns()
    for number in range(load.flows):
        due_ns = begin_ns + load.due_ns(number)
        wait_ns = due_ns - time.monotonic_ns()
        if wait_ns > 0:
            await asyncio.sleep(wait_ns / 1e9)
        lateness.append(time.monotonic_ns() - due_ns)
        task = loop.create_task(flow(number))
        flows.add(task)
        task.add_done_callback(flows.discard)
    if flows:
        await asyncio.wait(flows, timeout=LINGER_SECONDS)
    return finished, lateness, time.monotonic_ns() - begin_ns


async def _serve(channel: Channel, load: Load) -> tuple[int, list[int], int]:
    loop = asyncio.get_running_loop()
    lateness: list[int] = []
    ended = 0
    numbers = count()
    over = loop.create_future()

    class Served(_Side):
        def __init__(self) -> None:
            super().__init__(load, next(numbers), load.request_octets, b"a" * load.response_octets, lateness)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def connection_lost(self, exc: Exception | None) -> None:
            nonlocal ended
            ended += 1
            if ended == load.flows and not over.done():
                over.set_result(None)

    async with await loop.create_server(Served, "0.0.0.0", load.port, backlog=4096, reuse_address=True):
        channel.send(("ready", None))
        await asyncio.wait([over], timeout=load.seconds + 2 * LINGER_SECONDS)
    return ended, lateness, 0
