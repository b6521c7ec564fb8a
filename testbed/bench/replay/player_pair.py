"""The exchange as the player plays it: scripts in, its own record of lateness out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from replay.schedule import FORWARD, REVERSE, TCP, FlowScript, Message, Schedule
from replay.session import Listener, Patience, Player, PlayResult
from testbed.bench.replay.exchange import EXCHANGES, Load, Played

PATIENCE = Patience(message_timeout_ns=500_000_000)


def script(load: Load, number: int, node: str) -> FlowScript:
    """A flow of the load; its first request says which one it is, as captured ones do."""
    said = []
    for exchange in range(EXCHANGES):
        request = b"%012d" % number if exchange == 0 else b""
        think_ns = load.think_of(number, 2 * exchange) if exchange else 0
        said.append(Message(FORWARD, think_ns, request.ljust(load.request_octets, b"q")))
        said.append(Message(REVERSE, load.think_of(number, 2 * exchange + 1), b"a" * load.response_octets))
    return FlowScript(
        flow_id=f"f{number}",
        protocol=TCP,
        source_node=node,
        source=load.source_of(number),
        target=(load.target, load.port),
        start_ns=load.due_ns(number),
        messages=tuple(said),
        close="fin_forward",
        outcome="accepted",
        application="",
        priority="normal",
    )


def play_ours(
    load: Load, namespaces: Mapping[str, int], client: str, server: str, shards: int | None = None
) -> tuple[Played, PlayResult]:
    """Play a load between two nodes, by so many processes (the player's own choice when None).

    Raises PlayerFailed, TimeoutError.
    """
    scripts = tuple(script(load, number, client) for number in range(load.flows))
    plan = Schedule(scripts, 1.0, int(load.seconds * 1e9))
    with Player(plan, namespaces, [Listener(server, TCP, load.port)], PATIENCE, shards=shards) as player:
        result = player.play(0).wait(load.seconds * 4 + 30)
    lateness = result.lateness["lateness_ns"].to_numpy(dtype=np.int64)
    completed = int((result.attempts["error"] == "none").sum())
    return Played(lateness, completed, int(result.attempts["ended_ns"].max()) - result.started_ns), result
