"""Probes: scripts that the player plays when they are named, with a patience of their own."""

from dataclasses import replace

from replay.schedule import TCP
from replay.session import Listener, Patience, Player
from tests.replay.netns import Net, apart, routed
from tests.replay.scripts import FORWARD, REVERSE, STATEFUL, plan, script

LONG_NS = 4_000_000_000
SHORT = Patience(connect_timeout_ns=300_000_000, unanswered_timeout_ns=300_000_000, message_timeout_ns=300_000_000)


def test_probes_are_played_when_named_and_their_window_ends_with_them() -> None:
    said = ((FORWARD, 0, b"hello"), (REVERSE, 0, b"well"))

    def body(net: Net) -> list[tuple[dict[str, str], float]]:
        routed(net, STATEFUL)
        flow = script("flow", ("10.0.0.2", 8080), *said, source=("198.51.100.7", 1_025))
        probes = (
            script("open", ("10.0.0.2", 8080), *said, source=("198.51.100.7", 1_026)),
            script("filtered", ("10.0.0.2", 9_999), source=("198.51.100.7", 1_027)),
        )
        schedule = replace(plan(flow), duration_ns=LONG_NS, probes=probes)
        found = []
        with Player(schedule, net.fds, [Listener("server", TCP, 8080)]) as player:
            for only, patience in ((["open", "filtered"], SHORT), (None, None)):
                result = player.play(0, only, patience).wait(20)
                errors = dict(zip(result.attempts["flow_id"], result.attempts["error"], strict=True))
                found.append((errors, (result.ended_ns - result.started_ns) / 1e9))
        return found

    (probed, took_s), (window, window_s) = apart(body)
    assert probed == {"open": "none", "filtered": "timeout"}
    assert took_s < 1
    assert window == {"flow": "none"}
    assert window_s >= LONG_NS / 1e9
