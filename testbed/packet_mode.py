"""Packet mode on a shadow: next hops by its own kernels, end points kept from answering, one player for all nodes.

It knows no change and no verdict; what packets met is computed in `replay.packet_mode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from replay.packet_mode.plan import PacketPlan
from replay.packet_mode.player import PacketPlayer
from replay.packet_mode.sender import Timing
from testbed.network.namespace import Namespace
from testbed.network.next_hop import ways
from testbed.silence import silenced, unanswered


@contextmanager
def packet_player(
    namespaces: Mapping[str, Namespace], plan: PacketPlan, timing: Timing | None = None
) -> Iterator[PacketPlayer]:
    """A player for this plan while the block lasts, its end points silent; ways are asked for before every window.

    Raises Unsupported where a node has no nftables, PacketPlayerFailed where one gives no packet socket.
    """
    descriptors = {node: namespace.net_fd for node, namespace in namespaces.items()}
    with (
        silenced(namespaces, unanswered(plan)),
        PacketPlayer(plan, descriptors, lambda hops: ways(namespaces, hops), timing) as player,
    ):
        yield player
