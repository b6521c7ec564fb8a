"""Packet mode on a shadow: next hops by its own kernels, end points kept from answering, one player for all nodes.

It knows no change and no verdict; what packets met is computed in `replay.packet_mode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from replay.packet_mode.plan import PacketPlan
from replay.packet_mode.player import PacketPlayer
from replay.packet_mode.sender import Timing
from testbed.network.namespace import Namespace
from testbed.network.next_hop import ways
from testbed.silence import silenced, unanswered


@dataclass(frozen=True, slots=True)
class PacketMode:
    """Packet mode made ready: its player, and what tells how many packets each end point's kernel was spared."""

    player: PacketPlayer
    spared: Callable[[], dict[str, int]]


@contextmanager
def packet_mode(
    namespaces: Mapping[str, Namespace], plan: PacketPlan, timing: Timing | None = None
) -> Iterator[PacketMode]:
    """Packet mode for this plan while the block lasts, its end points silent; ways are asked for before every window.

    Raises Unsupported where a node has no nftables, PacketPlayerFailed where one gives no packet socket.
    """
    descriptors = {node: namespace.net_fd for node, namespace in namespaces.items()}
    with (
        silenced(namespaces, unanswered(plan)) as spared,
        PacketPlayer(plan, descriptors, lambda hops: ways(namespaces, hops), timing) as player,
    ):
        yield PacketMode(player, spared)
