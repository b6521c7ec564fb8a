"""Packet mode on a shadow: next hops by its own kernels, end points kept from answering, one player for all nodes.

It knows no change and no verdict; what packets met is computed in `replay.packet_mode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from replay.packet_mode.plan import PacketPlan
from replay.packet_mode.player import PacketPlayer
from replay.packet_mode.sender import Timing
from testbed.network.namespace import Namespace
from testbed.network.next_hop import ways
from testbed.network.promptness import Promptness, ask_promptness
from testbed.silence import Silence, silenced, unanswered


@dataclass(frozen=True, slots=True)
class PacketMode:
    """Packet mode made ready: its player, and the silence of its end points."""

    player: PacketPlayer
    silence: Silence

    def arm(self) -> None:
        """Make ready for the next window, whatever a change did meanwhile; raises Unsupported, PacketPlayerFailed."""
        self.silence.keep()
        self.player.arm()


@contextmanager
def packet_mode(
    namespaces: Mapping[str, Namespace], plan: PacketPlan, timing: Timing | None = None
) -> Iterator[PacketMode]:
    """Packet mode for this plan while the block lasts, its end points silent; ways are asked for before every window.

    Raises Unsupported where a node has no nftables, PacketPlayerFailed where one gives no packet socket.
    """
    with (
        silenced(namespaces, unanswered(plan)) as silence,
        player_of(namespaces, plan, timing) as player,
    ):
        yield PacketMode(player, silence)


def player_of(namespaces: Mapping[str, Namespace], plan: PacketPlan, timing: Timing | None = None) -> PacketPlayer:
    """The player alone, as prompt as this machine lets it be; whoever owns the end points may answer it."""
    descriptors = {node: namespace.net_fd for node, namespace in namespaces.items()}
    return PacketPlayer(plan, descriptors, lambda hops: ways(namespaces, hops), timing, _is_real_time)


def _is_real_time(priority: int) -> bool:
    return ask_promptness(priority) is Promptness.REAL_TIME
