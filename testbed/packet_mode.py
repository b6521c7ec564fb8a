"""Packet mode on a shadow: next hops by its own kernels, end points kept from answering, one player for all nodes.

It knows no change and no verdict; what packets met is computed in `replay.packet_mode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

from replay.packet_mode.plan import PacketPlan, Program
from replay.packet_mode.player import PacketPlayer, PacketResult
from replay.packet_mode.sender import Timing
from testbed.network.namespace import Namespace
from testbed.network.next_hop import ways
from testbed.network.promptness import Promptness, ask_promptness
from testbed.silence import Silence, silenced, unanswered
from testbed.tcpreplay_player import TcpreplayPlayer


class Sender(StrEnum):
    """Who puts packets on the wire: packet mode itself, or tcpreplay where it is new enough."""

    OWN = "own"
    TCPREPLAY = "tcpreplay"


class Play(Protocol):
    """A window that is being played."""

    def wait(self, timeout_s: float | None = None) -> PacketResult:
        """The result, once the last packet has had time to arrive."""


class Player(Protocol):
    """What plays a plan, window by window."""

    def arm(self) -> Program:
        """Ask for the ways and lay the packets out."""

    def play(self, window: int, *, armed: bool = False) -> Play:
        """Begin a window now; returns at once."""


@dataclass(frozen=True, slots=True)
class PacketMode:
    """Packet mode made ready: its player, and the silence of its end points."""

    player: Player
    silence: Silence

    def arm(self) -> None:
        """Make ready for the next window, whatever a change did meanwhile; raises Unsupported, PacketPlayerFailed."""
        self.silence.keep()
        self.player.arm()


@contextmanager
def packet_mode(
    namespaces: Mapping[str, Namespace], plan: PacketPlan, timing: Timing | None = None, sender: Sender = Sender.OWN
) -> Iterator[PacketMode]:
    """Packet mode for this plan while the block lasts, its end points silent; ways are asked for before every window.

    Raises Unsupported where a node has no nftables or tcpreplay is too old, PacketPlayerFailed where a node gives no
    packet socket.
    """
    with ExitStack() as held:
        silence = held.enter_context(silenced(namespaces, unanswered(plan)))
        player: Player
        if sender is Sender.TCPREPLAY:
            player = held.enter_context(TcpreplayPlayer(plan, namespaces, partial(ways, namespaces)))
        else:
            player = held.enter_context(player_of(namespaces, plan, timing))
        yield PacketMode(player, silence)


def player_of(namespaces: Mapping[str, Namespace], plan: PacketPlan, timing: Timing | None = None) -> PacketPlayer:
    """The player alone, as prompt as this machine lets it be; whoever owns the end points may answer it."""
    descriptors = {node: namespace.net_fd for node, namespace in namespaces.items()}
    return PacketPlayer(plan, descriptors, partial(ways, namespaces), timing, _is_real_time)


def _is_real_time(priority: int) -> bool:
    return ask_promptness(priority) is Promptness.REAL_TIME
